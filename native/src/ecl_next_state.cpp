#include "ecl_next_state.h"

#include "ecl.h"
#include "ecl_head.h"
#include "ecl_logits.h"
#include "ecl_support.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "llama-context.h"
#include "llama-graph.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>

namespace ecl {

namespace {

// The numbers of one row of a matrix of any type; false if it cannot be read.
bool read_row(const ggml_tensor * matrix, int64_t index, std::vector<uint8_t> & bytes, float * out) {
    const ggml_type_traits * traits = ggml_get_type_traits(matrix->type);
    const bool               plain  = matrix->type == GGML_TYPE_F32;
    if (matrix->buffer == nullptr || matrix->buffer->iface.get_tensor == nullptr ||
        (!plain && traits->to_float == nullptr)) {
        return false;
    }
    const size_t size = matrix->nb[1];
    if (plain) {
        ggml_backend_tensor_get(matrix, out, index * size, size);
        return true;
    }
    bytes.resize(size);
    ggml_backend_tensor_get(matrix, bytes.data(), index * size, size);
    traits->to_float(bytes.data(), out, matrix->ne[0]);
    return true;
}

}  // namespace

std::unique_ptr<next_state_head> next_state_head::make(const float * weights, int64_t n_embd) {
    auto head = std::make_unique<next_state_head>();
    head->backend.reset(ggml_backend_cpu_init());
    head->weights_meta.reset(ggml_init({ ggml_tensor_overhead(), nullptr, true }));
    const int64_t   width = 3 * n_embd;
    const ggml_type type  = width % ggml_blck_size(GGML_TYPE_Q8_0) == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
    head->weights         = ggml_new_tensor_2d(head->weights_meta.get(), type, width, n_embd);
    if (head->backend == nullptr) {
        return nullptr;
    }
    head->weights_buffer.reset(ggml_backend_alloc_ctx_tensors(head->weights_meta.get(), head->backend.get()));
    if (head->weights_buffer == nullptr) {
        return nullptr;
    }
    const ggml_from_float_t store = ggml_get_type_traits_cpu(type)->from_float;
    for (int64_t row = 0; row < n_embd; ++row) {
        store(weights + row * width, static_cast<char *>(head->weights->data) + row * head->weights->nb[1], width);
    }
    return head;
}

bool next_state_head::build(const draft_head & head, std::string & why) {
    graph_buffer.reset();
    if (!ggml_backend_supports_buft(backend.get(), ggml_backend_buffer_get_type(head.rows->buffer))) {
        why = "a next-state head: its LM head is not in memory that the CPU computes in";
        return false;
    }
    const int64_t width = weights->ne[0];
    graph_meta.reset(ggml_init({ 4 * ggml_tensor_overhead() + ggml_graph_overhead_custom(8, false), nullptr, true }));
    ggml_context * ctx = graph_meta.get();
    input              = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, width);
    output             = ggml_mul_mat(ctx, head.rows, ggml_mul_mat(ctx, weights, input));
    graph              = ggml_new_graph_custom(ctx, 8, false);
    ggml_build_forward_expand(graph, output);
    if (!ggml_backend_supports_op(backend.get(), output)) {
        why = "a next-state head: its LM head cannot be multiplied on the CPU";
        return false;
    }
    graph_buffer.reset(ggml_backend_alloc_ctx_tensors(ctx, backend.get()));
    if (graph_buffer == nullptr) {
        why = "a next-state head: there is no memory for it";
        return false;
    }
    return true;
}

const std::vector<float> * next_state_head::logits(llama_context * ctx, const float * state, int32_t token,
                                                   std::string & why) {
    const draft_head *  head   = ctx->ecl.head.get();
    const llama_model & model  = ctx->get_model();
    const int64_t       n_embd = weights->ne[1];
    if (head == nullptr) {
        why = "a next-state head without a draft vocabulary";
        return nullptr;
    }
    if (number != ctx->ecl.n_heads) {
        number = 0;
        if (!build(*head, why)) {
            return nullptr;
        }
        number = ctx->ecl.n_heads;
    }
    x.resize(3 * n_embd);
    std::copy(state, state + 2 * n_embd, x.begin());
    if (!read_row(model.tok_embd, token, row, x.data() + 2 * n_embd)) {
        why = "a next-state head: its token embeddings cannot be read as rows";
        return nullptr;
    }
    ggml_backend_tensor_set(input, x.data(), 0, x.size() * sizeof(float));
    ggml_backend_cpu_set_n_threads(backend.get(), static_cast<int>(ctx->n_threads()));
    if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
        why = "a next-state head: its graph failed";
        return nullptr;
    }
    found.resize(head->tokens.size());  // the rows after them are zeros
    ggml_backend_tensor_get(output, found.data(), 0, found.size() * sizeof(float));
    return &found;
}

}  // namespace ecl

