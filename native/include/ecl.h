// The C API of the patched llama.cpp: layer masks, drafting, probes.
//
// A *mask* says for each layer which of its two sub-layers a decode step leaves out. It belongs to the
// context and holds for every step until it is changed. As long as a context has no mask, no probe, no
// draft vocabulary, no tree and no kept inner state, a step of llama_decode or ecl_read runs upstream's
// operations; on which CPU kernels is ecl_kernels.h's matter. ecl_step runs them so that each of up to 32
// tokens gets the bits of a one-token step.
//
// A function that can fail returns a negative code of ecl_status.h, and ecl_last_error then says why in one
// line. No function throws, and none ends the process for an argument that is null, negative or too large;
// arrays are trusted to be as long as said here, and handles to be alive. Every call returns
// ECL_BAD_ARGUMENT for a null context and for a null array that it needs.
//
// A context is used by one thread at a time, as upstream's. What a step left (logits, states, streams) is
// there until the context's next step; states and streams are also gone when an adapter or a control vector
// makes the context lay its memory out anew, and are then refused with ECL_NO_OUTPUT.
//
// Common arguments:
//   tokens, n   n tokens of the vocabulary, at least one, at most the context's n_batch
//   pos, seq    the first token's position, and the sequence; positions of a sequence have no gaps
//   i           an output of the last step, as llama_get_logits_ith counts: a token of the batch, or from
//               the end if negative
#ifndef ECL_H
#define ECL_H

#include "ecl_status.h"
#include "llama.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ECL_API LLAMA_API

// ---- The library itself ----

// Changes whenever a function, a struct or a code changes its meaning.
#define ECL_ABI_VERSION 2

// The ECL_ABI_VERSION that the library was built with.
ECL_API int32_t ecl_abi_version(void);

// The structs that a caller allocates.
enum ecl_struct {
    ECL_STRUCT_SAMPLER       = 0,  // ecl_sampler
    ECL_STRUCT_STRETCH       = 1,  // ecl_stretch
    ECL_STRUCT_DRAFT_OPTIONS = 2,  // ecl_draft_options
    ECL_STRUCT_TERMS         = 3,  // ecl_terms (ecl_sources.h)
    ECL_STRUCT_CHOICE        = 4,  // ecl_choice (ecl_sources.h)
    ECL_STRUCT_NEXT_TREE     = 5,  // ecl_next_tree_options
};

// Writes a struct's size in bytes, then each field's offset in the order of its declaration, as far as
// layout[n] has room. Returns how many numbers that are: one more than fields.
ECL_API int32_t ecl_struct_layout(enum ecl_struct which, int32_t * layout, int32_t n);

// Why the context's last call failed, in one line; empty if it did not. Valid until its next call.
ECL_API const char * ecl_last_error(const struct llama_context * ctx);

// Graphs built so far, the microseconds that took, and how many are alive now.
ECL_API int32_t ecl_graph_stats(struct llama_context * ctx, int64_t * n_built, int64_t * build_us,
                                int32_t * n_alive);

// ---- Steps ----

// Which logits a step keeps.
enum ecl_outputs { ECL_OUTPUTS_NONE = 0, ECL_OUTPUTS_LAST = 1, ECL_OUTPUTS_ALL = 2 };

// Bits of one mask byte.
#define ECL_DROP_ATTENTION 1
#define ECL_DROP_FFN       2

// Sets the mask of the steps to come: n_layer bytes of ECL_DROP_* bits, n_layer the model's; NULL for none.
// ECL_NO_MASK if the architecture cannot be served at all; what only the graph can tell, the next step says.
ECL_API int32_t ecl_set_mask(struct llama_context * ctx, const uint8_t * drop, int32_t n_layer);

// Decodes n tokens. On the CPU each of up to 32 tokens gets the bits of a one-token step.
// At most n_outputs_max tokens' logits can be kept. ECL_NO_ROOM: the cache is as it was.
ECL_API int32_t ecl_step(struct llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos,
                         llama_seq_id seq, enum ecl_outputs outputs);

