// Plain decoding of some tokens in one call: between two of its steps there is nothing but the sampler.
#include "ecl.h"
#include "ecl_sources.h"
#include "llama-context.h"
#include "llama-model.h"
#include "step/guard.h"

#include <algorithm>
#include <chrono>

namespace {

using steady = std::chrono::steady_clock;

double seconds_since(steady::time_point began) {
    return std::chrono::duration<double>(steady::now() - began).count();
}

// Tells the lookups that a token was drawn. Whether one of them knows a next token that is likely enough, or
// could not take this one in: its owner has to ask it then, and is told why.
bool any_expects(const ecl_stretch & stretch, llama_token token) {
    bool any = false;
    for (int32_t i = 0; i < stretch.n_lookups; ++i) {
        const double probability = ecl_lookup_follow(stretch.lookups[i], token);
        any                      = any || probability >= stretch.stop_probability || probability < 0.0;
    }
    return any;
}

void check(const ecl_sampler * sampler, const ecl_stretch * stretch) {
    ecl::require(sampler != nullptr, "the sampler is a null pointer");
    ecl::require(stretch->max_tokens >= 0 && stretch->n_lookups >= 0, "a number is negative");
    ecl::require(stretch->max_tokens == 0 || (stretch->tokens != nullptr && stretch->seconds != nullptr),
                 "an array is a null pointer");
    ecl::require(stretch->n_lookups == 0 || stretch->lookups != nullptr, "the lookups are a null pointer");
    ecl::require(std::count(stretch->lookups, stretch->lookups + stretch->n_lookups, nullptr) == 0,
                 "a lookup is a null pointer");
}

}  // namespace

int32_t ecl_write(llama_context * ctx, const llama_token * pending, int32_t n_pending, llama_pos pos,
                  llama_seq_id seq, const ecl_sampler * sampler, ecl_stretch * stretch) {
    return ecl::guarded(ctx, [&]() -> int32_t {
        ecl::require(stretch != nullptr, "the stretch is a null pointer");
        stretch->n_drawn     = 0;
        stretch->found_match = false;
        check(sampler, stretch);
        const llama_vocab * vocab = llama_model_get_vocab(&ctx->get_model());
        const auto          began = steady::now();
        while (stretch->n_drawn < stretch->max_tokens) {
            const bool          first = stretch->n_drawn == 0;
            const llama_token * read  = first ? pending : &stretch->tokens[stretch->n_drawn - 1];
            const int32_t       n     = first ? n_pending : 1;

            const auto    step_began = steady::now();
            const int32_t status     = ecl_step(ctx, read, n, pos, seq, ECL_OUTPUTS_ALL);
            const double  seconds    = seconds_since(step_began);
            const llama_token token  = status == ECL_OK ? ecl_draw(ctx, -1, sampler) : status;
            if (token < 0) {
                if (status == ECL_OK) {
                    llama_memory_seq_rm(llama_get_memory(ctx), seq, pos, -1);
                }
                if (first) {
                    return token;
                }
                ctx->ecl.error.clear();  // what was drawn before stands; the next call fails at its start
                return ECL_OK;
            }
            pos += n;
            stretch->tokens[stretch->n_drawn]  = token;
            stretch->seconds[stretch->n_drawn] = seconds;
            ++stretch->n_drawn;
            stretch->found_match = any_expects(*stretch, token);
            if (stretch->found_match || llama_vocab_is_eog(vocab, token) ||
                seconds_since(began) >= stretch->max_seconds) {
                break;
            }
        }
        return ECL_OK;
    });
}
