#include "step/states.h"

#include "ecl.h"
#include "ggml-backend.h"
#include "llama-context.h"
#include "step/guard.h"
#include "step/kv_cells.h"

namespace ecl {

void require_states(llama_context * ctx) {
    require_masks(ctx);
    const llama_model & model = ctx->get_model();
    if (n_layer_of(ctx) < 2) {
        throw error(ECL_NO_MASK, unsupported(model, "a layer mask: it has one layer"));
    }
    if (caches_of(ctx).base == nullptr) {
        throw error(ECL_NO_MASK, unsupported(model, "a layer mask: it keeps more than keys and values"));
    }
}

void set_states(llama_context * ctx, graph_options & options, const float * states, int64_t n) {
    ctx->ecl.states.assign(states, states + n * n_embd_of(ctx));
    options.states = &ctx->ecl.states;
}

void read_streams(llama_context * ctx, int64_t n, float * out) {
    ctx->synchronize();
    const size_t bytes = sizeof(float) * n * n_embd_of(ctx);
    for (const ggml_tensor * t : ctx->ecl.graphs.last_run()->ecl.streams) {
        if (ggml_nbytes(t) != bytes) {
            throw error(ECL_NO_MASK, unsupported(ctx->get_model(),
                                                 "a layer mask: its residual stream is not one vector a token"));
        }
        ggml_backend_tensor_get(t, out, 0, bytes);
        out += bytes / sizeof(float);
    }
}

}  // namespace ecl
