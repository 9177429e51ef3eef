// Drafts by an early exit, whose verification goes on where the draft stopped (LayerSkip, arXiv 2404.16710).
//
// What must hold: a step that goes on from states gives the bits of a full step. The states are the
// draft's own, and the keys and values of its layers are read from the cells that it wrote. That nothing
// has written to these cells since, that the adapters are the same, and that the step got the same cells
// is checked, not assumed.
#include "draft/state.h"
#include "ecl.h"
#include "llama-context.h"
#include "llama-model.h"
#include "step/guard.h"
#include "step/kv_cells.h"
#include "step/states.h"
#include "step/step.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace ecl {

namespace {

// Layers begin to end - 1 dropped.
std::vector<uint8_t> without_layers(const llama_context * ctx, int32_t begin, int32_t end) {
    std::vector<uint8_t> drop(n_layer_of(ctx), 0);
    std::fill(drop.begin() + begin, drop.begin() + end, ECL_DROP_ATTENTION | ECL_DROP_FFN);
    return drop;
}

void require_exit(const llama_context * ctx, int32_t exit_layer) {
    if (exit_layer < 1 || exit_layer >= n_layer_of(ctx)) {
        throw error(ECL_BAD_ARGUMENT, "there is no exit after " + std::to_string(exit_layer) + " of " +
                                          std::to_string(n_layer_of(ctx)) + " layers");
    }
}

int32_t draft_exit(llama_context * ctx, int32_t exit_layer, const llama_token * pending, int32_t n_pending,
                   llama_pos pos, llama_seq_id seq, int32_t max_draft, float stop_probability, llama_token * tokens,
                   float * probabilities, float * states) {
    exit_draft & drafted = drafts_of(ctx).exit;
    drafted.n_layer      = 0;
    require_states(ctx);
    require_exit(ctx, exit_layer);
    require(max_draft >= 0, "the number of tokens is negative");
    require_tokens(ctx, pending, n_pending);
    require_ubatch(ctx, n_pending);
    require_place(pos, seq, static_cast<int64_t>(n_pending) + max_draft);
    if (max_draft == 0) {
        return 0;
    }
    require(tokens != nullptr && probabilities != nullptr && states != nullptr, "an array is a null pointer");
    graph_options options = ctx->ecl.options;
    options.drop          = without_layers(ctx, exit_layer, n_layer_of(ctx));
    options.stream_layer  = exit_layer - 1;
    const scoped_options scope(ctx, std::move(options));

    const llama_vocab *  vocab  = llama_model_get_vocab(&ctx->get_model());
    const int64_t        n_embd = n_embd_of(ctx);
    const rollback_guard rollback(ctx, seq, pos);
    int32_t              n      = 0;
    int32_t              n_run  = 0;  // tokens whose states are there
    bool                 last   = false;
    int32_t              status = step(ctx, pending, n_pending, pos, seq, ECL_OUTPUTS_LAST);
    while (status == ECL_OK) {
        const int32_t n_read = n_run == 0 ? n_pending : 1;
        read_streams(ctx, n_read, states + n_run * n_embd);
        n_run += n_read;
        if (last) {
            break;
        }
        tokens[n] = argmax(ctx, -1, &probabilities[n]);
        ++n;
        last = n == max_draft || probabilities[n - 1] < stop_probability || llama_vocab_is_eog(vocab, tokens[n - 1]);
        // The last token's state is wanted for verification, but nothing is drafted after it.
        status = step(ctx, &tokens[n - 1], 1, pos + n_run, seq, last ? ECL_OUTPUTS_NONE : ECL_OUTPUTS_LAST);
    }
    if (status_of_draft(status, n_run) != ECL_OK) {
        return status;
    }
    ctx->ecl.error.clear();
    n = n_run - n_pending;  // less than was drawn if the cache is full
    if (n > 0) {
        drafted.n_layer   = exit_layer;
        drafted.seq       = seq;
        drafted.pos       = pos;
        drafted.n_changes = ctx->ecl.graphs.n_changes();
        drafted.tokens.assign(pending, pending + n_pending);
        drafted.tokens.insert(drafted.tokens.end(), tokens, tokens + n);
        drafted.cells = cells_of(caches_of(ctx), seq, pos, n_run);
    }
    return n;
}

// Whether the first n positions of a draft lie in the cells that it wrote.
bool same_cells(llama_context * ctx, const exit_draft & drafted, int32_t n) {
    const kv_caches             caches   = caches_of(ctx);
    const std::vector<uint32_t> cells    = cells_of(caches, drafted.seq, drafted.pos, n);
    const auto                  n_caches = static_cast<size_t>(caches.size());
    const size_t                length   = drafted.tokens.size();
    bool same = cells.size() == n * n_caches && drafted.cells.size() == length * n_caches;
    for (size_t c = 0; c < n_caches && same; ++c) {
        same = std::equal(cells.begin() + c * n, cells.begin() + (c + 1) * n, drafted.cells.begin() + c * length);
    }
    return same;
}

int32_t verify_exit(llama_context * ctx, int32_t exit_layer, const llama_token * tokens, const float * states,
                    int32_t n, llama_pos pos, llama_seq_id seq, int32_t * reused) {
    const exit_draft drafted    = std::exchange(drafts_of(ctx).exit, {});
    const uint64_t   n_resets   = ctx->ecl.graphs.n_resets();
    *reused                     = 0;
    const bool may_be_continued = drafted.n_layer > 0 && drafted.n_layer == exit_layer && drafted.seq == seq &&
                                  drafted.pos == pos && drafted.n_changes == ctx->ecl.graphs.n_changes() &&
                                  static_cast<size_t>(n) <= drafted.tokens.size() &&
                                  std::equal(tokens, tokens + n, drafted.tokens.begin()) &&
                                  !ctx->ecl.options.drops_any();
    if (may_be_continued) {
        rollback_guard rollback(ctx, seq, pos);
        graph_options  options = ctx->ecl.options;
        options.drop           = without_layers(ctx, 0, exit_layer);
        set_states(ctx, options, states, n);
        int32_t status = ECL_OK;
        {
            const scoped_options scope(ctx, std::move(options));
            status = step(ctx, tokens, n, pos, seq, ECL_OUTPUTS_ALL);
        }
        if (status != ECL_OK) {
            return status;
        }
        // The step itself resets the graphs if an adapter or a control vector was set before it.
        if (ctx->ecl.graphs.n_resets() == n_resets && same_cells(ctx, drafted, n)) {
            rollback.keep();
            *reused = 1;
            return ECL_OK;
        }
    }
    return step(ctx, tokens, n, pos, seq, ECL_OUTPUTS_ALL);
}

}  // namespace

}  // namespace ecl

int32_t ecl_draft_exit(llama_context * ctx, int32_t exit_layer, const llama_token * pending, int32_t n_pending,
                       llama_pos pos, llama_seq_id seq, int32_t max_draft, float stop_probability,
                       llama_token * tokens, float * probabilities, float * states) {
    return ecl::guarded(ctx, [&] {
        return ecl::draft_exit(ctx, exit_layer, pending, n_pending, pos, seq, max_draft, stop_probability, tokens,
                               probabilities, states);
    });
}

int32_t ecl_verify_exit(llama_context * ctx, int32_t exit_layer, const llama_token * tokens, const float * states,
                        int32_t n, llama_pos pos, llama_seq_id seq, int32_t * reused) {
    return ecl::guarded(ctx, [&] {
        ecl::require(reused != nullptr && states != nullptr, "an array is a null pointer");
        ecl::require_states(ctx);
        ecl::require_exit(ctx, exit_layer);
        ecl::require_tokens(ctx, tokens, n);
        ecl::require_ubatch(ctx, n);
        ecl::require_place(pos, seq, n);
        ecl::require_outputs(ctx, ECL_OUTPUTS_ALL, n);
        return ecl::verify_exit(ctx, exit_layer, tokens, states, n, pos, seq, reused);
    });
}
