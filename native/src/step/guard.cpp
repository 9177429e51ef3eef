#include "step/guard.h"

#include "ecl.h"
#include "llama-arch.h"
#include "llama-model.h"

#include <algorithm>
#include <limits>

namespace ecl {

int32_t fail(llama_context * ctx, ecl_status status, const char * why) noexcept {
    try {
        ctx->ecl.error = why;
    } catch (...) {
        ctx->ecl.error.clear();
    }
    return status;
}

std::string unsupported(const llama_model & model, const std::string & why) {
    return std::string("architecture '") + llm_arch_name(model.arch) + "' cannot be served by " + why;
}

void require_masks(const llama_context * ctx) {
    const llama_model & model = ctx->get_model();
    if (llama_model_has_encoder(&model)) {
        throw error(ECL_NO_MASK, unsupported(model, "a layer mask: it has an encoder"));
    }
    if (llama_model_is_recurrent(&model) || llama_model_is_hybrid(&model)) {
        throw error(ECL_NO_MASK, unsupported(model, "a layer mask: its recurrent layers keep a state that cannot be"
                                                    " rolled back"));
    }
    if (ctx->get_memory() == nullptr) {
        throw error(ECL_NO_MASK, unsupported(model, "a layer mask: it has no KV cache"));
    }
}

void require_layers(const llama_context * ctx, int32_t n_layer) {
    if (n_layer != n_layer_of(ctx)) {
        throw error(ECL_BAD_ARGUMENT, "the mask has " + std::to_string(n_layer) + " layers, the model " +
                                          std::to_string(n_layer_of(ctx)));
    }
}

void require_tokens(const llama_context * ctx, const llama_token * tokens, int32_t n) {
    if (n < 1 || static_cast<uint32_t>(n) > ctx->n_batch()) {
        throw error(ECL_BAD_ARGUMENT, "a step takes 1 to " + std::to_string(ctx->n_batch()) + " tokens, not " +
                                          std::to_string(n));
    }
    require(tokens != nullptr, "the tokens are a null pointer");
    const int32_t n_vocab = n_vocab_of(ctx);
    const auto *  outside =
        std::find_if(tokens, tokens + n, [&](llama_token token) { return token < 0 || token >= n_vocab; });
    if (outside != tokens + n) {
        throw error(ECL_BAD_ARGUMENT, "token " + std::to_string(*outside) + " is not in the vocabulary");
    }
}

void require_place(llama_pos pos, llama_seq_id seq, int64_t n) {
    require(pos >= 0 && pos + n <= std::numeric_limits<llama_pos>::max(), "there is no such position");
    require(seq >= 0 && seq < LLAMA_MAX_SEQ, "there is no such sequence");
}

void require_outputs(const llama_context * ctx, ecl_outputs outputs, int32_t n) {
    require(outputs == ECL_OUTPUTS_NONE || outputs == ECL_OUTPUTS_LAST || outputs == ECL_OUTPUTS_ALL,
            "there is no such choice of outputs");
    const uint32_t most = ctx->get_cparams().n_outputs_max;
    if (outputs == ECL_OUTPUTS_ALL && static_cast<uint32_t>(n) > most) {
        throw error(ECL_BAD_ARGUMENT, "at most n_outputs_max = " + std::to_string(most) +
                                          " tokens' logits can be kept");
    }
}

void require_ubatch(const llama_context * ctx, int64_t n) {
    if (n < 1 || n > static_cast<int64_t>(ctx->n_ubatch())) {
        throw error(ECL_BAD_ARGUMENT, "this call takes 1 to n_ubatch = " + std::to_string(ctx->n_ubatch()) +
                                          " tokens, not " + std::to_string(n));
    }
}

const float * logits_of(llama_context * ctx, int32_t i) {
    const float * logits = llama_get_logits_ith(ctx, i);
    if (logits == nullptr) {
        throw error(ECL_NO_OUTPUT, "no logits were kept for output " + std::to_string(i));
    }
    return logits;
}

int32_t n_vocab_of(const llama_context * ctx) {
    return llama_vocab_n_tokens(llama_model_get_vocab(&ctx->get_model()));
}

int32_t n_layer_of(const llama_context * ctx) {
    return llama_model_n_layer(&ctx->get_model());
}

int32_t n_embd_of(const llama_context * ctx) {
    return llama_model_n_embd(&ctx->get_model());
}

}  // namespace ecl
