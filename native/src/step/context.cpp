// What can be asked of a context between its calls.
#include "step/context.h"

#include "ecl.h"
#include "llama-context.h"
#include "step/guard.h"

int32_t ecl_graph_stats(llama_context * ctx, int64_t * n_built, int64_t * build_us, int32_t * n_alive) {
    return ecl::guarded(ctx, [&] {
        ecl::require(n_built != nullptr && build_us != nullptr && n_alive != nullptr, "a number is a null pointer");
        *n_built  = ctx->ecl.n_built;
        *build_us = ctx->ecl.build_us;
        *n_alive  = static_cast<int32_t>(ctx->ecl.graphs.size()) + 1;
        return ECL_OK;
    });
}

const char * ecl_last_error(const llama_context * ctx) {
    return ctx != nullptr ? ctx->ecl.error.c_str() : "the context is a null pointer";
}
