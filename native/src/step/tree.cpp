// Steps over trees of tokens.
#include "ecl.h"
#include "ggml-backend.h"
#include "graph/tree.h"
#include "kernels/mark_graph.h"
#include "llama-context.h"
#include "llama-memory.h"
#include "llama-model.h"
#include "step/guard.h"
#include "step/step.h"

#include <algorithm>
#include <string>
#include <utility>

namespace ecl {

namespace {

std::string why_no_trees(llama_context * ctx) {
    const llama_model & model = ctx->get_model();
    if (llama_model_has_encoder(&model) || llama_model_is_recurrent(&model) || llama_model_is_hybrid(&model)) {
        return "the model has an encoder or recurrent layers";
    }
    if (ctx->get_memory() == nullptr) {
        return "the model has no KV cache";
    }
    for (int i = 0; i < ggml_backend_sched_get_n_backends(ctx->get_sched()); ++i) {
        const auto type =
            ggml_backend_dev_type(ggml_backend_get_device(ggml_backend_sched_get_backend(ctx->get_sched(), i)));
        if (type != GGML_BACKEND_DEVICE_TYPE_CPU && type != GGML_BACKEND_DEVICE_TYPE_ACCEL) {
            return "the model may run on a GPU";
        }
    }
    ctx->synchronize();
    ctx->ecl.graphs.forget_last_run();
    const llama_memory_context_ptr cache = ctx->get_memory()->init_full();
    if (!cache || ctx->graph_reserve(2, 1, 2, cache.get(), true) == nullptr) {
        return "the model's graph cannot be built";
    }
    mark_attention(ctx->get_gf_res_reserve()->get_gf(), model.ecl_kernels);
    return why_no_branches(*ctx->get_gf_res_reserve());
}

// Throws if trees cannot be decoded here.
void require_trees(llama_context * ctx) {
    if (ctx->ecl.takes_trees) {
        return;
    }
    if (const std::string why = why_no_trees(ctx); !why.empty()) {
        throw error(ECL_NO_TREE, "trees of tokens cannot be decoded here: " + why);
    }
    ctx->ecl.takes_trees = true;
}

int32_t step_tree(llama_context * ctx, const llama_token * tokens, const int32_t * parents, int32_t n, llama_pos pos,
                  llama_seq_id seq, ecl_outputs outputs) {
    const auto most = static_cast<int32_t>(std::min<uint32_t>(ECL_MAX_TREE, ctx->n_ubatch()));
    if (n < 1 || n > most) {
        throw error(ECL_BAD_ARGUMENT,
                    "a tree has 1 to " + std::to_string(most) + " tokens, not " + std::to_string(n));
    }
    require(parents != nullptr, "the parents are a null pointer");
    int32_t chain = 0;  // how many of the first tokens each follow the one before
    for (int32_t i = 0; i < n; ++i) {
        if (parents[i] < -1 || parents[i] >= i) {
            throw error(ECL_BAD_ARGUMENT, "token " + std::to_string(i) + " of a tree cannot follow token " +
                                              std::to_string(parents[i]));
        }
        chain += chain == i && parents[i] == i - 1;
    }
    require_trees(ctx);
    ctx->ecl.tree.assign(parents, n);
    graph_options options = ctx->ecl.options;
    options.tree          = &ctx->ecl.tree;
    const scoped_options scope(ctx, std::move(options));
    const int32_t        status = step(ctx, tokens, n, pos, seq, outputs);
    if (status == ECL_OK && chain < n) {
        llama_memory_seq_rm(ctx->get_memory(), seq, pos + chain, -1);
    }
    return status;
}

}  // namespace

}  // namespace ecl

int32_t ecl_tree_supported(llama_context * ctx) {
    const int32_t status = ecl::guarded(ctx, [&] {
        ctx->ecl.takes_trees = false;
        ecl::require_trees(ctx);
        return 1;
    });
    return status == ECL_NO_TREE ? 0 : status;
}

int32_t ecl_step_tree(llama_context * ctx, const llama_token * tokens, const int32_t * parents, int32_t n,
                      llama_pos pos, llama_seq_id seq, ecl_outputs outputs) {
    return ecl::guarded(ctx, [&] { return ecl::step_tree(ctx, tokens, parents, n, pos, seq, outputs); });
}
