#include "draft/taught_exits.h"

#include "ggml-cpu.h"
#include "ggml.h"
#include "graph/draft_head.h"
#include "graph/taught_matrix.h"
#include "logits/most_likely.h"
#include "status.h"

#include <cmath>
#include <numeric>

namespace ecl {

std::unique_ptr<taught_exit> taught_exit::make(int32_t layer, const float * norm, const float * weights,
                                               int64_t n_embd) {
    auto exit     = std::make_unique<taught_exit>();
    exit->n_layer = layer;
    exit->norm.assign(norm, norm + n_embd);
    exit->normed.resize(n_embd);
    exit->backend.reset(ggml_backend_cpu_init());
    exit->weights_meta.reset(ggml_init({ ggml_tensor_overhead(), nullptr, true }));
    if (exit->backend == nullptr || exit->weights_meta == nullptr) {
        return nullptr;
    }
    exit->weights = ggml_new_tensor_2d(exit->weights_meta.get(), taught_type(n_embd), n_embd, n_embd);
    exit->weights_buffer.reset(ggml_backend_alloc_ctx_tensors(exit->weights_meta.get(), exit->backend.get()));
    if (exit->weights_buffer == nullptr) {
        return nullptr;
    }
    store_rows(exit->weights, weights, n_embd);
    return exit;
}

const char * taught_exit::prepare(const draft_head & head, uint64_t wanted) {
    if (number == wanted) {
        return nullptr;
    }
    number = 0;
    graph_buffer.reset();
    if (!ggml_backend_supports_buft(backend.get(), ggml_backend_buffer_get_type(head.rows->buffer))) {
        return "its LM head is not in memory that the CPU computes in";
    }
    graph_meta.reset(ggml_init({ 4 * ggml_tensor_overhead() + ggml_graph_overhead_custom(8, false), nullptr, true }));
    ggml_context * ctx = graph_meta.get();
    if (ctx == nullptr) {
        return "there is no memory for it";
    }
    input  = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, weights->ne[0]);
    output = ggml_mul_mat(ctx, head.rows, ggml_mul_mat(ctx, weights, input));
    graph  = ggml_new_graph_custom(ctx, 8, false);
    ggml_build_forward_expand(graph, output);
    if (!ggml_backend_supports_op(backend.get(), output)) {
        return "its LM head cannot be multiplied on the CPU";
    }
    graph_buffer.reset(ggml_backend_alloc_ctx_tensors(ctx, backend.get()));
    if (graph_buffer == nullptr) {
        return "there is no memory for it";
    }
    logits.resize(head.tokens.size());  // the rows after them are zeros
    number = wanted;
    return nullptr;
}

taught_exit::guess taught_exit::operator()(const float * stream, int32_t n_threads) {
    const size_t n      = norm.size();
    const double square = std::inner_product(stream, stream + n, stream, 0.0);
    const float  scale  = square > 0.0 ? static_cast<float>(1.0 / std::sqrt(square / n)) : 0.0f;
    for (size_t j = 0; j < n; ++j) {
        normed[j] = stream[j] * scale * norm[j];
    }
    ggml_backend_tensor_set(input, normed.data(), 0, n * sizeof(float));
    ggml_backend_cpu_set_n_threads(backend.get(), n_threads);
    if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
        throw error(ECL_FAILED, "a taught exit's graph failed");
    }
    ggml_backend_tensor_get(output, logits.data(), 0, logits.size() * sizeof(float));
    return guess_of(logits.data(), static_cast<int32_t>(logits.size()));
}

taught_exit::guess guess_of(const float * logits, int32_t n) {
    taught_exit::guess found = { 0, 0.0f, 0.0f };
    found.row                = most_likely(logits, n, nullptr);
    const float top          = logits[found.row];
    double      sum          = 0.0;
    double      weighted     = 0.0;
    for (int32_t i = 0; i < n; ++i) {
        const float  below = logits[i] - top;
        const double part  = std::exp(below);
        sum += part;
        weighted += part * below;
    }
    found.probability = static_cast<float>(1.0 / sum);
    found.entropy     = static_cast<float>(std::log(sum) - weighted / sum);
    return found;
}

}  // namespace ecl
