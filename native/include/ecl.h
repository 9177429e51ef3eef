// The C API of the patched llama.cpp: layer masks, drafting, probes.
//
// A *mask* says for each layer which of its two sub-layers a decode step leaves out. It belongs to
// the context and holds for every step until it is changed; without one, every function of llama.h
// does what it does upstream, to the bit.
//
// Functions that return a status return 0 on success and otherwise the code of llama_decode:
// 1 no room in the KV cache, 2 aborted, negative failed. ecl_last_error says why, in one line.
// A context is used by one thread at a time, as upstream's.
#ifndef ECL_H
#define ECL_H

#include "llama.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ECL_API LLAMA_API

// Bits of one mask byte.
#define ECL_DROP_ATTENTION 1
#define ECL_DROP_FFN       2

// Which logits a step keeps.
enum ecl_outputs { ECL_OUTPUTS_NONE = 0, ECL_OUTPUTS_LAST = 1, ECL_OUTPUTS_ALL = 2 };

// Where a probe reads the residual stream.
enum ecl_stream { ECL_BEFORE_ATTENTION = 0, ECL_AFTER_ATTENTION = 1, ECL_AFTER_FFN = 2 };

// Sets the mask of the steps to come: n_layer bytes of ECL_DROP_* bits, or NULL for none.
// -1 if the architecture cannot be served at all; what only the graph can tell, the next step says.
ECL_API int32_t ecl_set_mask(struct llama_context * ctx, const uint8_t * drop, int32_t n_layer);

// Decodes n tokens at positions pos, pos + 1, ... of one sequence. On the CPU each of up to 32 tokens
// gets the bits of a one-token step.
ECL_API int32_t ecl_step(struct llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos,
                         llama_seq_id seq, enum ecl_outputs outputs);

// The same for a prompt, whose tokens' bits are those of a batch of this size.
ECL_API int32_t ecl_read(struct llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos,
                         llama_seq_id seq, enum ecl_outputs outputs);
// 1 if trees of tokens can be decoded here with the bits of plain decoding; else 0, and ecl_last_error
// says why. Every attention of the model must be our CPU kernel's: flash attention on, keys and values
// in F16 or F32, no GPU. Builds a graph and runs nothing: the last step's logits stay, what a
// probe left does not.
ECL_API int32_t ecl_tree_supported(struct llama_context * ctx);

#define ECL_MAX_TREE 32

// Decodes n tokens, at most ECL_MAX_TREE, of which token i follows token parents[i] < i, or the
// sequence's tokens before pos if parents[i] is -1. A token's logits have the bits of decoding its
// branch token by token. Afterwards the sequence has the first row: tokens 0, 1, ... as long as each
// follows the one before it, at positions pos, pos + 1, ...; the other tokens leave nothing.
// While it runs, the n tokens take n cells.
ECL_API int32_t ecl_step_tree(struct llama_context * ctx, const llama_token * tokens, const int32_t * parents,
                              int32_t n, llama_pos pos, llama_seq_id seq, enum ecl_outputs outputs);

// The most likely token by the logits of output i (as llama_get_logits_ith counts) and, if
// probability is not NULL, its softmax probability. Equal logits: the lowest token.
ECL_API llama_token ecl_argmax(struct llama_context * ctx, int32_t i, float * probability);

// The k most likely tokens by the logits of output i, in descending order (equal logits: the lower
// token first), and their softmax probabilities. Returns how many were written (k, or the size of the
// vocabulary if that is less), or -1 if no logits were kept for output i.
ECL_API int32_t ecl_top_k(struct llama_context * ctx, int32_t i, int32_t k, llama_token * tokens,
                          float * probabilities);

// How a token is drawn: by llama.cpp's samplers. chain NULL: the likeliest, of equals the first. A grammar,
// if not NULL, is asked about the token that the chain selects, and about all if it forbids that one.
struct ecl_sampler {
    struct llama_sampler * chain;
    struct llama_sampler * grammar;
};

// The next token of the text, by output i of the last step; -1 if there is none, and ecl_last_error says why.
ECL_API llama_token ecl_draw(struct llama_context * ctx, int32_t i, const struct ecl_sampler * sampler);

#define ECL_NO_TOKEN (-103)

struct ecl_source;  // ecl_sources.h

// Some tokens of plain decoding.
struct ecl_stretch {
    int32_t                     n_max;        // most tokens
    double                      max_seconds;  // no step begins after so long, but for the first
    struct ecl_source * const * following;    // [n_following] lookups, which take in each token
    int32_t                     n_following;
    double                      expected;     // with this probability of the next token one of them ends it
    llama_token *               tokens;       // [n_max] that were drawn
    double *                    seconds;      // [n_max] of each one's step
    int32_t                     n_drawn;
    bool                        called;       // whether a lookup has ended it
};

