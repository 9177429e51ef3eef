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

// The most likely token by the logits of output i (as llama_get_logits_ith counts) and, if
// probability is not NULL, its softmax probability. Equal logits: the lowest token.
ECL_API llama_token ecl_argmax(struct llama_context * ctx, int32_t i, float * probability);

// Drafts greedily under a mask what follows n_pending tokens at positions pos, pos + 1, ..., one token
// at a time, until n_max tokens, a token whose probability is under stop_probability (it is kept, as
// the last), or an end-of-text token. Leaves the cache and the mask as they were. Writes the tokens and their probabilities;
// returns their number, or a negative status (1 and 2 above as -101 and -102).
ECL_API int32_t ecl_draft(struct llama_context * ctx, const uint8_t * drop, int32_t n_layer,
                          const llama_token * pending, int32_t n_pending, llama_pos pos, llama_seq_id seq,
                          int32_t n_max, float stop_probability, llama_token * tokens, float * probabilities);

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

// Graphs built so far, the time that took in microseconds, and how many are alive now.
ECL_API void ecl_graph_stats(const struct llama_context * ctx, int64_t * n_built, int64_t * build_us,
                             int32_t * n_alive);

// Why the last call failed, in one line; empty if it did not.
ECL_API const char * ecl_last_error(const struct llama_context * ctx);

#ifdef __cplusplus
}
#endif

#endif
