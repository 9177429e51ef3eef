// Sets a context's draft vocabulary, and what drafts keep.
#include "draft/state.h"
#include "ecl.h"
#include "llama-context.h"
#include "step/guard.h"

#include <memory>
#include <vector>

namespace ecl {

draft_state & drafts_of(llama_context * ctx) {
    if (ctx->ecl.drafts == nullptr) {
        ctx->ecl.drafts = std::make_shared<draft_state>();
    }
    return *ctx->ecl.drafts;
}

}  // namespace ecl

int32_t ecl_set_draft_vocabulary(llama_context * ctx, const llama_token * tokens, int32_t n) {
    return ecl::guarded(ctx, [&] {
        ecl::require(n >= 0 && n <= ecl::n_vocab_of(ctx), "a draft vocabulary has at most the vocabulary's tokens");
        ecl::require(n == 0 || tokens != nullptr, "the tokens are a null pointer");
        std::vector<int32_t> wanted(tokens, tokens + n);
        ecl::context_state & state = ctx->ecl;
        ctx->synchronize();
        state.graphs.forget_draft_heads();
        state.head.reset();  // before the next is made, so that two never take memory together
        if (n == 0) {
            return ECL_OK;
        }
        state.n_heads++;
        if (const ecl::refusal refused = ecl::make_draft_head(ctx->get_model(), std::move(wanted), state.head)) {
            throw ecl::error(refused.status, ecl::unsupported(ctx->get_model(), refused.why));
        }
        return ECL_OK;
    });
}