// The same for a prompt: each token gets the bits that it has in upstream's batch of n.
ECL_API int32_t ecl_read(struct llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos,
                         llama_seq_id seq, enum ecl_outputs outputs);

// 1 if trees of tokens can be decoded here with the bits of plain decoding; else 0, and ecl_last_error says
// why. Every attention of the model must be our CPU kernel's: flash attention on, keys and values in F16 or
// F32, no GPU. Builds a graph and runs nothing: the last step's logits stay, its states and streams do not.
ECL_API int32_t ecl_tree_supported(struct llama_context * ctx);

#define ECL_MAX_TREE 32

// Decodes n tokens, at most ECL_MAX_TREE and n_ubatch, of which token i follows token parents[i] < i, or the
// sequence's tokens before pos if parents[i] is -1. A token's logits have the bits of decoding its branch
// token by token. Afterwards the sequence has the first chain: tokens 0, 1, ... as long as each follows the
// one before it, at positions pos, pos + 1, ...; the other tokens leave nothing. While it runs, the n tokens
// take n cells. ECL_NO_TREE where ecl_tree_supported is 0.
ECL_API int32_t ecl_step_tree(struct llama_context * ctx, const llama_token * tokens, const int32_t * parents,
                              int32_t n, llama_pos pos, llama_seq_id seq, enum ecl_outputs outputs);

// ---- Tokens from logits ----

// The likeliest token by the logits of output i (of equal logits the lowest token) and, if probability is not
// NULL, its softmax probability. ECL_NO_OUTPUT if no logits were kept for it.
ECL_API llama_token ecl_argmax(struct llama_context * ctx, int32_t i, float * probability);

// The k likeliest tokens by the logits of output i, likeliest first (of equal logits the lower token), and
// their softmax probabilities: tokens[k], probabilities[k]. Returns how many were written: k, or the size of
// the vocabulary if that is less. ECL_NO_OUTPUT as above.
ECL_API int32_t ecl_top_k(struct llama_context * ctx, int32_t i, int32_t k, llama_token * tokens,
                          float * probabilities);

// How a token is drawn: by llama.cpp's samplers.
struct ecl_sampler {
    struct llama_sampler * chain;    // NULL: the likeliest token, of equals the lowest, whatever the grammar
    struct llama_sampler * grammar;  // is asked about the token that the chain selects, and about all if it
                                     // forbids that one; NULL: none
};

// Draws the next token of the text by output i; chain and grammar accept it. ECL_NO_OUTPUT; ECL_FORBIDDEN if
// the grammar allows no token; ECL_NO_TOKEN if the chain selects none.
ECL_API llama_token ecl_draw(struct llama_context * ctx, int32_t i, const struct ecl_sampler * sampler);

// The same three by a row of logits[n_vocab] that another engine has computed; there is no context, and so no
// ecl_last_error. n_vocab > 0 is the size of the vocabulary that sampler's chain and grammar were made for.
ECL_API llama_token ecl_row_argmax(const float * logits, int32_t n_vocab, float * probability);
ECL_API int32_t     ecl_row_top_k(const float * logits, int32_t n_vocab, int32_t k, llama_token * tokens,
                                  float * probabilities);
ECL_API llama_token ecl_row_draw(const float * logits, int32_t n_vocab, const struct ecl_sampler * sampler);

struct ecl_source;  // ecl_sources.h

// A stretch of plain decoding.
struct ecl_stretch {
    // Set by the caller:
    int32_t                     max_tokens;        // most tokens to draw
    double                      max_seconds;       // after which no step begins, except the first
    struct ecl_source * const * lookups;           // [n_lookups], which take in each token
    int32_t                     n_lookups;
    double                      stop_probability;  // a lookup that expects the next token with at least this
                                                   // probability ends the stretch
    llama_token *               tokens;            // [max_tokens], is written
    double *                    seconds;           // [max_tokens], is written: of each token's step
    // Set by ecl_write:
    int32_t                     n_drawn;
    bool                        found_match;       // whether a lookup has ended it
};

