// Steps that measure every sub-layer's output.
#include "ecl.h"
#include "ggml-backend.h"
#include "llama-context.h"
#include "step/guard.h"
#include "step/step.h"

#include <algorithm>
#include <limits>
#include <string>

namespace {

// The residual stream at one place of the probed graph; null if it has no such place.
const ggml_tensor * stream_at(const llm_graph_result & res, int32_t layer, ecl_stream where) {
    const ggml_tensor * found = nullptr;
    for (const ecl::sublayer_probe & probe : res.ecl.probes) {
        if (probe.il == layer && probe.kind == ecl::sublayer::attention && where != ECL_AFTER_FFN) {
            found = where == ECL_BEFORE_ATTENTION ? probe.before : probe.after;
        }
        if (probe.il == layer && probe.kind == ecl::sublayer::ffn && where == ECL_AFTER_FFN) {
            found = probe.after;
        }
    }
    return found;
}

}  // namespace

int32_t ecl_probe(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                  float * attention, float * ffn, int32_t n_layer) {
    return ecl::guarded(ctx, [&]() -> int32_t {
        ecl::require_masks(ctx);
        ecl::require_layers(ctx, n_layer);
        ecl::require_ubatch(ctx, n);
        ecl::require(attention != nullptr && ffn != nullptr, "an array is a null pointer");
        ecl::graph_options options;
        options.probe = true;
        const ecl::scoped_options scope(ctx, options);
        if (const int32_t status = ecl_read(ctx, tokens, n, pos, seq, ECL_OUTPUTS_LAST); status != ECL_OK) {
            return status;
        }
        ctx->synchronize();
        std::fill_n(attention, n_layer, std::numeric_limits<float>::quiet_NaN());
        std::fill_n(ffn, n_layer, std::numeric_limits<float>::quiet_NaN());
        for (const ecl::sublayer_probe & probe : ctx->ecl.graphs.last_run()->ecl.probes) {
            if (probe.il < n_layer) {
                float * out = probe.kind == ecl::sublayer::attention ? attention : ffn;
                ggml_backend_tensor_get(probe.confidence, &out[probe.il], 0, sizeof(float));
            }
        }
        return ECL_OK;
    });
}

int32_t ecl_probe_stream(llama_context * ctx, int32_t layer, ecl_stream where, float * out, int32_t n_floats) {
    return ecl::guarded(ctx, [&] {
        ecl::require(out != nullptr, "the array is a null pointer");
        ecl::require(where == ECL_BEFORE_ATTENTION || where == ECL_AFTER_ATTENTION || where == ECL_AFTER_FFN,
                     "there is no such place in a layer");
        const llm_graph_result * run = ctx->ecl.graphs.last_run();
        const ggml_tensor *      t   = run != nullptr ? stream_at(*run, layer, where) : nullptr;
        if (t == nullptr) {
            throw ecl::error(ECL_NO_OUTPUT, "the last step has no such place in layer " + std::to_string(layer));
        }
        if (ggml_nelements(t) > n_floats) {
            throw ecl::error(ECL_BAD_ARGUMENT, "room for " + std::to_string(n_floats) + " floats, " +
                                                   std::to_string(ggml_nelements(t)) + " are needed");
        }
        ggml_backend_tensor_get(t, out, 0, ggml_nbytes(t));
        return static_cast<int32_t>(t->ne[1]);
    });
}
