// Greedy drafting, one token a step, in the draft vocabulary if there is one.
#include "ecl.h"

#include "ecl_logits.h"
#include "ecl_support.h"
#include "ggml-backend.h"
#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

// A step that keeps the logits of its last token, of the draft vocabulary where there is one.
int32_t draft_step(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq) {
    const int32_t status = ecl_step(ctx, tokens, n, pos, seq, ECL_OUTPUTS_LAST);
    if (status == 0 && ctx->ecl.options.head != nullptr) {
        ctx->synchronize();
        const ggml_tensor *  found  = ctx->ecl.last_result->ecl.logits;
        std::vector<float> & logits = ctx->ecl.head->logits;
        logits.resize(ggml_nelements(found));
        ggml_backend_tensor_get(found, logits.data(), 0, ggml_nbytes(found));
    }
    return status;
}

// The n likeliest tokens of the step that just ran, and -1 for those that there are not.
void best_tokens(llama_context * ctx, int32_t n, llama_token * tokens, float * probabilities) {
    const ecl::draft_head * head = ctx->ecl.options.head != nullptr ? ctx->ecl.head.get() : nullptr;
    int32_t                 found = 1;
    if (n == 1) {  // one pass less over the logits
        tokens[0] = head == nullptr
            ? ecl_argmax(ctx, -1, probabilities)
            : ecl::most_likely(head->logits.data(), static_cast<int32_t>(head->tokens.size()), probabilities);
    } else {
        found = head == nullptr
            ? ecl_top_k(ctx, -1, n, tokens, probabilities)
            : ecl::most_likely_k(head->logits.data(), static_cast<int32_t>(head->tokens.size()), n, tokens,
                                 probabilities);
    }
    if (head != nullptr) {
        std::transform(tokens, tokens + found, tokens, [head](int32_t place) { return head->tokens[place]; });
    }
    std::fill(tokens + found, tokens + n, -1);
    std::fill(probabilities + found, probabilities + n, 0.0f);
}

float chance_of_acceptance(const ecl_draft_options & options, float probability) {
    if (options.acceptance == nullptr || options.n_acceptance <= 0) {
        return probability;
    }
    const auto bin = static_cast<int32_t>(std::floor(probability * static_cast<float>(options.n_acceptance)));
    return options.acceptance[std::clamp(bin, 0, options.n_acceptance - 1)];
}

}  // namespace

ecl_draft_options ecl_draft_default_options(void) {
    return {
        /*.n_max            =*/16,
        /*.stop_probability =*/0.0f,
        /*.stop_path        =*/0.0f,
        /*.least_path       =*/0.0f,
        /*.acceptance       =*/nullptr,
        /*.n_acceptance     =*/0,
        /*.full_vocabulary  =*/false,
        /*.keep             =*/false,
        /*.n_runners_up     =*/0,
    };
}

int32_t ecl_draft(llama_context * ctx, const uint8_t * drop, int32_t n_layer, const llama_token * pending,
                  int32_t n_pending, llama_pos pos, llama_seq_id seq, const ecl_draft_options * options,
                  llama_token * tokens, float * probabilities) {
    ecl::scoped_options scope(ctx, ctx->ecl.options);
    if (const int32_t status = ecl_set_mask(ctx, drop, n_layer); status != 0) {
        return status;
    }
    if (ctx->ecl.head != nullptr) {
        ctx->ecl.head->logits.clear();
    }
    if (ctx->ecl.head != nullptr && !options->full_vocabulary) {
        ctx->ecl.options.head        = ctx->ecl.head.get();
        ctx->ecl.options.head_number = ctx->ecl.n_heads;
    }
    const llama_vocab * vocab = llama_model_get_vocab(&ctx->get_model());

    const int32_t width = 1 + options->n_runners_up;
    llama_token * token       = tokens;
    float *       probability = probabilities;

    int32_t n      = 0;
    float   path   = 1.0f;
    int32_t status = options->n_max > 0 ? draft_step(ctx, pending, n_pending, pos, seq) : 0;
    while (status == 0 && n < options->n_max) {
        token       = tokens + n * width;
        probability = probabilities + n * width;
        best_tokens(ctx, width, token, probability);
        path *= chance_of_acceptance(*options, *probability);
        if (path < options->least_path && n > 0) {
            break;
        }
        const bool unlikely = path < options->stop_path || *probability < options->stop_probability;
        const bool last     = unlikely || n + 1 == options->n_max || llama_vocab_is_eog(vocab, *token);
        ++n;
        if (last) {
            break;
        }
        status = draft_step(ctx, token, 1, pos + n_pending + n - 1, seq);
    }
    // When the cache is full, what was drafted until then is still a draft.
    const bool drafted = status == 0 || (status == 1 && n > 0);
    // A dropped layer has no keys and values for drafted positions, so nothing drafted may stay there.
    if (!options->keep || !drafted) {
        llama_memory_seq_rm(llama_get_memory(ctx), seq, pos, -1);
    }
    return drafted ? n : (status > 0 ? -100 - status : status);
}

const float * ecl_draft_logits(const llama_context * ctx) {
    return ctx->ecl.head != nullptr && !ctx->ecl.head->logits.empty() ? ctx->ecl.head->logits.data() : nullptr;
}
