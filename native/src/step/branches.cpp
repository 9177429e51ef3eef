// Several continuations of a text side by side in one step, for searches for skip sets.
#include "ecl.h"
#include "llama-context.h"
#include "llama-kv-cache.h"
#include "llama-model.h"
#include "step/guard.h"
#include "step/kv_cells.h"
#include "step/states.h"
#include "step/step.h"

#include <algorithm>
#include <string>

static_assert(ECL_STREAM_NONE == ecl::graph_options::no_layer);
static_assert(ECL_STREAM_ALL == ecl::graph_options::all_layers);

namespace ecl {

namespace {

// Lets sequences share the cells of a text's first tokens for one scope.
class shared_text {
  public:
    // A sliding window's cells are free for others once they are out of the window, unless two
    // sequences have them; so no more of them than the window are shared.
    shared_text(llama_context * ctx, llama_seq_id seq, llama_pos length, llama_seq_id first, int32_t n) :
        memory(ctx->get_memory()), first(first), n(n) {
        const kv_caches caches = caches_of(ctx);
        const llama_pos window = llama_model_n_swa(&ctx->get_model());
        for (llama_seq_id s = first; s < first + n && length > 0; ++s) {
            caches.base->seq_cp(seq, s, 0, length);
            if (caches.swa != nullptr) {
                caches.swa->seq_cp(seq, s, std::max(0, length - window), length);
            }
        }
    }
    // Last first, so that a sliding window's ring goes on at the first cell that was taken.
    ~shared_text() {
        for (llama_seq_id s = first + n - 1; s >= first; --s) {
            memory->seq_rm(s, -1, -1);
        }
    }
    shared_text(const shared_text &)             = delete;
    shared_text & operator=(const shared_text &) = delete;

  private:
    llama_memory_i * memory;
    llama_seq_id     first;
    int32_t          n;
};

int32_t branches(llama_context * ctx, const uint8_t * drop, int32_t n_layer, const llama_token * tokens,
                 const float * states, int32_t n, int32_t n_branches, llama_pos pos, llama_seq_id seq, int32_t stream,
                 ecl_outputs outputs, float * streams) {
    require_states(ctx);
    require_tokens(ctx, tokens, n);
    require_place(pos, seq, n);
    const llama_seq_id first = seq + 1;
    if (n_branches < 1 || n_branches > LLAMA_MAX_SEQ - first || !ctx->get_cparams().kv_unified) {
        throw error(ECL_BAD_ARGUMENT, "there is no room for " + std::to_string(n_branches) + " branches");
    }
    require_ubatch(ctx, static_cast<int64_t>(n) * n_branches);
    const int32_t n_rows = n * n_branches;
    require(stream >= ECL_STREAM_ALL && stream < n_layer_of(ctx), "there is no such stream");
    require(stream == ECL_STREAM_NONE || streams != nullptr, "the streams are a null pointer");
    require_outputs(ctx, outputs, n_rows);
    require_outputs(ctx, outputs == ECL_OUTPUTS_LAST ? ECL_OUTPUTS_ALL : outputs,
                    outputs == ECL_OUTPUTS_LAST ? n_branches : n_rows);

    const scoped_options scope(ctx, graph_options());
    set_mask(ctx, drop, n_layer);
    graph_options & options = ctx->ecl.options;
    options.stream_layer    = stream;
    options.exact           = n_branches == 1;  // several do not lie in the cells of plain decoding
    if (states != nullptr) {
        set_states(ctx, options, states, n_rows);
    }
    llama_batch_ext batch = make_batch(ctx, n_rows, first + n_branches);
    for (int32_t b = 0; b < n_branches; ++b) {
        add_tokens(batch, tokens, n, pos, first + b, outputs);
    }
    const shared_text shared(ctx, seq, pos, first, n_branches);
    const int32_t     status = run_batch(ctx, batch);
    if (status == ECL_OK && stream != ECL_STREAM_NONE) {
        read_streams(ctx, n_rows, streams);
    }
    return status;
}

}  // namespace

}  // namespace ecl

int32_t ecl_branches(llama_context * ctx, const uint8_t * drop, int32_t n_layer, const llama_token * tokens,
                     const float * states, int32_t n, int32_t n_branches, llama_pos pos, llama_seq_id seq,
                     int32_t stream, ecl_outputs outputs, float * streams) {
    return ecl::guarded(ctx, [&] {
        return ecl::branches(ctx, drop, n_layer, tokens, states, n, n_branches, pos, seq, stream, outputs, streams);
    });
}
