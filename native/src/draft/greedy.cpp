// Greedy drafting, one token a step, in the draft vocabulary if there is one.
#include "draft/bridges.h"
#include "draft/state.h"
#include "ecl.h"
#include "ggml-backend.h"
#include "llama-context.h"
#include "llama-model.h"
#include "logits/most_likely.h"
#include "step/guard.h"
#include "step/step.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ecl {

namespace {

// A step that keeps the logits of its last token, of the draft vocabulary where there is one.
int32_t draft_step(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq) {
    const int32_t status = step(ctx, tokens, n, pos, seq, ECL_OUTPUTS_LAST);
    if (status == ECL_OK && ctx->ecl.options.bridges != nullptr) {
        follow_bridges(ctx);
    }
    if (status == ECL_OK && ctx->ecl.options.head != nullptr) {
        ctx->synchronize();
        const ggml_tensor *  found  = ctx->ecl.graphs.last_run()->ecl.draft_logits;
        std::vector<float> & logits = drafts_of(ctx).logits;
        logits.resize(ggml_nelements(found));
        ggml_backend_tensor_get(found, logits.data(), 0, ggml_nbytes(found));
    }
    return status;
}

// The n likeliest tokens of the step that just ran, and -1 for those that there are not.
void best_tokens(llama_context * ctx, int32_t n, llama_token * tokens, float * probabilities) {
    const draft_head * head  = ctx->ecl.options.head;
    int32_t            found = 1;
    if (head == nullptr && n == 1) {  // one pass less over the logits than for several
        tokens[0] = argmax(ctx, -1, probabilities);
    } else if (head == nullptr) {
        found = top_k(ctx, -1, n, tokens, probabilities);
    } else {
        const float * logits  = drafts_of(ctx).logits.data();
        const auto    n_draft = static_cast<int32_t>(head->tokens.size());
        if (n == 1) {
            tokens[0] = most_likely(logits, n_draft, probabilities);
        } else {
            found = most_likely_k(logits, n_draft, n, tokens, probabilities);
        }
        std::transform(tokens, tokens + found, tokens, [head](int32_t place) { return head->tokens[place]; });
    }
    std::fill(tokens + found, tokens + n, -1);
    std::fill(probabilities + found, probabilities + n, 0.0f);
}

float chance_of_acceptance(const ecl_draft_options & options, float probability) {
    if (options.n_acceptance == 0) {
        return probability;
    }
    const auto bin = static_cast<int32_t>(std::floor(probability * static_cast<float>(options.n_acceptance)));
    return options.acceptance[std::clamp(bin, 0, options.n_acceptance - 1)];
}

void check(const ecl_draft_options * options, const llama_token * tokens, const float * probabilities) {
    require(options != nullptr, "the options are a null pointer");
    require(options->max_draft >= 0 && options->n_runners_up >= 0 && options->n_acceptance >= 0,
            "a number is negative");
    require(options->max_draft == 0 || (tokens != nullptr && probabilities != nullptr), "an array is a null pointer");
    require(options->max_draft * (1 + static_cast<int64_t>(options->n_runners_up)) <=
                std::numeric_limits<int32_t>::max(),
            "so many tokens cannot be drafted");
    require(options->n_acceptance == 0 || options->acceptance != nullptr, "the chances are a null pointer");
}

int32_t draft(llama_context * ctx, const uint8_t * drop, int32_t n_layer, const llama_token * pending,
              int32_t n_pending, llama_pos pos, llama_seq_id seq, const ecl_draft_options & options,
              llama_token * tokens, float * probabilities) {
    const scoped_options scope(ctx, ctx->ecl.options);
    set_mask(ctx, drop, n_layer);
    require(!options.keep_cells || !ctx->ecl.options.drops_any(), "a draft under a mask cannot keep its cells");
    require_tokens(ctx, pending, n_pending);
    require_place(pos, seq, static_cast<int64_t>(n_pending) + options.max_draft);
    if (ctx->ecl.head != nullptr && !options.full_vocabulary) {
        ctx->ecl.options.head        = ctx->ecl.head.get();
        ctx->ecl.options.head_number = ctx->ecl.n_heads;
    }
    if (options.before != nullptr) {
        begin_bridges(ctx, options.before, n_pending);
    }
    const llama_vocab * vocab = llama_model_get_vocab(&ctx->get_model());
    const int32_t       width = 1 + options.n_runners_up;

    // A dropped layer has no keys and values for drafted positions, so nothing drafted may stay there.
    rollback_guard rollback(ctx, seq, pos);
    int32_t        n      = 0;
    float          path   = 1.0f;
    int32_t        status = options.max_draft > 0 ? draft_step(ctx, pending, n_pending, pos, seq) : ECL_OK;
    while (status == ECL_OK && n < options.max_draft) {
        llama_token * token       = tokens + n * width;
        float *       probability = probabilities + n * width;
        best_tokens(ctx, width, token, probability);
        path *= chance_of_acceptance(options, *probability);
        if (path < options.min_path && n > 0) {
            break;
        }
        const bool unlikely = path < options.stop_path || *probability < options.stop_probability;
        const bool last     = unlikely || n + 1 == options.max_draft || llama_vocab_is_eog(vocab, *token);
        ++n;
        if (last) {
            break;
        }
        status = draft_step(ctx, token, 1, pos + n_pending + n - 1, seq);
    }
    status = status_of_draft(status, n);
    if (status == ECL_OK) {
        ctx->ecl.error.clear();
        if (options.keep_cells) {
            rollback.keep();
        }
    }
    return status == ECL_OK ? n : status;
}

}  // namespace

}  // namespace ecl

ecl_draft_options ecl_draft_default_options(void) {
    return {
        /*.max_draft        =*/16,
        /*.stop_probability =*/0.0f,
        /*.stop_path        =*/0.0f,
        /*.min_path         =*/0.0f,
        /*.acceptance       =*/nullptr,
        /*.n_acceptance     =*/0,
        /*.full_vocabulary  =*/false,
        /*.keep_cells       =*/false,
        /*.n_runners_up     =*/0,
        /*.before           =*/nullptr,
    };
}

int32_t ecl_draft(llama_context * ctx, const uint8_t * drop, int32_t n_layer, const llama_token * pending,
                  int32_t n_pending, llama_pos pos, llama_seq_id seq, const ecl_draft_options * options,
                  llama_token * tokens, float * probabilities) {
    return ecl::guarded(ctx, [&] {
        ecl::check(options, tokens, probabilities);
        return ecl::draft(ctx, drop, n_layer, pending, n_pending, pos, seq, *options, tokens, probabilities);
    });
}
