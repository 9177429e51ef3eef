#include "draft/next_state.h"

#include "ggml-cpu.h"
#include "ggml.h"
#include "graph/draft_head.h"
#include "graph/taught_matrix.h"

#include <cstddef>

namespace ecl {

namespace {

float * place_of(const ggml_tensor * t, int32_t place) {
    return reinterpret_cast<float *>(static_cast<char *>(t->data) + place * t->nb[1]);
}

}  // namespace

std::unique_ptr<next_state_head> next_state_head::make(const float * weights, int64_t n_embd,
                                                       ggml_backend_buffer_type_t preferred) {
    auto head = std::make_unique<next_state_head>();
    head->backend.reset(ggml_backend_cpu_init());
    if (head->backend == nullptr || !((preferred != nullptr && head->allocate(n_embd, preferred)) ||
                                      head->allocate(n_embd, ggml_backend_cpu_buffer_type()))) {
        return nullptr;
    }
    const int64_t width = 3 * n_embd;
    store_rows(head->to_hidden, weights, width);
    store_rows(head->to_inner, weights + n_embd * width, width);
    return head;
}

// Makes room for the weights in a buffer of this type; false without memory and where the CPU has no kernel for it.
bool next_state_head::allocate(int64_t n_embd, ggml_backend_buffer_type_t type) {
    if (!ggml_backend_supports_buft(backend.get(), type)) {
        return false;
    }
    weights_meta.reset(ggml_init({ 4 * ggml_tensor_overhead(), nullptr, true }));
    ggml_context * ctx = weights_meta.get();
    if (ctx == nullptr) {
        return false;
    }
    const int64_t   width = 3 * n_embd;
    const ggml_type kept  = taught_type(width);
    to_hidden             = ggml_new_tensor_2d(ctx, kept, width, n_embd);
    to_inner              = ggml_new_tensor_2d(ctx, kept, width, n_embd);
    weights_buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx, type));
    return weights_buffer != nullptr &&
           ggml_backend_supports_op(backend.get(),
                                    ggml_mul_mat(ctx, to_hidden, ggml_new_tensor_1d(ctx, GGML_TYPE_F32, width)));
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
    constexpr size_t n_tensors = 1 + 4 * max_places, n_graphs = 2 * max_places;
    graph_meta.reset(
        ggml_init({ n_tensors * ggml_tensor_overhead() + n_graphs * ggml_graph_overhead_custom(8, false), nullptr,
                    true }));
    ggml_context * ctx = graph_meta.get();
    if (ctx == nullptr) {
        return "there is no memory for it";
    }
    inputs = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, to_hidden->ne[0], max_places);
    for (int32_t n = 1; n <= max_places; ++n) {
        of_places[n - 1] = build(head, n);
    }
    if (!ggml_backend_supports_op(backend.get(), of_places[0].logits)) {
        return "its LM head cannot be multiplied on the CPU";
    }
    graph_buffer.reset(ggml_backend_alloc_ctx_tensors(ctx, backend.get()));
    if (graph_buffer == nullptr) {
        return "there is no memory for it";
    }
    n_logits = static_cast<int32_t>(head.tokens.size());
    number   = wanted;
    return nullptr;
}

next_state_head::graphs next_state_head::build(const draft_head & head, int32_t n_places) const {
    ggml_context * ctx    = graph_meta.get();
    ggml_tensor *  places = ggml_view_2d(ctx, inputs, inputs->ne[0], n_places, inputs->nb[1], 0);
    const auto graph_of = [&](ggml_tensor * result) {
        ggml_cgraph * graph = ggml_new_graph_custom(ctx, 8, false);
        ggml_build_forward_expand(graph, result);
        return graph;
    };
    graphs built;
    built.hidden   = ggml_mul_mat(ctx, to_hidden, places);
    built.inner    = ggml_mul_mat(ctx, to_inner, places);
    built.logits   = ggml_mul_mat(ctx, head.rows, built.hidden);
    built.ask      = graph_of(built.logits);
    built.roll_out = graph_of(built.inner);
    return built;
}

bool next_state_head::compute(ggml_cgraph * graph, int32_t n_threads) {
    ggml_backend_cpu_set_n_threads(backend.get(), n_threads);
    return ggml_backend_graph_compute(backend.get(), graph) == GGML_STATUS_SUCCESS;
}

bool next_state_head::ask(int32_t n, int32_t n_threads) {
    last = &of_places[n - 1];
    return compute(last->ask, n_threads);
}

bool next_state_head::roll_out(int32_t n_threads) {
    return compute(last->roll_out, n_threads);
}

float * next_state_head::input(int32_t place) {
    return place_of(inputs, place);
}

const float * next_state_head::hidden(int32_t place) const {
    return place_of(last->hidden, place);
}

const float * next_state_head::inner(int32_t place) const {
    return place_of(last->inner, place);
}

const float * next_state_head::logits(int32_t place) const {
    return place_of(last->logits, place);
}

}  // namespace ecl
