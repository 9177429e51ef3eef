// Plain decoding of some tokens in one call: between two of its steps there is nothing but the sampler.
#include "ecl.h"

#include "ecl_sources.h"
#include "ecl_support.h"
#include "llama-context.h"
#include "llama-model.h"

#include <chrono>

namespace {

using clock_type = std::chrono::steady_clock;

double seconds_since(clock_type::time_point began) {
    return std::chrono::duration<double>(clock_type::now() - began).count();
}

// Lets the sources follow the text. Whether one of them expects a token with at least this probability;
// one that has no memory to follow is to be asked as well, and tells.
bool expects(const ecl_stretch & stretch, llama_token token) {
    bool any = false;
    for (int32_t i = 0; i < stretch.n_following; ++i) {
        const double probability = ecl_lookup_follow(stretch.following[i], token);
        any                      = any || probability >= stretch.expected || probability < 0.0;
    }
    return any;
}

}  // namespace

int32_t ecl_write(llama_context * ctx, const llama_token * pending, int32_t n_pending, llama_pos pos,
                  llama_seq_id seq, const ecl_sampler * sampler, ecl_stretch * stretch) {
    const llama_vocab * vocab = llama_model_get_vocab(&ctx->get_model());
    const auto          began = clock_type::now();

    stretch->n_drawn = 0;
    stretch->called  = false;
    while (stretch->n_drawn < stretch->n_max) {
        const bool          first = stretch->n_drawn == 0;
        const llama_token * read  = first ? pending : &stretch->tokens[stretch->n_drawn - 1];
        const int32_t       n     = first ? n_pending : 1;

        const auto    step_began = clock_type::now();
        const int32_t status     = ecl_step(ctx, read, n, pos, seq, ECL_OUTPUTS_ALL);
        const double  seconds    = seconds_since(step_began);
        const llama_token token  = status == 0 ? ecl_draw(ctx, -1, sampler) : LLAMA_TOKEN_NULL;
        if (token == LLAMA_TOKEN_NULL) {
            if (status == 0) {
                llama_memory_seq_rm(llama_get_memory(ctx), seq, pos, -1);
            }
            // What was drawn before stands; the next call fails at its start.
            return !first ? 0 : status != 0 ? status : ECL_NO_TOKEN;
        }
        pos += n;
        stretch->tokens[stretch->n_drawn]  = token;
        stretch->seconds[stretch->n_drawn] = seconds;
        ++stretch->n_drawn;
        stretch->called = expects(*stretch, token);
        if (stretch->called || llama_vocab_is_eog(vocab, token) || seconds_since(began) >= stretch->max_seconds) {
            break;
        }
    }
    return 0;
}
