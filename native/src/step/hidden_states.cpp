#include "step/hidden_states.h"

#include "ecl.h"
#include "ggml-backend-impl.h"
#include "ggml.h"
#include "graph/draft_head.h"
#include "llama-context.h"
#include "llama-graph.h"
#include "llama-model.h"
#include "step/guard.h"
#include "step/states.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace ecl {

namespace {

// Writes one row of a matrix of any type as floats; false if it cannot be read.
bool read_row(const ggml_tensor * matrix, int64_t index, float * out) {
    static thread_local std::vector<uint8_t> bytes;

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

// Which row of the last graph's outputs an output of the last step is. If the step took several graphs, the
// last one has the last outputs, and a negative row is in an earlier one.
int64_t row_of_output(llama_context * ctx, int32_t i, int64_t n_rows) {
    const float * logits  = logits_of(ctx, i);
    const auto    n_after = (logits_of(ctx, -1) - logits) / n_vocab_of(ctx);
    return n_rows - 1 - n_after;
}

bool has_row(const llama_context * ctx, const ggml_tensor * states, int64_t row) {
    return states != nullptr && states->type == GGML_TYPE_F32 && ggml_is_contiguous(states) &&
           states->ne[0] == n_embd_of(ctx) && row >= 0 && row < states->ne[1];
}

void read_state(const ggml_tensor * states, int64_t row, float * state) {
    ggml_backend_tensor_get(states, state, row * states->nb[1], states->ne[0] * sizeof(float));
}

void divide_by_root_mean_square(float * state, int32_t n) {
    double square = 0.0;
    for (int32_t j = 0; j < n; ++j) {
        square += static_cast<double>(state[j]) * state[j];
    }
    const float scale = square > 0.0 ? static_cast<float>(1.0 / std::sqrt(square / n)) : 0.0f;
    std::for_each(state, state + n, [&](float & each) { each *= scale; });
}

// Writes a kept stream's state at the token whose logits are output i, divided by its root mean square.
void read_kept(llama_context * ctx, const ggml_tensor * states, int32_t i, float * state) {
    // Outputs are of all of a step's tokens or of the last ones.
    const int64_t token = states != nullptr ? row_of_output(ctx, i, states->ne[1]) : -1;
    if (!has_row(ctx, states, token)) {
        throw error(ECL_NO_OUTPUT, "the last step kept no inner state");
    }
    read_state(states, token, state);
    divide_by_root_mean_square(state, n_embd_of(ctx));
}

const std::string no_embeddings = std::string(for_next_state) + "its token embeddings cannot be read as rows of its"
                                                                " width";

}  // namespace

void require_embeddings(const llama_model & model) {
    if (model.tok_embd == nullptr || model.tok_embd->ne[0] != llama_model_n_embd(&model)) {
        throw error(ECL_NO_NEXT_STATE, unsupported(model, no_embeddings));
    }
}

void read_embedding(const llama_context * ctx, llama_token token, float * embedding) {
    const llama_model & model = ctx->get_model();
    if (token < 0 || token >= n_vocab_of(ctx)) {
        throw error(ECL_BAD_ARGUMENT, "token " + std::to_string(token) + " is not in the vocabulary");
    }
    require_embeddings(model);
    if (!read_row(model.tok_embd, token, embedding)) {
        throw error(ECL_NO_NEXT_STATE, unsupported(model, no_embeddings));
    }
}

}  // namespace ecl

int32_t ecl_output_state(llama_context * ctx, int32_t i, float * state) {
    return ecl::guarded(ctx, [&] {
        ecl::require(state != nullptr, "the state is a null pointer");
        ecl::logits_of(ctx, i);
        const llm_graph_result * run = ctx->ecl.graphs.last_run();
        if (run == nullptr) {
            throw ecl::error(ECL_NO_OUTPUT, "the last step's states are gone");
        }
        const ggml_tensor * states = run->get_embd();
        const int64_t       row    = states != nullptr ? ecl::row_of_output(ctx, i, states->ne[1]) : 0;
        if (row < 0) {
            throw ecl::error(ECL_NO_OUTPUT, "the step took several graphs, and only the last one's states are there");
        }
        if (!ecl::has_row(ctx, states, row)) {
            throw ecl::error(ECL_NO_NEXT_STATE,
                             ecl::unsupported(ctx->get_model(), std::string(ecl::for_next_state) +
                                                                    "its last hidden state was not found"));
        }
        ecl::read_state(states, row, state);
        return ECL_OK;
    });
}

int32_t ecl_keep_inner_state(llama_context * ctx, int32_t layer) {
    return ecl::guarded(ctx, [&] {
        ecl::require(layer >= -1 && layer < ecl::n_layer_of(ctx), "there is no such layer");
        ctx->ecl.options.inner_layer = layer >= 0 ? layer : ecl::graph_options::no_layer;
        return ECL_OK;
    });
}

int32_t ecl_inner_state(llama_context * ctx, int32_t i, float * state) {
    return ecl::guarded(ctx, [&] {
        ecl::require(state != nullptr, "the state is a null pointer");
        ecl::logits_of(ctx, i);
        const llm_graph_result * run = ctx->ecl.graphs.last_run();
        ecl::read_kept(ctx, run != nullptr ? run->ecl.inner : nullptr, i, state);
        return ECL_OK;
    });
}

int32_t ecl_keep_streams(llama_context * ctx, bool keep) {
    return ecl::guarded(ctx, [&] {
        if (keep) {
            ecl::require_states(ctx);
        }
        ctx->ecl.options.stream_layer = keep ? ecl::graph_options::all_layers : ecl::graph_options::no_layer;
        return ECL_OK;
    });
}

int32_t ecl_kept_stream(llama_context * ctx, int32_t layer, int32_t i, float * state) {
    return ecl::guarded(ctx, [&] {
        ecl::require(state != nullptr, "the state is a null pointer");
        ecl::require(layer >= 0 && layer < ecl::n_layer_of(ctx), "there is no such layer");
        ecl::logits_of(ctx, i);
        const llm_graph_result * run  = ctx->ecl.graphs.last_run();
        const bool               kept = run != nullptr && static_cast<size_t>(layer) < run->ecl.streams.size();
        ecl::read_kept(ctx, kept ? run->ecl.streams[layer] : nullptr, i, state);
        return ECL_OK;
    });
}

int32_t ecl_token_embedding(llama_context * ctx, llama_token token, float * embedding) {
    return ecl::guarded(ctx, [&] {
        ecl::require(embedding != nullptr, "the embedding is a null pointer");
        return ecl::read_embedding(ctx, token, embedding), ECL_OK;
    });
}

int32_t ecl_lm_head_row(llama_context * ctx, llama_token token, float * weights) {
    return ecl::guarded(ctx, [&] {
        ecl::require(weights != nullptr, "the weights are a null pointer");
        if (token < 0 || token >= ecl::n_vocab_of(ctx)) {
            throw ecl::error(ECL_BAD_ARGUMENT, "token " + std::to_string(token) + " is not in the vocabulary");
        }
        const ggml_tensor * head = ecl::readable_lm_head(ctx->get_model());
        if (head == nullptr || head->ne[0] != ecl::n_embd_of(ctx) || !ecl::read_row(head, token, weights)) {
            throw ecl::error(ECL_NO_NEXT_STATE,
                             ecl::unsupported(ctx->get_model(),
                                              std::string(ecl::for_next_state) +
                                                  "its LM head cannot be read as rows of its width"));
        }
        return ECL_OK;
    });
}
