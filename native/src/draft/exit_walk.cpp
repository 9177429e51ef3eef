// Drafts by taught exits, which walk down the layers until an exit is sure (DSSD, arXiv 2407.21082).
//
// What must hold: no layer runs twice for a token, and each has the keys and values of all tokens before it.
// So a token goes on to a deeper exit together with the earlier ones that stopped before it, in one step that
// starts from their states. Each such step gives the tokens their cells anew; that these are the same
// is checked. Where the deepest exit was reached by all, verification goes on from there (early_exit.cpp).
#include "draft/state.h"
#include "draft/taught_exits.h"
#include "ecl.h"
#include "kernels/ggml_marks.h"
#include "llama-context.h"
#include "llama-model.h"
#include "step/guard.h"
#include "step/kv_cells.h"
#include "step/states.h"
#include "step/step.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace ecl {

namespace {

class exit_walk {
  public:
    exit_walk(llama_context * ctx, std::vector<taught_exit *> exits, const llama_token * pending, int32_t n_pending,
              llama_pos pos, llama_seq_id seq) :
        ctx(ctx), exits(std::move(exits)), pos(pos), seq(seq), text(pending, pending + n_pending),
        n_run(this->exits.size(), 0), states(this->exits.size()) {}

    size_t n_exits() const { return exits.size(); }

    // Layers that run before an exit.
    int32_t layer(size_t k) const { return exits[k]->layer(); }

    void add(llama_token token) { text.push_back(token); }

    // Runs all tokens as far as an exit. Returns a status.
    int32_t run_to(size_t k) {
        const int32_t begin = n_run[k];
        const auto    end   = static_cast<int32_t>(text.size());
        if (begin == end) {
            return ECL_OK;
        }
        const int64_t n_embd  = n_embd_of(ctx);
        const int32_t layer   = exits[k]->layer();
        graph_options options = ctx->ecl.options;
        options.drop.assign(n_layer_of(ctx), ECL_DROP_ATTENTION | ECL_DROP_FFN);
        std::fill(options.drop.begin() + (k > 0 ? exits[k - 1]->layer() : 0), options.drop.begin() + layer, 0);
        options.stream_layer = layer - 1;
        if (k > 0) {
            set_states(ctx, options, states[k - 1].data() + begin * n_embd, end - begin);
        }
        const scoped_options scope(ctx, std::move(options));
        llama_memory_seq_rm(llama_get_memory(ctx), seq, pos + begin, -1);
        const int32_t status = step(ctx, text.data() + begin, end - begin, pos + begin, seq, ECL_OUTPUTS_NONE);
        if (status == ECL_OK) {
            states[k].resize(end * n_embd);
            read_streams(ctx, end - begin, states[k].data() + begin * n_embd);
            n_run[k] = end;
            compare_cells();
        }
        return status;
    }

    // What an exit, to which all tokens were run, guesses to follow them.
    taught_exit::guess ask(size_t k) {
        const float * last = states[k].data() + (text.size() - 1) * n_embd_of(ctx);
        return (*exits[k])(last, static_cast<int32_t>(ctx->n_threads()));
    }

    // Whether the tokens have kept their cells, so that what the layers wrote there is still theirs.
    bool has_cells() const { return !cells_lost; }

    // Notes what verification can go on from: the states of the deepest exit that all tokens were run to.
    // Returns its layer; 0: there is none.
    int32_t finish(exit_draft & drafted, float * out) const {
        drafted.n_layer = 0;
        if (cells_lost || text.size() > ECL_SMALL_BATCH) {
            return 0;
        }
        for (size_t k = exits.size(); k-- > 0;) {
            if (n_run[k] == static_cast<int32_t>(text.size())) {
                std::copy(states[k].begin(), states[k].end(), out);
                drafted.n_layer   = exits[k]->layer();
                drafted.seq       = seq;
                drafted.pos       = pos;
                drafted.n_changes = ctx->ecl.graphs.n_changes();
                drafted.tokens    = text;
                drafted.cells     = cells;
                return drafted.n_layer;
            }
        }
        return 0;
    }

  private:
    void compare_cells() {
        const kv_caches       caches = caches_of(ctx);
        std::vector<uint32_t> now    = cells_of(caches, seq, pos, static_cast<int32_t>(text.size()));
        const size_t          n_then = cells.size() / caches.size();
        const size_t          n_now  = now.size() / caches.size();
        for (int32_t c = 0; c < caches.size() && n_then <= n_now; ++c) {
            const auto then = cells.begin() + static_cast<std::ptrdiff_t>(c * n_then);
            cells_lost |= !std::equal(then, then + static_cast<std::ptrdiff_t>(n_then),
                                      now.begin() + static_cast<std::ptrdiff_t>(c * n_now));
        }
        cells_lost |= n_now != text.size();
        cells = std::move(now);
    }