// Decodes n_pending tokens at positions pos, pos + 1, ..., draws the next one, decodes that, and so on, each as
// ecl_step and ecl_draw do, until the stretch or an end-of-text token ends it. The last one drawn is not
// decoded. Returns what the first step or draw returns if it fails; the sequence is then as it was. What
// fails later ends the stretch.
ECL_API int32_t ecl_write(struct llama_context * ctx, const llama_token * pending, int32_t n_pending, llama_pos pos,
                          llama_seq_id seq, const struct ecl_sampler * sampler, struct ecl_stretch * stretch);

// ---- Drafts by some of the layers ----

// How far ecl_draft goes. Take ecl_draft_default_options and change what differs.
struct ecl_draft_options {
    int32_t       max_draft;         // most tokens; default 16
    float         stop_probability;  // a token less likely than this is kept as the last; default 0: never
    float         stop_path;         // drafting goes on while the product of the tokens' chances of acceptance
                                     // is at least this; default 0: always
    float         min_path;          // a token that makes that product less than this is not kept, unless it
                                     // is the first, and ends the draft; default 0: never
    const float * acceptance;        // [n_acceptance]: the chance of acceptance of a token whose probability p
                                     // falls in bin floor(p * n_acceptance)
    int32_t       n_acceptance;      // default 0: the chance is p itself
    bool          full_vocabulary;   // choose among all tokens although there is a draft vocabulary; default false
    bool          keep_cells;        // the cache keeps what was decoded, pending tokens and drafted ones; only
                                     // without a mask; default false
    int32_t       n_runners_up;      // of each drafted token, how many of the next likeliest to write; default 0
    const float * before;            // draft over the bridges of ecl_set_bridges, whose layers the mask drops too:
                                     // the states at the token before each pending one, as ecl_bridge_states gives
                                     // them; default NULL: without bridges
};
ECL_API struct ecl_draft_options ecl_draft_default_options(void);

// Drafts greedily under a mask what follows n_pending tokens at positions pos, pos + 1, ..., one token at a
// time, until the options or an end-of-text token end it. Leaves the mask, and the cache unless keep_cells, as
// they were. drop, n_layer: as in ecl_set_mask. Writes tokens[max_draft * (1 + n_runners_up)] and as many
// probabilities: each drafted token and after it its runners-up, likeliest first (-1 where the vocabulary has
// no more). Returns the number of drafted tokens: fewer where the cache is full, ECL_NO_ROOM if not even one
// fits. ECL_NO_MASK, ECL_NO_DRAFT_VOCABULARY if the graph cannot be served.
ECL_API int32_t ecl_draft(struct llama_context * ctx, const uint8_t * drop, int32_t n_layer,
                          const llama_token * pending, int32_t n_pending, llama_pos pos, llama_seq_id seq,
                          const struct ecl_draft_options * options, llama_token * tokens, float * probabilities);

// Drafts choose among these n tokens only (in any order, at most as many as the vocabulary has; each counts
// once) and compute no other logits; n = 0: among all. On the same device each token's logit has the bits that
// it has among all; probabilities are those of a softmax over these tokens, and so not lower. Copies the tokens'
// rows of the LM head, rounded up to 32 rows, into a buffer of the same kind, which takes milliseconds to
// tenths of a second. ECL_NO_DRAFT_VOCABULARY if the rows cannot be read, a token is outside the vocabulary, or
// memory is short; the context is then without a draft vocabulary. What only the graph can tell, the next draft
// says.
ECL_API int32_t ecl_set_draft_vocabulary(struct llama_context * ctx, const llama_token * tokens, int32_t n);

