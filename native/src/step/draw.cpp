// Draws tokens by a sampler chain, and by a grammar if there is one.
#include "ecl.h"
#include "llama-context.h"
#include "logits/most_likely.h"
#include "step/guard.h"

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
llama_token draw(const float * logits, int32_t n_vocab, const ecl_sampler & sampler) {
    if (sampler.chain == nullptr) {
        return most_likely(logits, n_vocab, nullptr);
    }
    llama_token token = selected(logits, n_vocab, sampler, false);
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

// The same with whatever a sampler or a grammar throws as an error of the draw.
llama_token draw_or_say_why(const float * logits, int32_t n_vocab, const ecl_sampler & sampler) {
    try {
        return draw(logits, n_vocab, sampler);
    } catch (const error &) {
        throw;
    } catch (const std::exception & failure) {
        throw error(ECL_NO_TOKEN, std::string("no token can be drawn: ") + failure.what());
    }
}

// What call() returns, or the code of what it throws. There is no context to remember the reason in.
template <class Call> int32_t guarded_alone(const Call & call) noexcept {
    return guarded<int32_t>(call, [](ecl_status status, const char *) { return status; });
}

void require_sampler(const ecl_sampler * sampler) {
    require(sampler != nullptr, "the sampler is a null pointer");
}

void require_row(const float * logits, int32_t n_vocab) {
    require(logits != nullptr, "the logits are a null pointer");
    require(n_vocab > 0, "there are no logits");
}

}  // namespace

}  // namespace ecl

llama_token ecl_draw(llama_context * ctx, int32_t i, const ecl_sampler * sampler) {
    return ecl::guarded(ctx, [&] {
        ecl::require_sampler(sampler);
        return ecl::draw_or_say_why(ecl::logits_of(ctx, i), ecl::n_vocab_of(ctx), *sampler);
    });
}

llama_token ecl_row_draw(const float * logits, int32_t n_vocab, const ecl_sampler * sampler) {
    return ecl::guarded_alone([&] {
        ecl::require_row(logits, n_vocab);
        ecl::require_sampler(sampler);
        return ecl::draw_or_say_why(logits, n_vocab, *sampler);
    });
}

llama_token ecl_row_argmax(const float * logits, int32_t n_vocab, float * probability) {
    return ecl::guarded_alone([&] {
        ecl::require_row(logits, n_vocab);
        return ecl::most_likely(logits, n_vocab, probability);
    });
}

int32_t ecl_row_top_k(const float * logits, int32_t n_vocab, int32_t k, llama_token * tokens,
                      float * probabilities) {
    return ecl::guarded_alone([&] {
        ecl::require_row(logits, n_vocab);
        ecl::require(k >= 0, "k is negative");
        ecl::require(k == 0 || (tokens != nullptr && probabilities != nullptr), "an array is a null pointer");
        return ecl::most_likely_k(logits, n_vocab, k, tokens, probabilities);
    });
}
