#include "draft/bridges.h"

#include "ecl.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "graph/bridge.h"
#include "llama-context.h"
#include "step/guard.h"

#include <algorithm>
#include <string>
#include <vector>

namespace ecl {

namespace {

// Copies one token's row of each tensor; false if one does not have it.
bool read_rows(const llama_context * ctx, const std::vector<ggml_tensor *> & tensors, int64_t row, float * out) {
    const int64_t n_embd = n_embd_of(ctx);
    return std::all_of(tensors.begin(), tensors.end(), [&](const ggml_tensor * t) {
        if (t == nullptr || t->type != GGML_TYPE_F32 || !ggml_is_contiguous(t) || t->ne[0] != n_embd || row < 0 ||
            row >= ggml_nrows(t)) {
            return false;
        }
        ggml_backend_tensor_get(t, out, row * t->nb[1], n_embd * sizeof(float));
        out += n_embd;
        return true;
    });
}

void set_bridges(llama_context * ctx, const int32_t * layers, const float * weights, int32_t n) {
    require(n >= 0 && n < n_layer_of(ctx), "there are more bridges than layers, or less than none");
    require(n == 0 || (layers != nullptr && weights != nullptr), "an array is a null pointer");
    context_state & state = ctx->ecl;
    ctx->synchronize();
    state.graphs.forget_bridges();
    state.bridges.reset();
    state.options.kept_layers.clear();
    if (n == 0) {
        return;
    }
    require_masks(ctx);
    state.n_bridges++;
    if (const refusal refused = make_bridges(ctx->get_model(), layers, weights, n, state.bridges)) {
        throw error(refused.status, refused.status == ECL_NO_MASK ? unsupported(ctx->get_model(), refused.why) :
                                                                    refused.why);
    }
    state.options.kept_layers.assign(layers, layers + 2 * static_cast<size_t>(n));
}

void bridge_states(llama_context * ctx, const int32_t * rows, int32_t n_rows, float * states) {
    require(n_rows <= static_cast<int32_t>(live_graphs::max_tokens), "steps over so many tokens keep no states");
    require(n_rows >= 0 && (n_rows == 0 || (rows != nullptr && states != nullptr)), "an array is a null pointer");
    if (ctx->ecl.bridges == nullptr) {
        throw error(ECL_BAD_ARGUMENT, "there are no bridges");
    }
    ctx->synchronize();
    const llm_graph_result * run = ctx->ecl.graphs.last_run();
    for (int32_t i = 0; i < n_rows; ++i, states += ctx->ecl.bridges->floats_a_token()) {
        if (run == nullptr || run->ecl.kept.size() != ctx->ecl.options.kept_layers.size() ||
            !read_rows(ctx, run->ecl.kept, rows[i], states)) {
            throw error(ECL_NO_OUTPUT, "the last step kept no states for bridges");
        }
    }
}

}  // namespace

void begin_bridges(llama_context * ctx, const float * before, int32_t n) {
    graph_options & options = ctx->ecl.options;
    bridge_set *    set     = ctx->ecl.bridges.get();
    if (set == nullptr) {
        throw error(ECL_BAD_ARGUMENT, "there are no bridges to draft over");
    }
    for (const bridge & each : set->bridges) {
        for (int32_t il = each.begin; il < each.end; ++il) {
            require(options.drops(il, sublayer::attention) && options.drops(il, sublayer::ffn),
                    "the mask keeps a layer that a bridge replaces");
        }
    }
    require_ubatch(ctx, n);  // one graph, which takes all of them
    set->set_before(before, n);
    options.bridges        = set;
    options.bridges_number = ctx->ecl.n_bridges;
}

void follow_bridges(llama_context * ctx) {
    ctx->synchronize();
    bridge_set &             set  = *ctx->ecl.bridges;
    const llm_graph_result * run  = ctx->ecl.graphs.last_run();
    const auto &             ends = run->ecl.bridge_ends;
    std::vector<float>       states(set.floats_a_token());
    if (ends.empty() || !read_rows(ctx, ends, ggml_nrows(ends[0]) - 1, states.data())) {
        throw error(ECL_FAILED, "a draft step kept no states for bridges");
    }
    set.set_before(states.data(), 1);
}

}  // namespace ecl

int32_t ecl_set_bridges(llama_context * ctx, const int32_t * layers, const float * weights, int32_t n) {
    return ecl::guarded(ctx, [&] { return ecl::set_bridges(ctx, layers, weights, n), ECL_OK; });
}

int32_t ecl_bridge_states(llama_context * ctx, const int32_t * rows, int32_t n_rows, float * states) {
    return ecl::guarded(ctx, [&] { return ecl::bridge_states(ctx, rows, n_rows, states), ECL_OK; });
}
