// The C API of the next-state head.
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

int32_t next_tokens(llama_context * ctx, const float * state, llama_token token, int32_t k, llama_token * tokens,
                    float * probabilities) {
    require(k >= 0, "k is negative");
    require(state != nullptr && (k == 0 || (tokens != nullptr && probabilities != nullptr)),
            "an array is a null pointer");
    const llama_model & model = ctx->get_model();
    std::vector<float>  embedding(n_embd_of(ctx));
    read_embedding(ctx, token, embedding.data());
    next_state_head * next = drafts_of(ctx).next_state.get();
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
    const std::vector<float> * logits =
        next->logits(state, embedding.data(), static_cast<int32_t>(ctx->n_threads()));
    if (logits == nullptr) {
        throw error(ECL_FAILED, "the next-state head's graph failed");
    }
    const int32_t n = most_likely_k(logits->data(), static_cast<int32_t>(logits->size()), k, tokens, probabilities);
    std::transform(tokens, tokens + n, tokens, [head](int32_t place) { return head->tokens[place]; });
    return n;
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
        ecl::drafts_of(ctx).next_state = ecl::next_state_head::make(weights, n_embd);
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