namespace {

const char * const no_embeddings = "a next-state head: its token embeddings cannot be read as rows of its width";

bool has_embeddings(const llama_model & model) {
    return model.tok_embd != nullptr && model.tok_embd->ne[0] == llama_model_n_embd(&model);
}

// Where output i is among the last step's outputs; negative, and why, if it is none.
int64_t row_of_output(llama_context * ctx, int32_t i) {
    const float * logits = llama_get_logits_ith(ctx, i);
    if (logits == nullptr) {
        return ecl::fail(ctx, "no logits were kept for output " + std::to_string(i));
    }
    return (logits - llama_get_logits(ctx)) / llama_vocab_n_tokens(llama_model_get_vocab(&ctx->get_model()));
}

bool has_row(const llama_context * ctx, const ggml_tensor * states, int64_t row) {
    return states != nullptr && states->type == GGML_TYPE_F32 && ggml_is_contiguous(states) &&
           states->ne[0] == llama_model_n_embd(&ctx->get_model()) && row >= 0 && row < states->ne[1];
}

void read_state(const ggml_tensor * states, int64_t row, float * state) {
    ggml_backend_tensor_get(states, state, row * states->nb[1], states->ne[0] * sizeof(float));
}

}  // namespace

int32_t ecl_set_next_state(llama_context * ctx, const float * weights) {
    ctx->ecl.error.clear();
    ctx->ecl.next_state.reset();
    if (weights == nullptr) {
        return 0;
    }
    const llama_model & model = ctx->get_model();
    if (!has_embeddings(model)) {
        return ecl::fail(ctx, ecl::unsupported(model, no_embeddings));
    }
    ctx->ecl.next_state = ecl::next_state_head::make(weights, llama_model_n_embd(&model));
    return ctx->ecl.next_state != nullptr ? 0 : ecl::fail(ctx, "there is no memory for a next-state head");
}

int32_t ecl_output_state(llama_context * ctx, int32_t i, float * state) {
    ctx->ecl.error.clear();
    const int64_t row = row_of_output(ctx, i);
    if (row < 0) {
        return -1;
    }
    const ggml_tensor * states = ctx->ecl.last_result->get_embd();
    if (!has_row(ctx, states, row)) {
        const char * const why = "a next-state head: its last hidden state was not found";
        return ecl::fail(ctx, ecl::unsupported(ctx->get_model(), why));
    }
    read_state(states, row, state);
    return 0;
}

int32_t ecl_keep_inner_state(llama_context * ctx, int32_t layer) {
    ctx->ecl.error.clear();
    ctx->ecl.options.watch = layer >= 0 ? layer : ecl::graph_options::keep_none;
    return 0;
}

int32_t ecl_inner_state(llama_context * ctx, int32_t i, float * state) {
    ctx->ecl.error.clear();
    const int64_t row = row_of_output(ctx, i);
    if (row < 0) {
        return -1;
    }
    const ggml_tensor * states  = ctx->ecl.last_result->ecl.watched;
    const ggml_tensor * outputs = ctx->ecl.last_result->get_embd();
    // Outputs are of all of a step's tokens or of the last ones.
    const int64_t token = states != nullptr && outputs != nullptr ? row + states->ne[1] - outputs->ne[1] : -1;
    if (!has_row(ctx, states, token)) {
        return ecl::fail(ctx, "the last step kept no inner state");
    }
    read_state(states, token, state);
    const int32_t n_embd = llama_model_n_embd(&ctx->get_model());
    double        square = 0.0;
    for (int32_t j = 0; j < n_embd; ++j) {
        square += static_cast<double>(state[j]) * state[j];
    }
    const float scale = square > 0.0 ? static_cast<float>(1.0 / std::sqrt(square / n_embd)) : 0.0f;
    std::for_each(state, state + n_embd, [&](float & each) { each *= scale; });
    return 0;
}

int32_t ecl_token_embedding(llama_context * ctx, llama_token token, float * embedding) {
    ctx->ecl.error.clear();
    const llama_model &  model = ctx->get_model();
    std::vector<uint8_t> bytes;
    if (token < 0 || token >= llama_vocab_n_tokens(llama_model_get_vocab(&model))) {
        return ecl::fail(ctx, "token " + std::to_string(token) + " is not in the vocabulary");
    }
    if (!has_embeddings(model) || !ecl::read_row(model.tok_embd, token, bytes, embedding)) {
        return ecl::fail(ctx, ecl::unsupported(model, no_embeddings));
    }
    return 0;
}

int32_t ecl_next_tokens(llama_context * ctx, const float * state, llama_token token, int32_t k, llama_token * tokens,
                        float * probabilities) {
    ctx->ecl.error.clear();
    const llama_model & model = ctx->get_model();
    if (token < 0 || token >= llama_vocab_n_tokens(llama_model_get_vocab(&model))) {
        return ecl::fail(ctx, "token " + std::to_string(token) + " is not in the vocabulary");
    }
    if (ctx->ecl.next_state == nullptr) {
        return ecl::fail(ctx, "there is no next-state head");
    }
    std::string                why;
    const std::vector<float> * logits = ctx->ecl.next_state->logits(ctx, state, token, why);
    if (logits == nullptr) {
        return ecl::fail(ctx, ecl::unsupported(model, why));
    }
    const int32_t n =
        ecl::most_likely_k(logits->data(), static_cast<int32_t>(logits->size()), k, tokens, probabilities);
    const std::vector<int32_t> & vocabulary = ctx->ecl.head->tokens;
    std::transform(tokens, tokens + n, tokens, [&](int32_t place) { return vocabulary[place]; });
    return n;
}
