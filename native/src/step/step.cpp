#include "step/step.h"

#include "ecl.h"
#include "llama-context.h"
#include "llama-model.h"
#include "logits/most_likely.h"
#include "step/guard.h"

#include <algorithm>
#include <string>
#include <utility>

namespace ecl {

llama_batch_ext make_batch(llama_context * ctx, int32_t n, llama_seq_id n_seqs) {
    const llama_batch_ext like(ctx);
    llama_batch_ext       batch(like.n_tokens_max, like.n_embd_inp, like.n_embd_inp_enc,
                                std::max(like.n_seq_max, ctx->get_cparams().kv_unified ? n_seqs : 0), like.mem,
                                like.n_vocab, like.n_pos_per_embd);
    batch.tokens.reserve(n);
    return batch;
}

void add_tokens(llama_batch_ext & batch, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                ecl_outputs outputs) {
    for (int32_t i = 0; i < n; ++i) {
        llama_batch_ext::token token;
        token.id     = tokens[i];
        token.pos[0] = pos + i;
        token.output = outputs == ECL_OUTPUTS_ALL || (outputs == ECL_OUTPUTS_LAST && i == n - 1);
        token.seq_ids.insert(seq);
        batch.tokens.push_back(std::move(token));
    }
}

int32_t run_batch(llama_context * ctx, const llama_batch_ext & batch) {
    ctx->ecl.refused     = {};
    const int32_t status = ctx->decode(batch);
    switch (status) {
        case 0:
            return ECL_OK;
        case 1:
            return fail(ctx, ECL_NO_ROOM, "the KV cache has no room for the step");
        case 2:
            return fail(ctx, ECL_ABORTED, "the step was aborted");
        default:
            break;
    }
    if (const refusal & refused = ctx->ecl.refused) {
        return fail(ctx, refused.status, unsupported(ctx->get_model(), refused.why).c_str());
    }
    return fail(ctx, ECL_FAILED, ("the step failed with code " + std::to_string(status)).c_str());
}

namespace {

int32_t decode(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
               ecl_outputs outputs) {
    require_tokens(ctx, tokens, n);
    require_place(pos, seq, n);
    require_outputs(ctx, outputs, n);
    llama_batch_ext batch = make_batch(ctx, n, seq + 1);
    add_tokens(batch, tokens, n, pos, seq, outputs);
    return run_batch(ctx, batch);
}

}  // namespace

int32_t step(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
             ecl_outputs outputs) {
    graph_options options = ctx->ecl.options;
    options.exact         = true;
    const scoped_options scope(ctx, std::move(options));
    return decode(ctx, tokens, n, pos, seq, outputs);
}

void set_mask(llama_context * ctx, const uint8_t * drop, int32_t n_layer) {
    if (drop == nullptr) {
        ctx->ecl.options.drop.clear();
        return;
    }
    require_masks(ctx);
    require_layers(ctx, n_layer);
    require(std::all_of(drop, drop + n_layer,
                        [](uint8_t bits) { return (bits & ~(ECL_DROP_ATTENTION | ECL_DROP_FFN)) == 0; }),
            "a layer has two sub-layers to drop");
    graph_options options = ctx->ecl.options;
    options.drop.assign(drop, drop + n_layer);
    if (!options.drops_any()) {
        options.drop.clear();  // the same graph as without a mask
    }
    ctx->ecl.options = std::move(options);
}

llama_token argmax(llama_context * ctx, int32_t i, float * probability) {
    return most_likely(logits_of(ctx, i), n_vocab_of(ctx), probability);
}

int32_t top_k(llama_context * ctx, int32_t i, int32_t k, llama_token * tokens, float * probabilities) {
    return most_likely_k(logits_of(ctx, i), n_vocab_of(ctx), k, tokens, probabilities);
}

}  // namespace ecl

int32_t ecl_set_mask(llama_context * ctx, const uint8_t * drop, int32_t n_layer) {
    return ecl::guarded(ctx, [&] { return ecl::set_mask(ctx, drop, n_layer), ECL_OK; });
}

int32_t ecl_step(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                 ecl_outputs outputs) {
    return ecl::guarded(ctx, [&] { return ecl::step(ctx, tokens, n, pos, seq, outputs); });
}

int32_t ecl_read(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                 ecl_outputs outputs) {
    return ecl::guarded(ctx, [&] { return ecl::decode(ctx, tokens, n, pos, seq, outputs); });
}

llama_token ecl_argmax(llama_context * ctx, int32_t i, float * probability) {
    return ecl::guarded(ctx, [&] { return ecl::argmax(ctx, i, probability); });
}

int32_t ecl_top_k(llama_context * ctx, int32_t i, int32_t k, llama_token * tokens, float * probabilities) {
    return ecl::guarded(ctx, [&] {
        ecl::require(k >= 0, "k is negative");
        ecl::require(k == 0 || (tokens != nullptr && probabilities != nullptr), "an array is a null pointer");
        return ecl::top_k(ctx, i, k, tokens, probabilities);
    });
}
