#include "ecl.h"

#include "ecl_graph.h"
#include "ecl_logits.h"
#include "ecl_support.h"
#include "ggml-backend.h"
#include "llama-arch.h"
#include "llama-batch.h"
#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

using ecl::fail;
using ecl::scoped_options;
using ecl::unsupported;
using ecl::why_no_masks;

std::string ecl::unsupported(const llama_model & model, const std::string & why) {
    return std::string("architecture '") + llm_arch_name(model.arch) + "' cannot be served by " + why;
}

std::string ecl::why_no_masks(const llama_model & model) {
    if (llama_model_has_encoder(&model)) {
        return "it has an encoder";
    }
    if (llama_model_is_recurrent(&model) || llama_model_is_hybrid(&model)) {
        return "its recurrent layers keep a state that cannot be rolled back";
    }
    return "";
}

namespace {

int32_t decode(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
               ecl_outputs outputs) {
    ctx->ecl.error.clear();
    if (outputs == ECL_OUTPUTS_ALL && static_cast<uint32_t>(n) > ctx->get_cparams().n_outputs_max) {
        return fail(ctx, "at most n_outputs_max = " + std::to_string(ctx->get_cparams().n_outputs_max) +
                             " tokens' logits can be kept");
    }
    // A unified cache has room for any sequence; probes use one beyond those that the context was made
    // for, so that a second sequence costs no memory.
    const llama_batch_ext like(ctx);
    llama_batch_ext       batch(like.n_tokens_max, like.n_embd_inp, like.n_embd_inp_enc,
                                std::max(like.n_seq_max, ctx->get_cparams().kv_unified ? seq + 1 : 0), like.mem,
                                like.n_vocab, like.n_pos_per_embd);
    batch.tokens.reserve(n);
    for (int32_t i = 0; i < n; ++i) {
        llama_batch_ext::token token;
        token.id     = tokens[i];
        token.pos[0] = pos + i;
        token.output = outputs == ECL_OUTPUTS_ALL || (outputs == ECL_OUTPUTS_LAST && i == n - 1);
        token.seq_ids.insert(seq);
        batch.tokens.push_back(token);
    }
    const int32_t status = ctx->decode(batch);
    if (status < 0 && ctx->ecl.error.empty()) {
        ctx->ecl.error = "the step failed with code " + std::to_string(status);
    } else if (status < 0) {
        ctx->ecl.error = unsupported(ctx->get_model(), ctx->ecl.error);
    }
    return status;
}

}  // namespace

int32_t ecl_set_mask(llama_context * ctx, const uint8_t * drop, int32_t n_layer) {
    ctx->ecl.error.clear();
    if (drop == nullptr) {
        ctx->ecl.options.drop.clear();
        return 0;
    }
    const llama_model & model = ctx->get_model();
    if (const std::string why = why_no_masks(model); !why.empty()) {
        return fail(ctx, unsupported(ctx->get_model(), "a layer mask: " + why));
    }
    if (n_layer != llama_model_n_layer(&model)) {
        return fail(ctx, "the mask has " + std::to_string(n_layer) + " layers, the model " +
                             std::to_string(llama_model_n_layer(&model)));
    }
    ecl::graph_options options = ctx->ecl.options;
    options.drop.assign(drop, drop + n_layer);
    if (!options.drops_any()) {
        options.drop.clear();  // the same graph as without a mask
    }
    ctx->ecl.options = options;
    return 0;
}

int32_t ecl_step(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                 ecl_outputs outputs) {
    ecl::graph_options options = ctx->ecl.options;
    options.exact              = true;
    scoped_options scope(ctx, std::move(options));
    return decode(ctx, tokens, n, pos, seq, outputs);
}

int32_t ecl_read(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                 ecl_outputs outputs) {
    return decode(ctx, tokens, n, pos, seq, outputs);
}

llama_token ecl_argmax(llama_context * ctx, int32_t i, float * probability) {
    const float * logits  = llama_get_logits_ith(ctx, i);
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(&ctx->get_model()));
    if (logits == nullptr) {
        fail(ctx, "no logits were kept for output " + std::to_string(i));
        return LLAMA_TOKEN_NULL;
    }
    return ecl::most_likely(logits, n_vocab, probability);
}

int32_t ecl_top_k(llama_context * ctx, int32_t i, int32_t k, llama_token * tokens, float * probabilities) {
    ctx->ecl.error.clear();
    const float * logits = llama_get_logits_ith(ctx, i);
    if (logits == nullptr) {
        return fail(ctx, "no logits were kept for output " + std::to_string(i));
    }
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(&ctx->get_model()));
    return ecl::most_likely_k(logits, n_vocab, k, tokens, probabilities);
}

int32_t ecl_probe(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                  float * attention, float * ffn, int32_t n_layer) {
    if (const std::string why = why_no_masks(ctx->get_model()); !why.empty()) {
        return fail(ctx, unsupported(ctx->get_model(), "a layer mask: " + why));
    }
    if (static_cast<uint32_t>(n) > ctx->n_ubatch()) {
        return fail(ctx, "a probe takes at most n_ubatch = " + std::to_string(ctx->n_ubatch()) + " tokens");
    }
    ecl::graph_options options;
    options.probe = true;
    scoped_options scope(ctx, options);
    if (const int32_t status = decode(ctx, tokens, n, pos, seq, ECL_OUTPUTS_LAST); status != 0) {
        return status;
    }
    ctx->synchronize();
    std::fill_n(attention, n_layer, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(ffn, n_layer, std::numeric_limits<float>::quiet_NaN());
    for (const ecl::sublayer_probe & probe : ctx->ecl.last_result->ecl.probes) {
        if (probe.il < n_layer) {
            float * out = probe.kind == ecl::sublayer::attention ? attention : ffn;
            ggml_backend_tensor_get(probe.confidence, &out[probe.il], 0, sizeof(float));
        }
    }
    return 0;
}

int32_t ecl_probe_stream(llama_context * ctx, int32_t layer, ecl_stream where, float * out, int32_t n_floats) {
    ctx->ecl.error.clear();
    const ggml_tensor * t = nullptr;
    if (ctx->ecl.last_result != nullptr) {
        for (const ecl::sublayer_probe & probe : ctx->ecl.last_result->ecl.probes) {
            if (probe.il == layer && probe.kind == ecl::sublayer::attention && where != ECL_AFTER_FFN) {
                t = where == ECL_BEFORE_ATTENTION ? probe.before : probe.after;
            }
            if (probe.il == layer && probe.kind == ecl::sublayer::ffn && where == ECL_AFTER_FFN) {
                t = probe.after;
            }
        }
    }
    if (t == nullptr) {
        return fail(ctx, "the last step has no such place in layer " + std::to_string(layer));
    }
    if (ggml_nelements(t) > n_floats) {
        return fail(ctx, "room for " + std::to_string(n_floats) + " floats, " +
                             std::to_string(ggml_nelements(t)) + " are needed");
    }
    ggml_backend_tensor_get(t, out, 0, ggml_nbytes(t));
    return static_cast<int32_t>(t->ne[1]);
}

void ecl_graph_stats(const llama_context * ctx, int64_t * n_built, int64_t * build_us, int32_t * n_alive) {
    *n_built  = ctx->ecl.n_built;
    *build_us = ctx->ecl.build_us;
    *n_alive  = static_cast<int32_t>(ctx->ecl.graphs.size()) + 1;
}

const char * ecl_last_error(const llama_context * ctx) {
    return ctx->ecl.error.c_str();
}
