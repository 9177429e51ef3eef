// Draws tokens by a sampler chain, and by a grammar if there is one.
#include "ecl.h"

#include "ecl_support.h"
#include "llama-context.h"
#include "llama-model.h"

#include <cmath>
#include <exception>
#include <string>
#include <vector>

namespace {

// What the chain selects, of the tokens that the grammar allows if it is asked.
llama_token selected(llama_context * ctx, const float * logits, const ecl_sampler & sampler, bool by_grammar) {
    // Some megabytes, which are asked for once and not for each token.
    static thread_local std::vector<llama_token_data> candidates;

    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(&ctx->get_model()));
    candidates.resize(n_vocab);
    for (llama_token token = 0; token < n_vocab; ++token) {
        candidates[token] = { token, logits[token], 0.0f };
    }
    llama_token_data_array array = { candidates.data(), candidates.size(), -1, false };
    if (by_grammar) {
        llama_sampler_apply(sampler.grammar, &array);
    }
    llama_sampler_apply(sampler.chain, &array);
    return array.selected >= 0 ? array.data[array.selected].id : LLAMA_TOKEN_NULL;
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
llama_token draw_by_grammar(llama_context * ctx, int32_t i, const ecl_sampler & sampler) {
    const float * logits = llama_get_logits_ith(ctx, i);
    if (logits == nullptr) {
        ecl::fail(ctx, "no logits were kept for output " + std::to_string(i));
        return LLAMA_TOKEN_NULL;
    }
    llama_token token = selected(ctx, logits, sampler, false);
    if (!allows(sampler.grammar, token)) {
        token = selected(ctx, logits, sampler, true);
    }
    if (!allows(sampler.grammar, token)) {
        ecl::fail(ctx, "the grammar allows no token here");
        return LLAMA_TOKEN_NULL;
    }
    llama_sampler_accept(sampler.grammar, token);
    llama_sampler_accept(sampler.chain, token);
    return token;
}

}  // namespace

llama_token ecl_draw(llama_context * ctx, int32_t i, const ecl_sampler * sampler) {
    ctx->ecl.error.clear();
    if (sampler->chain == nullptr) {
        return ecl_argmax(ctx, i, nullptr);
    }
    try {
        return sampler->grammar == nullptr ? llama_sampler_sample(sampler->chain, ctx, i)
                                           : draw_by_grammar(ctx, i, *sampler);
    } catch (const std::exception & error) {
        ecl::fail(ctx, std::string("no token can be drawn: ") + error.what());
        return LLAMA_TOKEN_NULL;
    }
}
