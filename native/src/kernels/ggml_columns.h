// A small batch's tokens get the bits of a one-token step.
//
// libllama marks the operations of ecl_step's graphs over a few tokens (ecl_mark_small_batch). Those
// that our kernels serve keep the promise by themselves; any other, whose result depends on the batch
// in upstream's hands, is run token by token through upstream's own path for one token. Steps over
// one token and prompts are not marked, and stay upstream's to the bit.
#pragma once

#include "ggml.h"

#include <stdbool.h>

struct ggml_compute_params;

#ifdef __cplusplus
extern "C" {
#endif

// Batches up to this many tokens are promised the one-token bits.
#define ECL_SMALL_BATCH 32

// Where marks are kept: parameters that these operations, and input tensors, have no use for.
enum { ECL_PARAM_TOKENS = 15, ECL_PARAM_USED_CELLS = 14, ECL_PARAM_CELLS_PAD = 13 };

// Marks an operation of a step over 2 to ECL_SMALL_BATCH tokens.
static inline void ecl_mark_small_batch(struct ggml_tensor * op, int32_t n_tokens) {
    if (op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_MUL_MAT_ID || op->op == GGML_OP_FLASH_ATTN_EXT) {
        op->op_params[ECL_PARAM_TOKENS] = n_tokens;
    }
}

// Says of an attention mask that `used` cells were there before the batch, or that this is unknown (0),
// and that a step reads a multiple of `pad` cells.
static inline void ecl_note_cells(struct ggml_tensor * mask, uint32_t used, uint32_t pad) {
    mask->op_params[ECL_PARAM_USED_CELLS] = (int32_t) used;
    mask->op_params[ECL_PARAM_CELLS_PAD]  = (int32_t) pad;
}

// Whether the operation is marked, and upstream's batches are not asked for as they are.
bool ecl_follows_one_token(const struct ggml_tensor * op);

// Whether it must then be run token by token.
bool ecl_goes_by_columns(const struct ggml_tensor * op);

// Called by every thread: runs `forward` on each token's part in turn.
void ecl_by_columns(struct ggml_compute_params * params, struct ggml_tensor * op,
                    void (*forward)(struct ggml_compute_params *, struct ggml_tensor *));

#ifdef __cplusplus
}
#endif
