// Steps over hidden states: early exits whose verification goes on where the draft stopped (LayerSkip,
// arXiv 2404.16710), and branches that run states through single layers for searches.
//
// What must hold: a step that goes on from states gives the bits of a full step. The states are the
// draft's own, and the keys and values of its layers are read from the cells that it wrote; that
// nothing else wrote to them since, and that the step got the same cells, is checked, not assumed.
#include "ecl.h"
#include "ecl_graph.h"
#include "ecl_support.h"
#include "ggml-backend.h"
#include "llama-batch.h"
#include "llama-context.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-model.h"

#include <algorithm>
#include <string>
#include <vector>

using ecl::fail;
using ecl::scoped_options;
using ecl::unsupported;
using ecl::why_no_masks;

static_assert(ECL_STREAM_NONE == ecl::graph_options::keep_none, "ecl.h and ecl_graph.h differ");
static_assert(ECL_STREAM_ALL == ecl::graph_options::keep_all, "ecl.h and ecl_graph.h differ");

namespace {

// The caches of a model's attention: one, or one for all and one for the sliding windows.
struct kv_caches {
    llama_kv_cache * base;
    llama_kv_cache * swa = nullptr;
};

kv_caches caches_of(llama_context * ctx) {
    llama_memory_i * memory = ctx->get_memory();
    if (auto * both = dynamic_cast<llama_kv_cache_iswa *>(memory); both != nullptr) {
        return { both->get_base(), both->get_swa() };
    }
    return { dynamic_cast<llama_kv_cache *>(memory) };
}

// The cells of positions pos to pos + n - 1, cache by cache; fewer if some positions are not there.
std::vector<uint32_t> cells_of(const kv_caches & caches, llama_seq_id seq, llama_pos pos, int32_t n) {
    std::vector<uint32_t> cells;
    for (const llama_kv_cache * cache : { caches.base, caches.swa }) {
        if (cache != nullptr) {
            const auto & by_position = cache->get_cells(seq).seq_pos_get(seq);
            for (auto it = by_position.lower_bound({ pos, 0 }); it != by_position.end() && it->first < pos + n; ++it) {
                cells.push_back(it->second);
            }
        }
    }
    return cells;
}

// Empty if steps over states can be done on this context as far as can be told without its graph.
std::string why_no_states(llama_context * ctx) {
    const llama_model & model = ctx->get_model();
    if (std::string why = why_no_masks(model); !why.empty()) {
        return why;
    }
    if (llama_model_n_layer(&model) < 2) {
        return "it has one layer";
    }
    if (caches_of(ctx).base == nullptr) {
        return "it keeps more than keys and values";
    }
    return "";
}

std::string too_many(llama_context * ctx, int32_t n) {
    if (static_cast<uint32_t>(n) <= ctx->n_ubatch()) {
        return "";
    }
    return "a step over states takes at most n_ubatch = " + std::to_string(ctx->n_ubatch()) + " tokens";
}

int32_t n_embd_of(const llama_context * ctx) {
    return llama_model_n_embd(&ctx->get_model());
}

// Layers begin to end - 1 dropped.
std::vector<uint8_t> without_layers(const llama_context * ctx, int32_t begin, int32_t end) {
    std::vector<uint8_t> drop(llama_model_n_layer(&ctx->get_model()), 0);
    std::fill(drop.begin() + begin, drop.begin() + end, ECL_DROP_ATTENTION | ECL_DROP_FFN);
    return drop;
}

void set_states(llama_context * ctx, ecl::graph_options & options, const float * states, int64_t n) {
    ctx->ecl.states.assign(states, states + n * n_embd_of(ctx));
    options.states = &ctx->ecl.states;
}

// Writes the streams of the step that ran last, n rows each. Returns false if one has other rows.
bool read_streams(llama_context * ctx, int32_t n, float * out) {
    ctx->synchronize();
    const size_t bytes = sizeof(float) * n * n_embd_of(ctx);
    for (const ggml_tensor * t : ctx->ecl.last_result->ecl.streams) {
        if (ggml_nbytes(t) != bytes) {
            return false;
        }
        ggml_backend_tensor_get(t, out, 0, bytes);
        out += bytes / sizeof(float);
    }
    return true;
}

// What decode's status means, as ecl_step says it.
int32_t explain(llama_context * ctx, int32_t status) {
    if (status < 0) {
        ctx->ecl.error = ctx->ecl.error.empty() ? "the step failed with code " + std::to_string(status) :
                                                  unsupported(ctx->get_model(), ctx->ecl.error);
    }
    return status;
}

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

}  // namespace

