// The C API of the next-state head.
#include "draft/next_tree.h"
#include "draft/state.h"
#include "ecl.h"
#include "llama-context.h"
#include "llama-model.h"
#include "logits/most_likely.h"
#include "step/guard.h"
#include "step/hidden_states.h"

#include <algorithm>
#include <string>
#include <vector>

namespace ecl {

namespace {

// A head that can be asked about the context's draft vocabulary, and that vocabulary. Its input of the first
// place is set: the states that a token was drawn from, and the token.
struct asked {
    next_state_head &            head;
    const std::vector<int32_t> & vocabulary;
    int32_t                      n_embd, n_threads;
};

asked ask_about(llama_context * ctx, const float * state, llama_token token) {
    const llama_model & model = ctx->get_model();
    next_state_head *   next  = drafts_of(ctx).next_state.get();
    if (next == nullptr) {
        throw error(ECL_NO_NEXT_STATE, "there is no next-state head");
    }
    const draft_head * head = ctx->ecl.head.get();
    if (head == nullptr) {
        throw error(ECL_NO_NEXT_STATE, unsupported(model, "a next-state head without a draft vocabulary"));
    }
    if (const char * why = next->prepare(*head, ctx->ecl.n_heads); why != nullptr) {
        throw error(ECL_NO_NEXT_STATE, unsupported(model, std::string(for_next_state) + why));
    }
    const int32_t n_embd = n_embd_of(ctx);
    std::copy_n(state, 2 * n_embd, next->input(0));
    read_embedding(ctx, token, next->input(0) + 2 * n_embd);
    return { *next, head->tokens, n_embd, static_cast<int32_t>(ctx->n_threads()) };
}

int32_t next_tokens(llama_context * ctx, const float * state, llama_token token, int32_t k, llama_token * tokens,
                    float * probabilities) {
    require(k >= 0, "k is negative");
    require(state != nullptr && (k == 0 || (tokens != nullptr && probabilities != nullptr)),
            "an array is a null pointer");
    const asked about = ask_about(ctx, state, token);
    if (!about.head.ask(1, about.n_threads)) {
        throw error(ECL_FAILED, "the next-state head's graph failed");
    }
    const int32_t n = most_likely_k(about.head.logits(0), about.head.n_tokens(), k, tokens, probabilities);
    std::transform(tokens, tokens + n, tokens, [&](int32_t place) { return about.vocabulary[place]; });
    return n;
}

int32_t next_tree_of(llama_context * ctx, const float * state, llama_token token,
                     const ecl_next_tree_options * options, llama_token * tokens, float * probabilities,
                     int32_t * parents) {
    require(state != nullptr && options != nullptr && tokens != nullptr && probabilities != nullptr &&
                parents != nullptr && (options->n_bins == 0 || options->chances != nullptr),
            "an array is a null pointer");
    require(options->max_nodes >= 0 && options->n_bins >= 0, "a number is negative");
    require(options->max_depth >= 0 && options->max_depth <= ECL_MAX_TREE, "a tree has 0 to 32 levels");
    const asked about = ask_about(ctx, state, token);
    next_tree   tree(about.head, about.vocabulary, *options, about.n_threads);
    const auto  nodes =
        tree.grow(about.n_embd, [ctx](llama_token each, float * embedding) { read_embedding(ctx, each, embedding); });
    for (size_t i = 0; i < nodes.size(); ++i) {
        tokens[i]        = nodes[i].token;
        probabilities[i] = nodes[i].probability;
        parents[i]       = nodes[i].parent;
    }
    return static_cast<int32_t>(nodes.size());
}

// The buffers that the LM head lies in: their kernels are the ones that this model runs on.
ggml_backend_buffer_type_t lm_head_buffers(const llama_model & model) {
    const ggml_tensor * head = model.output != nullptr ? model.output : model.tok_embd;
    return head != nullptr && head->buffer != nullptr ? ggml_backend_buffer_get_type(head->buffer) : nullptr;
}

}  // namespace

}  // namespace ecl

int32_t ecl_set_next_state(llama_context * ctx, const float * weights, int64_t n_weights) {
    return ecl::guarded(ctx, [&] {
        ecl::drafts_of(ctx).next_state.reset();
        if (weights == nullptr) {
            return ECL_OK;
        }
        const int64_t n_embd = ecl::n_embd_of(ctx);
        ecl::require(n_weights == 6 * n_embd * n_embd, "a next-state head has 2 * n_embd rows of 3 * n_embd weights");
        ecl::require_embeddings(ctx->get_model());
        ecl::drafts_of(ctx).next_state =
            ecl::next_state_head::make(weights, n_embd, ecl::lm_head_buffers(ctx->get_model()));
        if (ecl::drafts_of(ctx).next_state == nullptr) {
            throw ecl::error(ECL_NO_NEXT_STATE, "there is no memory for a next-state head");
        }
        return ECL_OK;
    });
}

int32_t ecl_next_tokens(llama_context * ctx, const float * state, llama_token token, int32_t k, llama_token * tokens,
                        float * probabilities) {
    return ecl::guarded(ctx, [&] { return ecl::next_tokens(ctx, state, token, k, tokens, probabilities); });
}

int32_t ecl_next_tree(llama_context * ctx, const float * state, llama_token token,
                      const ecl_next_tree_options * options, llama_token * tokens, float * probabilities,
                      int32_t * parents) {
    return ecl::guarded(ctx, [&] {
        return ecl::next_tree_of(ctx, state, token, options, tokens, probabilities, parents);
    });
}
