#include "graph/bridge.h"

#include "ggml-backend.h"
#include "ggml.h"
#include "graph/graph_edit.h"
#include "graph/sublayer_flow.h"
#include "graph/taught_matrix.h"
#include "llama-graph.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ecl {

namespace {

constexpr float least_square = 1e-12f;  // so that a state of zeros is no division by zero

// What the step's tokens have before them, copied in before each run.
class input_before : public llm_graph_input_i {
  public:
    input_before(ggml_tensor * tensor, const std::vector<float> & source) : tensor(tensor), source(source) {}

    void set_input(const llama_ubatch *) override {
        GGML_ASSERT(source.size() * sizeof(float) == ggml_nbytes(tensor));
        ggml_backend_tensor_set(tensor, source.data(), 0, ggml_nbytes(tensor));
    }

    bool can_reuse(const llm_graph_params & params) override {
        return tensor->ne[1] == static_cast<int64_t>(params.ubatch.n_tokens);
    }

  private:
    ggml_tensor *              tensor;
    const std::vector<float> & source;
};

ggml_tensor * across(ggml_context * ctx, const bridge & map, ggml_tensor * x, ggml_tensor * before) {
    ggml_tensor * features = ggml_concat(ctx, ggml_rms_norm(ctx, x, least_square), before, 0);
    ggml_tensor * change   = ggml_add(ctx, ggml_mul_mat(ctx, map.weights, features), map.bias);
    ggml_tensor * rms      = ggml_sqrt(ctx, ggml_mean(ctx, ggml_sqr(ctx, x)));
    return ggml_add(ctx, x, ggml_mul(ctx, change, rms));
}

void keep(ggml_tensor * t) {
    ggml_set_output(t);
    if (t->view_src != nullptr) {
        ggml_set_output(t->view_src);
    }
}

refusal check(const llama_model & model, const int32_t * layers, int32_t n) {
    const int32_t n_layer = llama_model_n_layer(&model);
    for (int32_t i = 0; i < n; ++i) {
        const int32_t begin = layers[2 * i], end = layers[2 * i + 1];
        const int32_t least = i == 0 ? 0 : layers[2 * i - 1] + 1;
        if (begin < least || begin >= end || end >= n_layer) {
            return { ECL_BAD_ARGUMENT, "there is no bridge from layer " + std::to_string(begin) + " to layer " +
                                           std::to_string(end) + " of " + std::to_string(n_layer) + " here" };
        }
        if (ggml_backend_dev_type(model.dev_layer(begin)) != GGML_BACKEND_DEVICE_TYPE_CPU) {
            return { ECL_NO_MASK, "bridges over dropped layers: its layers are not in memory that the CPU computes in" };
        }
    }
    return {};
}

}  // namespace

int64_t bridge_set::floats_a_token() const {
    return bridges.empty() ? 0 : static_cast<int64_t>(bridges.size()) * 2 * bridges[0].bias->ne[0];
}

void bridge_set::set_before(const float * states, int64_t n) {
    const int64_t n_embd = bridges[0].bias->ne[0];
    for (bridge & each : bridges) {
        each.before.resize(n * 2 * n_embd);
    }
    for (int64_t token = 0; token < n; ++token) {
        for (bridge & each : bridges) {
            for (int64_t half = 0; half < 2; ++half, states += n_embd) {
                float square = 0.0f;
                for (int64_t i = 0; i < n_embd; ++i) {
                    square += states[i] * states[i];
                }
                const float scale = 1.0f / std::sqrt(square / static_cast<float>(n_embd) + least_square);
                std::transform(states, states + n_embd, each.before.begin() + (2 * token + half) * n_embd,
                               [scale](float value) { return scale * value; });
            }
        }
    }
}

refusal make_bridges(const llama_model & model, const int32_t * layers, const float * weights, int32_t n,
                     std::unique_ptr<bridge_set> & made) {
    if (refusal refused = check(model, layers, n)) {
        return refused;
    }
    const int64_t n_embd = llama_model_n_embd(&model);
    const int64_t width  = 3 * n_embd;
    auto          set    = std::make_unique<bridge_set>();
    set->meta.reset(ggml_init({ 2 * n * ggml_tensor_overhead(), nullptr, true }));
    if (set->meta != nullptr) {
        for (int32_t i = 0; i < n; ++i) {
            set->bridges.push_back({ layers[2 * i], layers[2 * i + 1],
                                     ggml_new_tensor_2d(set->meta.get(), taught_type(width), width, n_embd),
                                     ggml_new_tensor_1d(set->meta.get(), GGML_TYPE_F32, n_embd), {} });
        }
        set->buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(set->meta.get(), ggml_backend_cpu_buffer_type()));
    }
    if (set->buffer == nullptr) {
        return { ECL_NO_MASK, "bridges over dropped layers: there is no memory for them" };
    }
    ggml_backend_buffer_set_usage(set->buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (const bridge & each : set->bridges) {
        store_rows(each.weights, weights, width + 1);
        for (int64_t row = 0; row < n_embd; ++row, weights += width + 1) {
            static_cast<float *>(each.bias->data)[row] = weights[width];
        }
    }
    made = std::move(set);
    return {};
}

std::string put_bridges(llm_graph_result & res, graph_edit & edit, const sublayer_flow & flow,
                        const bridge_set & set) {
    for (const bridge & each : set.bridges) {
        ggml_tensor * x       = flow.stream_into(each.begin);
        ggml_tensor * dropped = flow.stream_into(each.end);  // what would go on without the map
        if (x == nullptr || dropped == nullptr) {
            return "the residual stream around its layers " + std::to_string(each.begin) + " to " +
                   std::to_string(each.end) + " was not found";
        }
        if (x->type != GGML_TYPE_F32 || !ggml_is_contiguous(x) || ggml_n_dims(x) > 2 ||
            x->ne[0] != each.bias->ne[0] || !ggml_are_same_shape(x, dropped)) {
            return "its residual stream is not one vector a token";
        }
        ggml_tensor * before = ggml_new_tensor_2d(res.get_ctx(), GGML_TYPE_F32, 2 * x->ne[0], x->ne[1]);
        ggml_format_name(before, "ecl_before-%d", each.begin);
        ggml_set_input(before);
        res.add_input(std::make_unique<input_before>(before, each.before));
        ggml_tensor * end = across(res.get_ctx(), each, x, before);
        ggml_format_name(end, "ecl_bridge-%d", each.end);
        keep(x);
        keep(end);
        res.ecl.bridge_ends.push_back(x);
        res.ecl.bridge_ends.push_back(end);
        edit.replace(dropped, end);
    }
    for (ggml_tensor * node : edit.order()) {
        edit.resolve_operands(node);
    }
    return "";
}

}  // namespace ecl