// Decodes n_pending tokens at positions pos, pos + 1, ..., draws the next one, decodes that, and so on, each as
// ecl_step and ecl_draw do, until the stretch or an end-of-text token ends it. The last one drawn is not
// decoded. Returns the status of the first step, or ECL_NO_TOKEN if no token can be drawn after it; the
// sequence is then as it was. What fails later ends the stretch.
ECL_API int32_t ecl_write(struct llama_context * ctx, const llama_token * pending, int32_t n_pending, llama_pos pos,
                          llama_seq_id seq, const struct ecl_sampler * sampler, struct ecl_stretch * stretch);

// How far ecl_draft goes. Set every field through ecl_draft_default_options and change what differs.
struct ecl_draft_options {
    int32_t n_max;             // most tokens; default 16
    float   stop_probability;  // a token less likely than this is kept as the last; default 0: never
    float   stop_path;         // drafting goes on while the product of the tokens' chances of acceptance
                               // is at least this; default 0: always
    float   least_path;        // a token that makes that product less than this is not kept, unless it is
                               // the first, and ends the draft; default 0: never
    const float * acceptance;  // chance of acceptance of a token whose probability p falls in bin
                               // floor(p * n_acceptance); default NULL: p itself
    int32_t n_acceptance;      // bins; default 0
    bool    full_vocabulary;   // leave the draft vocabulary alone; default false
    bool    keep;              // the cache keeps what was read, pending tokens and drafted ones; only
                               // without a mask; default false
    int32_t n_runners_up;      // of each drafted token, how many of the next likeliest to write;
                               // default 0
};
ECL_API struct ecl_draft_options ecl_draft_default_options(void);

// Drafts greedily under a mask what follows n_pending tokens at positions pos, pos + 1, ..., one token
// at a time, until the options or an end-of-text token end it. Leaves the cache, unless options->keep,
// and the mask as they were. Writes at most options->n_max tokens and their probabilities, each with its
// runners-up after it, likeliest first (-1 where the vocabulary has no more): n_max * (1 + n_runners_up)
// of both. Returns the number of drafted tokens, or a negative status (1 and 2 above as -101 and -102).
ECL_API int32_t ecl_draft(struct llama_context * ctx, const uint8_t * drop, int32_t n_layer,
                          const llama_token * pending, int32_t n_pending, llama_pos pos, llama_seq_id seq,
                          const struct ecl_draft_options * options, llama_token * tokens, float * probabilities);

// Drafts choose among these n tokens only (each counts once, in any order) and compute no other
// logits; n = 0: among all. Each token's logit has the bits that it has among all; probabilities are
// those of a softmax over these tokens, and so a little higher. Copies the tokens' rows of the LM head
// (n times its bytes a row, rounded up to 32 rows) next to it, which takes milliseconds to tenths of a
// second. -1 if the head's rows cannot be had or there is no memory, and the context is then without
// a draft vocabulary; what only the graph can tell, the next draft says.
ECL_API int32_t ecl_set_draft_vocabulary(struct llama_context * ctx, const llama_token * tokens, int32_t n);

// The logits of the draft vocabulary, by ascending token, that the last step of a draft computed; NULL
// if it had none. Their number is that of the vocabulary. Valid until the next call on the context.
ECL_API const float * ecl_draft_logits(const struct llama_context * ctx);

// A next-state head: a matrix of n_embd rows and 3 * n_embd columns that takes the hidden state which a
// token was drawn from, followed by the inner state of the same place and the token's embedding, to the
// hidden state of the next step. NULL for none.
ECL_API int32_t ecl_set_next_state(struct llama_context * ctx, const float * weights);

// The hidden state (n_embd floats) that the logits of output i of the last step were computed from, as
// the LM head takes it.
ECL_API int32_t ecl_output_state(struct llama_context * ctx, int32_t i, float * state);

// Steps from now on keep the inner state of a layer, for ecl_inner_state; -1: of none. A layer without
// one is no error here.
ECL_API int32_t ecl_keep_inner_state(struct llama_context * ctx, int32_t layer);

// The inner state (n_embd floats) at the token whose logits are output i of the last step: what entered
// the layer, divided by its root mean square. Steps over more than 32 tokens and masked ones have none.
ECL_API int32_t ecl_inner_state(struct llama_context * ctx, int32_t i, float * state);

// A token's row of the embedding table: n_embd floats.
ECL_API int32_t ecl_token_embedding(struct llama_context * ctx, llama_token token, float * embedding);