// Drafts as ecl_draft does with the layers from exit_layer on dropped: an early exit after exit_layer layers,
// 0 < exit_layer < n_layer, with the model's own norm and head. n_pending is at most n_ubatch. Writes
// tokens[max_draft], probabilities[max_draft], and what leaves layer exit_layer - 1 for each of the pending and
// drafted tokens, the last one included: states[(n_pending + max_draft) * n_embd]. The cache is as it was.
// Returns the number of drafted tokens. ECL_NO_MASK if the architecture cannot be served.
ECL_API int32_t ecl_draft_exit(struct llama_context * ctx, int32_t exit_layer, const llama_token * pending,
                               int32_t n_pending, llama_pos pos, llama_seq_id seq, int32_t max_draft,
                               float stop_probability, llama_token * tokens, float * probabilities,
                               float * states);

// Decodes the first n of the tokens (pending and drafted) of the context's last ecl_draft_exit and keeps all
// logits, which have the bits of ecl_step's. The layers before the exit are not run again: their results are
// states[n * n_embd], as that call gave them, and their keys and values are still in the cells that these
// positions get again. Where that is not certain (other tokens, a step in between, other cells, a mask, another
// adapter) it is a full step. What the caller itself does to the cache in between (llama_memory_clear, loading a
// state) is not seen. reused becomes 1 or 0, and says which it was.
ECL_API int32_t ecl_verify_exit(struct llama_context * ctx, int32_t exit_layer, const llama_token * tokens,
                                const float * states, int32_t n, llama_pos pos, llama_seq_id seq,
                                int32_t * reused);

// ---- Taught early exits ----

// Sets n taught exits (DSSD, arXiv 2407.21082), after layers[0] < layers[1] < ... layers, from 1 to n_layer - 1.
// Exit k takes the residual stream there, divided by its root mean square, times norms[k * n_embd + j], by
// the matrix weights[k * n_embd * n_embd], row by row, to the last hidden state, and that by the rows of the LM
// head that the draft vocabulary has to logits. n = 0: none. ECL_NO_MASK if the model's residual stream cannot be
// handed from step to step.
ECL_API int32_t ecl_set_taught_exits(struct llama_context * ctx, const int32_t * layers, int32_t n,
                                     const float * norms, const float * weights);

// Drafts what follows n_pending tokens at positions pos, pos + 1, ... by the taught exits: each token by the first
// whose distribution has an entropy, in nats, of at most its threshold; a token that none is sure of ends the
// draft, as does an end-of-text token. thresholds[n_exits], one for each taught exit; one below 0 is not asked.
// n_pending + max_draft is at most n_ubatch. Writes tokens[max_draft], their probabilities[max_draft] and the
// exits' layers[max_draft]. The cache is as it was. Returns the number of drafted tokens.
// reached becomes the layers that all pending and drafted tokens were run through, and states[(n_pending +
// max_draft) * n_embd] what leaves them: ecl_verify_exit goes on from there, with reached as its exit_layer. 0: it
// cannot. ECL_NO_EXITS if there are none or no draft vocabulary, or the LM head is not in memory that the CPU
// computes in.
ECL_API int32_t ecl_draft_taught(struct llama_context * ctx, const float * thresholds, int32_t n_exits,
                                 const llama_token * pending, int32_t n_pending, llama_pos pos, llama_seq_id seq,
                                 int32_t max_draft, llama_token * tokens, float * probabilities, int32_t * layers,
                                 float * states, int32_t * reached);

// Steps from now on keep what enters each layer, for ecl_kept_stream, or no longer; they keep no inner state
// meanwhile. ECL_NO_MASK, here or of such a step, if the architecture does not show it.
ECL_API int32_t ecl_keep_streams(struct llama_context * ctx, bool keep);

