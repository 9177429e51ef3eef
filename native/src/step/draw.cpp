// Draws tokens by a sampler chain, and by a grammar if there is one.
#include "ecl.h"
#include "llama-context.h"
#include "step/guard.h"
#include "step/step.h"

#include <cmath>
#include <exception>
#include <string>
#include <vector>

namespace ecl {

namespace {

// What the chain selects; of the tokens that the grammar allows, if that is asked. LLAMA_TOKEN_NULL: none.
llama_token selected(const float * logits, int32_t n_vocab, const ecl_sampler & sampler, bool by_grammar) {
    // Some megabytes, which are allocated once and not for each token.
    static thread_local std::vector<llama_token_data> candidates;

    candidates.resize(n_vocab);
    for (llama_token token = 0; token < n_vocab; ++token) {
        candidates[token] = { token, logits[token], 0.0f };
    }
    llama_token_data_array array = { candidates.data(), candidates.size(), -1, false };
    if (by_grammar) {
        llama_sampler_apply(sampler.grammar, &array);
    }
    llama_sampler_apply(sampler.chain, &array);
    const bool any = array.selected >= 0 && array.selected < static_cast<int64_t>(array.size);
    return any ? array.data[array.selected].id : LLAMA_TOKEN_NULL;
}

bool allows(llama_sampler * grammar, llama_token token) {
    if (token == LLAMA_TOKEN_NULL) {
        return false;
    }
    llama_token_data       one   = { token, 1.0f, 0.0f };
    llama_token_data_array array = { &one, 1, -1, false };
    llama_sampler_apply(grammar, &array);
    return one.logit != -INFINITY;
}

// A grammar is slow over a whole vocabulary: draw first, and only draw again among the tokens that it
// allows if it forbids the one drawn (llama.cpp, common_sampler_sample).
llama_token draw(llama_context * ctx, int32_t i, const ecl_sampler & sampler) {
    const float * logits = logits_of(ctx, i);
    if (sampler.chain == nullptr) {
        return argmax(ctx, i, nullptr);
    }
    const int32_t n_vocab = n_vocab_of(ctx);
    llama_token   token   = selected(logits, n_vocab, sampler, false);
    if (sampler.grammar != nullptr) {
        if (!allows(sampler.grammar, token)) {
            token = selected(logits, n_vocab, sampler, true);
        }
        if (!allows(sampler.grammar, token)) {
            throw error(ECL_FORBIDDEN, "the grammar allows no token here");
        }
        llama_sampler_accept(sampler.grammar, token);
    }
    if (token == LLAMA_TOKEN_NULL) {
        throw error(ECL_NO_TOKEN, "the sampler selects no token");
    }
    llama_sampler_accept(sampler.chain, token);
    return token;
}

}  // namespace

}  // namespace ecl

llama_token ecl_draw(llama_context * ctx, int32_t i, const ecl_sampler * sampler) {
    return ecl::guarded(ctx, [&] {
        ecl::require(sampler != nullptr, "the sampler is a null pointer");
        try {
            return ecl::draw(ctx, i, *sampler);
        } catch (const ecl::error &) {
            throw;
        } catch (const std::exception & failure) {  // of a sampler or a grammar
            throw ecl::error(ECL_NO_TOKEN, std::string("no token can be drawn: ") + failure.what());
        }
    });
}