// The k tokens of the draft vocabulary that are likeliest to follow a token drawn from a state (n_embd
// floats of the hidden state, then as many of the inner one), by the
// next-state head and the LM head, likeliest first, and their probabilities by a softmax over the draft
// vocabulary. Returns how many were written, or -1. The last step's logits stay.
ECL_API int32_t ecl_next_tokens(struct llama_context * ctx, const float * state, llama_token token, int32_t k,
                                llama_token * tokens, float * probabilities);

// One step of the full model that also measures every sub-layer's output, where the tensors live:
// attention[l] and ffn[l] become its confidence, 1 - H / log(n_embd), averaged over the step's tokens
// (the last layer: over its last token alone), NaN for a layer without that sub-layer.
// n may not exceed the context's n_ubatch.
ECL_API int32_t ecl_probe(struct llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos,
                          llama_seq_id seq, float * attention, float * ffn, int32_t n_layer);

// The residual stream around one layer in the step that ecl_probe ran last: n_tokens * n_embd floats,
// token by token. Returns the number of tokens, or -1 if this architecture has no such place.
// Valid until the context's next step.
ECL_API int32_t ecl_probe_stream(struct llama_context * ctx, int32_t layer, enum ecl_stream where, float * out,
                                 int32_t n_floats);

// Decodes n tokens of which the first layers are done already: the first layer that the mask does not
// drop starts from states (n * n_embd floats, token by token) and not from the tokens' embeddings.
// -1 if the architecture hands more than the residual stream from layer to layer.
// n may not exceed the context's n_ubatch.
ECL_API int32_t ecl_step_states(struct llama_context * ctx, const llama_token * tokens, const float * states,
                                int32_t n, llama_pos pos, llama_seq_id seq, enum ecl_outputs outputs);

// Drafts as ecl_draft does with the layers from exit_layer on dropped (an early exit after exit_layer
// layers, 0 < exit_layer < n_layer, with the model's own norm and head). states becomes what leaves
// those layers for every one of the n_pending + n tokens, the last drafted one included
// ((n_pending + n_max) * n_embd floats). The cache's positions are given back.
ECL_API int32_t ecl_draft_exit(struct llama_context * ctx, int32_t exit_layer, const llama_token * pending,
                               int32_t n_pending, llama_pos pos, llama_seq_id seq, int32_t n_max,
                               float stop_probability, llama_token * tokens, float * probabilities,
                               float * states);

// Decodes the first n of the tokens (pending and drafted) of the context's last ecl_draft_exit, keeping
// all logits. The layers before the exit are not run again: their results are states, as that call
// gave them, and their keys and values, which still are in the cells that these positions get again.
// Where that is not certain (other tokens, another step in between, other cells, a mask is set) it is a
// full step. reused says which it was.
ECL_API int32_t ecl_verify_exit(struct llama_context * ctx, int32_t exit_layer, const llama_token * tokens,
                                const float * states, int32_t n, llama_pos pos, llama_seq_id seq,
                                int32_t * reused);

// Which residual streams ecl_branches gives, if not that of one layer as it leaves it.
#define ECL_STREAM_NONE (-1)
#define ECL_STREAM_ALL  (-2)  // of every layer as it enters it

// Runs n tokens at positions pos, pos + 1, ... n_branches times side by side under a mask, each branch
// after the first pos tokens of sequence seq, whose own cells from pos on it does not see. states, if not
// NULL, is what each token of each branch starts from (n_branches * n * n_embd floats, branch by branch).
// The branches' logits are kept as outputs says, branch by branch ("last": of each branch). The streams
// asked for are written layer by layer, n_branches * n * n_embd floats each; what leaves the last layer
// can be had with ECL_OUTPUTS_ALL only. The sequence stays as it is; sequences seq + 1 to seq + n_branches must be unused.
// n_branches * n may not exceed the context's n_ubatch.
ECL_API int32_t ecl_branches(struct llama_context * ctx, const uint8_t * drop, int32_t n_layer,
                             const llama_token * tokens, const float * states, int32_t n, int32_t n_branches,
                             llama_pos pos, llama_seq_id seq, int32_t stream, enum ecl_outputs outputs,
                             float * streams);

// Graphs built so far, the time that took in microseconds, and how many are alive now.
ECL_API void ecl_graph_stats(const struct llama_context * ctx, int64_t * n_built, int64_t * build_us,
                             int32_t * n_alive);

// Why the last call failed, in one line; empty if it did not.
ECL_API const char * ecl_last_error(const struct llama_context * ctx);

#ifdef __cplusplus
}
#endif

#endif
