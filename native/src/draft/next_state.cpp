#include "draft/next_state.h"

#include "ggml-cpu.h"
#include "ggml.h"
#include "graph/draft_head.h"

#include <utility>

namespace ecl {

std::unique_ptr<next_state_head> next_state_head::make(const float * weights, int64_t n_embd) {
    auto head = std::make_unique<next_state_head>();
    head->backend.reset(ggml_backend_cpu_init());
    head->weights_meta.reset(ggml_init({ ggml_tensor_overhead(), nullptr, true }));
    if (head->backend == nullptr || head->weights_meta == nullptr) {
        return nullptr;
    }
    const int64_t   width = 3 * n_embd;
    const ggml_type type  = width % ggml_blck_size(GGML_TYPE_Q8_0) == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
    head->weights         = ggml_new_tensor_2d(head->weights_meta.get(), type, width, 2 * n_embd);
    head->weights_buffer.reset(ggml_backend_alloc_ctx_tensors(head->weights_meta.get(), head->backend.get()));
    if (head->weights_buffer == nullptr) {
        return nullptr;
    }
    const ggml_from_float_t store = ggml_get_type_traits_cpu(type)->from_float;
    for (int64_t row = 0; row < 2 * n_embd; ++row) {
        store(weights + row * width, static_cast<char *>(head->weights->data) + row * head->weights->nb[1], width);
    }
    return head;
}

const char * next_state_head::prepare(const draft_head & head, uint64_t wanted) {
    if (number == wanted) {
        return nullptr;
    }
    number = 0;
    graph_buffer.reset();
    if (!ggml_backend_supports_buft(backend.get(), ggml_backend_buffer_get_type(head.rows->buffer))) {
        return "its LM head is not in memory that the CPU computes in";
    }
    graph_meta.reset(ggml_init({ 5 * ggml_tensor_overhead() + ggml_graph_overhead_custom(8, false), nullptr, true }));
    ggml_context * ctx = graph_meta.get();
    if (ctx == nullptr) {
        return "there is no memory for it";
    }
    ggml_tensor * hidden = ggml_view_2d(ctx, weights, weights->ne[0], weights->ne[1] / 2, weights->nb[1], 0);
    input                = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, weights->ne[0]);
    output               = ggml_mul_mat(ctx, head.rows, ggml_mul_mat(ctx, hidden, input));
    graph  = ggml_new_graph_custom(ctx, 8, false);
    ggml_build_forward_expand(graph, output);
    if (!ggml_backend_supports_op(backend.get(), output)) {
        return "its LM head cannot be multiplied on the CPU";
    }
    graph_buffer.reset(ggml_backend_alloc_ctx_tensors(ctx, backend.get()));
    if (graph_buffer == nullptr) {
        return "there is no memory for it";
    }
    found.resize(head.tokens.size());  // the rows after them are zeros
    number = wanted;
    return nullptr;
}

const std::vector<float> * next_state_head::logits(const float * state, const float * embedding, int32_t n_threads) {
    const size_t size = weights->ne[1] / 2 * sizeof(float);
    ggml_backend_tensor_set(input, state, 0, 2 * size);
    ggml_backend_tensor_set(input, embedding, 2 * size, size);
    ggml_backend_cpu_set_n_threads(backend.get(), n_threads);
    if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
        return nullptr;
    }
    ggml_backend_tensor_get(output, found.data(), 0, found.size() * sizeof(float));
    return &found;
}

}  // namespace ecl