int32_t ecl_step_states(llama_context * ctx, const llama_token * tokens, const float * states, int32_t n, llama_pos pos,
                        llama_seq_id seq, ecl_outputs outputs) {
    if (const std::string why = why_no_states(ctx); !why.empty()) {
        return fail(ctx, unsupported(ctx->get_model(), "a layer mask: " + why));
    }
    if (const std::string why = too_many(ctx, n); !why.empty()) {
        return fail(ctx, why);
    }
    ecl::graph_options options = ctx->ecl.options;
    set_states(ctx, options, states, n);
    scoped_options scope(ctx, options);
    return ecl_step(ctx, tokens, n, pos, seq, outputs);
}

int32_t ecl_draft_exit(llama_context * ctx, int32_t exit_layer, const llama_token * pending, int32_t n_pending,
                       llama_pos pos, llama_seq_id seq, int32_t n_max, float stop_probability, llama_token * tokens,
                       float * probabilities, float * states) {
    const llama_model & model   = ctx->get_model();
    const int32_t       n_layer = llama_model_n_layer(&model);
    const int64_t       n_embd  = n_embd_of(ctx);
    ctx->ecl.error.clear();
    ctx->ecl.drafted.n_layer = 0;
    if (const std::string why = why_no_states(ctx); !why.empty()) {
        return fail(ctx, unsupported(ctx->get_model(), "a layer mask: " + why));
    }
    if (exit_layer < 1 || exit_layer >= n_layer) {
        return fail(ctx, "there is no exit after " + std::to_string(exit_layer) + " of " + std::to_string(n_layer) +
                             " layers");
    }
    if (const std::string why = too_many(ctx, n_pending); !why.empty()) {
        return fail(ctx, why);
    }
    if (n_max <= 0) {
        return 0;
    }
    ecl::graph_options options = ctx->ecl.options;
    options.drop               = without_layers(ctx, exit_layer, n_layer);
    options.keep               = exit_layer - 1;
    scoped_options scope(ctx, options);

    const llama_vocab * vocab  = llama_model_get_vocab(&model);
    int32_t             n      = 0;
    int32_t             n_run  = 0;  // tokens whose states are there
    bool                last   = false;
    int32_t             status = ecl_step(ctx, pending, n_pending, pos, seq, ECL_OUTPUTS_LAST);
    while (status == 0) {
        const int32_t rows = n_run == 0 ? n_pending : 1;
        if (!read_streams(ctx, rows, states + n_run * n_embd)) {
            status = fail(ctx, unsupported(ctx->get_model(), "a layer mask: its residual stream is not one vector a token"));
            break;
        }
        n_run += rows;
        if (last) {
            break;
        }
        tokens[n] = ecl_argmax(ctx, -1, &probabilities[n]);
        ++n;
        last = n == n_max || probabilities[n - 1] < stop_probability || llama_vocab_is_eog(vocab, tokens[n - 1]);
        // The last token's state is wanted for verification, but nothing is drafted after it.
        status = ecl_step(ctx, &tokens[n - 1], 1, pos + n_run, seq, last ? ECL_OUTPUTS_NONE : ECL_OUTPUTS_LAST);
    }
    if (status == 1 && n_run > 0) {
        status = 0;
        n      = n_run - n_pending;  // the cache is full: what ran until then is still a draft
    }
    if (status == 0 && n > 0) {
        ecl::exit_draft & drafted = ctx->ecl.drafted;
        drafted.n_layer           = exit_layer;
        drafted.seq               = seq;
        drafted.pos               = pos;
        drafted.n_runs            = ctx->ecl.graphs.n_runs();
        drafted.tokens.assign(pending, pending + n_pending);
        drafted.tokens.insert(drafted.tokens.end(), tokens, tokens + n);
        drafted.cells = cells_of(caches_of(ctx), seq, pos, n_run);
    }
    llama_memory_seq_rm(ctx->get_memory(), seq, pos, -1);
    return status == 0 ? n : (status > 0 ? -100 - status : status);
}