// What entered a layer at the token whose logits are output i of the last step, divided by its root mean square:
// state[n_embd]. ECL_NO_OUTPUT as ecl_inner_state.
ECL_API int32_t ecl_kept_stream(struct llama_context * ctx, int32_t layer, int32_t i, float * state);

// ---- Bridges over dropped layers ----

// Sets maps in the place of blocks of dropped layers, for drafts that ask for them (ecl_draft_options.before):
// layers[2 * n] has the first layer of each block and the first one after it, in order; blocks do not touch each
// other, and none has the last layer. weights[n * n_embd * (3 * n_embd + 1)], block by block and row by row: the
// map gives, over the root mean square of what enters the block, what the block adds to it; it takes what enters
// the block, then what entered and left it at the token before, each over its own root mean square, and 1. Full
// steps over up to 32 tokens keep these states from then on. n = 0: none. ECL_NO_MASK if the architecture cannot
// be served, its layers are not on the CPU, or memory is short.
ECL_API int32_t ecl_set_bridges(struct llama_context * ctx, const int32_t * layers, const float * weights, int32_t n);

// The states that the bridges need of some tokens of the last step, a full one, by their place in the step: for
// each row what entered each block and what left it: states[n_rows * 2 * n * n_embd]. ECL_NO_OUTPUT if that step
// kept none: it was masked, or over more than 32 tokens.
ECL_API int32_t ecl_bridge_states(struct llama_context * ctx, const int32_t * rows, int32_t n_rows, float * states);

// ---- The next-state head ----

// Sets a next-state head: a matrix of 2 * n_embd rows and 3 * n_embd columns, n_weights in all, row by row. It
// takes the hidden state which a token was drawn from, the inner state of the same place and the token's
// embedding, in this order, to the hidden and the inner state of the next step. NULL for none. ECL_NO_NEXT_STATE if the
// model's embeddings have another width, or memory is short.
ECL_API int32_t ecl_set_next_state(struct llama_context * ctx, const float * weights, int64_t n_weights);

// The hidden state that the logits of output i of the last step were computed from, as the LM head takes it:
// state[n_embd]. ECL_NO_OUTPUT if no logits were kept for it or the state is gone; ECL_NO_NEXT_STATE if the
// graph has no such state.
ECL_API int32_t ecl_output_state(struct llama_context * ctx, int32_t i, float * state);

// Steps from now on keep the inner state of a layer, for ecl_inner_state; -1: of none. A layer whose input the
// graph does not show is no error here.
ECL_API int32_t ecl_keep_inner_state(struct llama_context * ctx, int32_t layer);

// The inner state at the token whose logits are output i of the last step: what entered the layer, divided by
// its root mean square: state[n_embd]. Steps over more than 32 tokens, masked ones and drafts in a draft
// vocabulary have none: ECL_NO_OUTPUT.
ECL_API int32_t ecl_inner_state(struct llama_context * ctx, int32_t i, float * state);

// A token's row of the embedding table: embedding[n_embd]. ECL_NO_NEXT_STATE if it cannot be read.
ECL_API int32_t ecl_token_embedding(struct llama_context * ctx, llama_token token, float * embedding);

// A token's row of the LM head: weights[n_embd]. ECL_NO_NEXT_STATE if it cannot be read.
ECL_API int32_t ecl_lm_head_row(struct llama_context * ctx, llama_token token, float * weights);

// The k tokens of the draft vocabulary that are likeliest to follow a token drawn from a state, by the
// next-state head and the LM head, likeliest first, and their probabilities by a softmax over the draft
// vocabulary: tokens[k], probabilities[k]. state: ecl_output_state's, then ecl_inner_state's, 2 * n_embd floats.
// Returns how many were written. What the last step left stays. ECL_NO_NEXT_STATE if there is no head or no
// draft vocabulary, or the LM head is not in memory that the CPU computes in.
ECL_API int32_t ecl_next_tokens(struct llama_context * ctx, const float * state, llama_token token, int32_t k,
                                llama_token * tokens, float * probabilities);