    llama_context *            ctx;
    std::vector<taught_exit *> exits;
    llama_pos                  pos;  // of the first token
    llama_seq_id               seq;
    std::vector<llama_token>   text;   // pending and drafted
    std::vector<int32_t>       n_run;  // by exit: tokens that were run to it
    std::vector<std::vector<float>> states;  // by exit: those tokens' residual streams
    std::vector<uint32_t>      cells;        // of every token in every cache, cache by cache
    bool                       cells_lost = false;
};

// The exits with a threshold that an entropy can be under, which is never below 0.
std::vector<taught_exit *> exits_in_use(llama_context * ctx, const float * thresholds, int32_t n) {
    const auto & all = drafts_of(ctx).taught;
    if (all.empty()) {
        throw error(ECL_NO_EXITS, "there are no taught exits");
    }
    require(n == static_cast<int32_t>(all.size()), "there is one threshold for each taught exit");
    const draft_head * head = ctx->ecl.head.get();
    if (head == nullptr) {
        throw error(ECL_NO_EXITS, unsupported(ctx->get_model(), "taught exits without a draft vocabulary"));
    }
    std::vector<taught_exit *> found;
    for (int32_t k = 0; k < n; ++k) {
        if (thresholds[k] >= 0.0f) {
            if (const char * why = all[k]->prepare(*head, ctx->ecl.n_heads); why != nullptr) {
                throw error(ECL_NO_EXITS, unsupported(ctx->get_model(), std::string("taught exits: ") + why));
            }
            found.push_back(all[k].get());
        }
    }
    return found;
}

int32_t draft_taught(llama_context * ctx, const float * thresholds, int32_t n_exits, const llama_token * pending,
                     int32_t n_pending, llama_pos pos, llama_seq_id seq, int32_t max_draft, llama_token * tokens,
                     float * probabilities, int32_t * layers, float * states, int32_t * reached) {
    exit_draft & drafted = drafts_of(ctx).exit;
    drafted.n_layer      = 0;
    *reached             = 0;
    require_states(ctx);
    require(max_draft >= 0, "the number of tokens is negative");
    require_tokens(ctx, pending, n_pending);
    require_ubatch(ctx, static_cast<int64_t>(n_pending) + max_draft);
    require_place(pos, seq, static_cast<int64_t>(n_pending) + max_draft);
    require(!ctx->ecl.options.drops_any(), "taught exits draft without a mask");
    std::vector<taught_exit *> in_use = exits_in_use(ctx, thresholds, n_exits);
    std::vector<float>         bounds;
    std::copy_if(thresholds, thresholds + n_exits, std::back_inserter(bounds), [](float t) { return t >= 0.0f; });
    if (in_use.empty() || max_draft == 0) {
        return 0;
    }
    const draft_head &   head  = *ctx->ecl.head;
    const llama_vocab *  vocab = llama_model_get_vocab(&ctx->get_model());
    const rollback_guard rollback(ctx, seq, pos);
    exit_walk            walk(ctx, std::move(in_use), pending, n_pending, pos, seq);

    // Walks down with the last token until an exit is sure of what follows it.
    int32_t    status = ECL_OK;
    int32_t    n      = 0;
    const auto foresee = [&] {
        for (size_t k = 0; k < walk.n_exits(); ++k) {
            status = walk.run_to(k);
            if (status != ECL_OK || !walk.has_cells()) {
                return false;
            }
            const taught_exit::guess guess = walk.ask(k);
            if (guess.entropy <= bounds[k]) {
                tokens[n]        = head.tokens[guess.row];
                probabilities[n] = guess.probability;
                layers[n]        = walk.layer(k);
                return true;
            }
        }
        return false;
    };
    while (n < max_draft && foresee()) {
        walk.add(tokens[n]);
        ++n;
        if (llama_vocab_is_eog(vocab, tokens[n - 1])) {
            break;
        }
    }
    if (status == ECL_OK && walk.has_cells()) {
        status = walk.run_to(0);  // what verification goes on from, if no exit was asked about the last token
    }
    if (status_of_draft(status, n) != ECL_OK) {
        return status;
    }
    ctx->ecl.error.clear();
    *reached = walk.finish(drafted, states);
    return n;
}

}  // namespace

}  // namespace ecl

int32_t ecl_set_taught_exits(llama_context * ctx, const int32_t * layers, int32_t n, const float * norms,
                             const float * weights) {
    return ecl::guarded(ctx, [&] {
        auto & exits = ecl::drafts_of(ctx).taught;
        exits.clear();
        ecl::require(n >= 0 && n < ecl::n_layer_of(ctx), "there are fewer exits than layers");
        if (n == 0) {
            return ECL_OK;
        }
        ecl::require(layers != nullptr && norms != nullptr && weights != nullptr, "an array is a null pointer");
        ecl::require_states(ctx);
        const int64_t n_embd = ecl::n_embd_of(ctx);
        for (int32_t k = 0; k < n; ++k) {
            ecl::require(layers[k] > (k > 0 ? layers[k - 1] : 0) && layers[k] < ecl::n_layer_of(ctx),
                         "exits are after ascending layers, and before the last");
        }
        for (int32_t k = 0; k < n; ++k) {
            exits.push_back(
                ecl::taught_exit::make(layers[k], norms + k * n_embd, weights + k * n_embd * n_embd, n_embd));
            if (exits.back() == nullptr) {
                exits.clear();
                throw ecl::error(ECL_NO_MEMORY, "there is no memory for taught exits");
            }
        }
        return ECL_OK;
    });
}

int32_t ecl_draft_taught(llama_context * ctx, const float * thresholds, int32_t n_exits, const llama_token * pending,
                         int32_t n_pending, llama_pos pos, llama_seq_id seq, int32_t max_draft, llama_token * tokens,
                         float * probabilities, int32_t * layers, float * states, int32_t * reached) {
    return ecl::guarded(ctx, [&] {
        ecl::require(thresholds != nullptr && tokens != nullptr && probabilities != nullptr && layers != nullptr &&
                         states != nullptr && reached != nullptr,
                     "an array is a null pointer");
        return ecl::draft_taught(ctx, thresholds, n_exits, pending, n_pending, pos, seq, max_draft, tokens,
                                 probabilities, layers, states, reached);
    });
}