int32_t ecl_verify_exit(llama_context * ctx, int32_t exit_layer, const llama_token * tokens, const float * states,
                        int32_t n, llama_pos pos, llama_seq_id seq, int32_t * reused) {
    const ecl::exit_draft drafted = ctx->ecl.drafted;
    ctx->ecl.drafted.n_layer      = 0;
    *reused                       = 0;

    const size_t length  = drafted.tokens.size();
    const bool   certain = drafted.n_layer > 0 && drafted.n_layer == exit_layer && drafted.seq == seq &&
                         drafted.pos == pos && drafted.n_runs == ctx->ecl.graphs.n_runs() &&
                         static_cast<size_t>(n) <= length && std::equal(tokens, tokens + n, drafted.tokens.begin()) &&
                         !ctx->ecl.options.drops_any() &&
                         static_cast<uint32_t>(n) <= ctx->get_cparams().n_outputs_max;
    if (certain) {
        ecl::graph_options options = ctx->ecl.options;
        options.drop               = without_layers(ctx, 0, exit_layer);
        int32_t status             = 0;
        {
            scoped_options scope(ctx, options);
            status = ecl_step_states(ctx, tokens, states, n, pos, seq, ECL_OUTPUTS_ALL);
        }
        if (status != 0) {
            return status;
        }
        const kv_caches             caches = caches_of(ctx);
        const std::vector<uint32_t> cells  = cells_of(caches, seq, pos, n);
        const size_t                n_caches = caches.swa != nullptr ? 2 : 1;
        bool                        same     = cells.size() == n * n_caches && drafted.cells.size() == length * n_caches;
        for (size_t c = 0; c < n_caches && same; ++c) {
            same = std::equal(cells.begin() + c * n, cells.begin() + (c + 1) * n, drafted.cells.begin() + c * length);
        }
        if (same) {
            *reused = 1;
            return 0;
        }
        llama_memory_seq_rm(ctx->get_memory(), seq, pos, -1);
    }
    return ecl_step(ctx, tokens, n, pos, seq, ECL_OUTPUTS_ALL);
}

int32_t ecl_branches(llama_context * ctx, const uint8_t * drop, int32_t n_layer, const llama_token * tokens,
                     const float * states, int32_t n, int32_t n_branches, llama_pos pos, llama_seq_id seq,
                     int32_t stream, ecl_outputs outputs, float * streams) {
    ctx->ecl.error.clear();
    if (const std::string why = why_no_states(ctx); !why.empty()) {
        return fail(ctx, unsupported(ctx->get_model(), "a layer mask: " + why));
    }
    const int32_t      n_rows = n * n_branches;
    const int32_t      n_out  = outputs == ECL_OUTPUTS_ALL ? n_rows : outputs == ECL_OUTPUTS_LAST ? n_branches : 0;
    const llama_seq_id first  = seq + 1;
    if (const std::string why = too_many(ctx, n_rows); !why.empty()) {
        return fail(ctx, why);
    }
    if (first + n_branches > LLAMA_MAX_SEQ || !ctx->get_cparams().kv_unified) {
        return fail(ctx, "there is no room for " + std::to_string(n_branches) + " branches");
    }
    if (static_cast<uint32_t>(n_out) > ctx->get_cparams().n_outputs_max) {
        return fail(ctx, "at most n_outputs_max = " + std::to_string(ctx->get_cparams().n_outputs_max) +
                             " tokens' logits can be kept");
    }
    scoped_options scope(ctx, ecl::graph_options());
    if (const int32_t status = ecl_set_mask(ctx, drop, n_layer); status != 0) {
        return status;
    }
    ctx->ecl.options.keep  = stream;
    ctx->ecl.options.exact = n_branches == 1;  // several do not lie in the cells of plain decoding
    if (states != nullptr) {
        set_states(ctx, ctx->ecl.options, states, n_rows);
    }

    const llama_batch_ext like(ctx);
    llama_batch_ext       batch(like.n_tokens_max, like.n_embd_inp, like.n_embd_inp_enc, first + n_branches, like.mem,
                                like.n_vocab, like.n_pos_per_embd);
    batch.tokens.reserve(n_rows);
    for (int32_t b = 0; b < n_branches; ++b) {
        for (int32_t i = 0; i < n; ++i) {
            llama_batch_ext::token token;
            token.id     = tokens[i];
            token.pos[0] = pos + i;
            token.output = outputs == ECL_OUTPUTS_ALL || (outputs == ECL_OUTPUTS_LAST && i == n - 1);
            token.seq_ids.insert(first + b);
            batch.tokens.push_back(token);
        }
    }
    const shared_text shared(ctx, seq, pos, first, n_branches);
    if (const int32_t status = explain(ctx, ctx->decode(batch)); status != 0) {
        return status;
    }
    if (stream != ECL_STREAM_NONE && !read_streams(ctx, n_rows, streams)) {
        return fail(ctx, unsupported(ctx->get_model(), "a layer mask: its residual stream is not one vector a token"));
    }
    return 0;
}