// How far ecl_next_tree goes.
struct ecl_next_tree_options {
    int32_t        max_depth;   // most levels, at most ECL_MAX_TREE
    int32_t        max_nodes;   // most tokens; the likeliest are kept
    int32_t        n_bins;      // of chances; 0: the chance of a token is its probability
    double         min_path;    // a token that is accepted together with its ancestors with less chance is left out
    double         min_expand;  // the least such chance of a level's likeliest token for asking another level
    double         min_join;    // the least such chance of the others of a level to be asked about together with it
    const double * chances;     // n_bins pairs (a, b): a token of the probability p in bin floor(p * n_bins) is
                                // accepted with the chance a + b * p
};

// As ecl_next_tokens, several levels of tokens: the head goes on from its own predictions, at most 4 of a level.
// Writes tokens, probabilities (of a token given its ancestors) and parents (an earlier index; -1: it follows
// `token`), max_nodes of each, likeliest path first. Returns how many were written.
ECL_API int32_t ecl_next_tree(struct llama_context * ctx, const float * state, llama_token token,
                              const struct ecl_next_tree_options * options, llama_token * tokens,
                              float * probabilities, int32_t * parents);

// ---- Searches for skip sets ----

// Where a probe reads the residual stream.
enum ecl_stream { ECL_BEFORE_ATTENTION = 0, ECL_AFTER_ATTENTION = 1, ECL_AFTER_FFN = 2 };

// One step of the full model, over at most n_ubatch tokens, that also measures every sub-layer's output:
// attention[l] and ffn[l], n_layer of each, become its confidence, 1 - H / log(n_embd) with the entropy H in
// nats of a softmax over it, averaged over the step's tokens (in the last layer over the last token alone); NaN
// for a layer without that sub-layer. Keeps the last token's logits. ECL_NO_MASK if it cannot be served.
ECL_API int32_t ecl_probe(struct llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos,
                          llama_seq_id seq, float * attention, float * ffn, int32_t n_layer);

// The residual stream around one layer in the step that ecl_probe ran last, token by token: n_tokens * n_embd
// floats, for which out has room for n_floats. Returns the number of tokens: after the last layer's attention
// that is 1. ECL_NO_OUTPUT if this architecture has no such place, or the stream is gone.
ECL_API int32_t ecl_probe_stream(struct llama_context * ctx, int32_t layer, enum ecl_stream where, float * out,
                                 int32_t n_floats);

// Which residual streams ecl_branches gives, if not that of one layer as it leaves it.
#define ECL_STREAM_NONE (-1)
#define ECL_STREAM_ALL  (-2)  // of every layer as it enters it

// Runs n tokens at positions pos, pos + 1, ... n_branches times side by side under a mask, each branch after
// the first pos tokens of sequence seq, whose own cells from pos on it does not see. n_branches * n is at most
// n_ubatch; sequences seq + 1 to seq + n_branches must be unused. drop, n_layer: as in ecl_set_mask. states: what
// each token of each branch starts from instead of its embedding, n_branches * n * n_embd floats, branch by
// branch; NULL for none. The branches' logits are kept as outputs says, branch by branch (ECL_OUTPUTS_LAST: of
// each branch). stream: the layer whose stream to write, as it leaves the layer, or one of the above. Each stream
// has n_branches * n * n_embd floats; what leaves the last layer can be had with ECL_OUTPUTS_ALL only. The
// sequence stays as it is. ECL_NO_ROOM if the cache has no room; ECL_NO_MASK if it cannot be served.
ECL_API int32_t ecl_branches(struct llama_context * ctx, const uint8_t * drop, int32_t n_layer,
                             const llama_token * tokens, const float * states, int32_t n, int32_t n_branches,
                             llama_pos pos, llama_seq_id seq, int32_t stream, enum ecl_outputs outputs,
                             float * streams);

#ifdef __cplusplus
}
#endif

#endif
