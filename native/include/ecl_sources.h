// The C API of the candidate sources: tokens proposed from what was seen before, without a step of any
// model, and the choice of those that are worth verifying. Needs no model and no context.
//
// A function that returns a number returns a negative code of ecl_status.h if it fails: ECL_BAD_ARGUMENT for a
// null array, a number out of range or a source of another kind, ECL_NO_MEMORY without memory. Arrays are
// trusted to be as long as said here, and handles to be alive. A source is used by one thread at a time.
#ifndef ECL_SOURCES_H
#define ECL_SOURCES_H

#include "ecl.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ecl_source;

// A source that knows what followed earlier in this text and in those before it. Where a new text would make
// the known tokens more than max_tokens, it replaces them. The three *_new functions return NULL for
// arguments out of range and without memory.
ECL_API struct ecl_source * ecl_lookup_new(int32_t max_tokens);

// A source that knows which tokens the full model found likely after the same tokens before, for at most
// `capacity` keys in each of its two tables; those seen longest ago are replaced first.
ECL_API struct ecl_source * ecl_recycling_new(int32_t capacity);

// A source that proposes out of one tree of n tokens, of which token i follows token
// parents[i] < i, or the text itself if that is -1, with probabilities[i] in (0, 1]. Siblings are
// different tokens.
ECL_API struct ecl_source * ecl_given_new(const llama_token * tokens, const double * probabilities,
                                          const int32_t * parents, int32_t n);

// Replaces the tree of a source made by ecl_given_new. Returns 0, or ECL_BAD_ARGUMENT and leaves the tree as it was.
ECL_API int32_t ecl_given_set(struct ecl_source * source, const llama_token * tokens, const double * probabilities,
                              const int32_t * parents, int32_t n);

ECL_API void ecl_source_free(struct ecl_source * source);

// The likeliest tokens to follow the text, as a tree of at most max_draft: none less likely than
// min_probability together with its ancestors, and with chain_only at most one successor for each. A token's
// likeliest child comes right after it. Writes tokens, probabilities and parents, max_draft of each. Returns
// how many were written.
ECL_API int32_t ecl_source_candidates(const struct ecl_source * source, int32_t max_draft, double min_probability,
                                      bool chain_only, llama_token * tokens, double * probabilities,
                                      int32_t * parents);

// Lookup: begins another text of n tokens; no match spans two. Returns how many tokens are known, of all texts.
ECL_API int32_t ecl_lookup_restart(struct ecl_source * source, const llama_token * tokens, int32_t n);

// Lookup: the text goes on with n tokens. Returns the same.
ECL_API int32_t ecl_lookup_extend(struct ecl_source * source, const llama_token * tokens, int32_t n);

// Lookup: the text goes on with one token. Returns the probability of the likeliest one to follow it; 0 if
// none is known.
ECL_API double ecl_lookup_follow(struct ecl_source * source, llama_token token);

// Successors of each key of recycling's tables, and how many kinds of successors there are.
#define ECL_RECYCLING_WIDTH 8
#define ECL_RECYCLING_KINDS 30

// Recycling: sets the last two tokens of the text, -1 where there is none. Returns 0.
ECL_API int32_t ecl_recycling_observe(struct ecl_source * source, llama_token before, llama_token last);

// Recycling: learns from n + 2 tokens of the text, of which the first may be -1 for none. logits[i], n_vocab
// of them, are the full model's after token i + 1: n pointers. Returns 0.
ECL_API int32_t ecl_recycling_learn(struct ecl_source * source, const llama_token * text, int32_t n,
                                    const float * const * logits, int32_t n_vocab);

// Recycling's tables: successors by the last token, and by the last two.
enum ecl_recycling_table { ECL_BY_ONE = 0, ECL_BY_TWO = 1 };

// The number of a table's keys.
ECL_API int32_t ecl_recycling_size(const struct ecl_source * source, enum ecl_recycling_table table);

// Copies a table, the key seen longest ago first: its keys, each one's successors and their kinds
// (ECL_RECYCLING_WIDTH of each), and of each kind how many came true and how many were seen
// (ECL_RECYCLING_KINDS of each). Returns the number of keys, ecl_recycling_size's.
ECL_API int32_t ecl_recycling_save(const struct ecl_source * source, enum ecl_recycling_table table, int64_t * keys,
                                   llama_token * tokens, uint8_t * kinds, double * came_true, double * seen);

// Replaces a table by such a copy of n keys. Returns 0; or ECL_BAD_ARGUMENT, and leaves the table alone, if this
// is no copy of a table of a model with n_vocab tokens.
ECL_API int32_t ecl_recycling_load(struct ecl_source * source, enum ecl_recycling_table table, int32_t n_vocab,
                                   int32_t n, const int64_t * keys, const llama_token * tokens,
                                   const uint8_t * kinds, const double * came_true, const double * seen);

// What candidates are chosen by.
struct ecl_terms {
    double          tokens_per_second;  // tokens that a second is worth
    double          loss_budget;        // seconds that may be lost if no candidate is accepted
    double          min_chance;         // of a candidate and its ancestors to be accepted
    double          t1;                 // seconds of a one-token step
    const double *  v;                  // [n_v + 1]: a step over n tokens takes v[n] * t1 seconds
    const int32_t * sizes;              // [n_sizes]: how many tokens may be verified together, ascending, at most
                                        // ECL_MAX_TREE
    int32_t         n_v;
    int32_t         n_sizes;
    int32_t         n_pending;          // tokens that are verified before the candidates
    int32_t         max_draft;          // most candidates
    int32_t         max_per_source;     // most candidates of one source
    int32_t         n_bins;             // of chances
    bool            chain_only;         // no trees
};

// Candidates, parents before their children: first the likeliest chain, then the rest.
struct ecl_choice {
    llama_token tokens[ECL_MAX_TREE];
    int32_t     parents[ECL_MAX_TREE];        // an earlier candidate; -1: it follows the text itself
    int32_t     sources[ECL_MAX_TREE];        // index of who proposed it; of several, the surest
    double      probabilities[ECL_MAX_TREE];  // by that source
    double      gain;                         // expected accepted tokens less what their time is worth, in tokens
};

// Chooses the tree of candidates of several sources that is worth most, if any is worth its time. chances[s]
// has n_bins pairs (a, b): a token that source s gives a probability p in bin floor(p * n_bins) is accepted
// with the chance a + b * p. Sources are taken to err independently: a token that several propose is accepted
// unless all of them are wrong, and one that an earlier source does not propose can only have the probability
// that its proposals leave. Returns the number of candidates.
ECL_API int32_t ecl_choose(const struct ecl_source * const * sources, const double * const * chances,
                           int32_t n_sources, const struct ecl_terms * terms, struct ecl_choice * choice);

#ifdef __cplusplus
}
#endif

#endif
