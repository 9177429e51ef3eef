// Marks that libllama leaves in a built graph for the backends (mark_graph.h).
//
// A *small batch* is a step over 2 to ECL_SMALL_BATCH tokens of which each must get the bits of a
// one-token step: one that verifies a draft. Its matrix products and attentions are marked. Backends
// that heed the marks: our CPU kernels by their order of operations, upstream's CPU kernels by running
// token by token (token_by_token.h), CUDA by the one-token kernels' order of sums
// (native/patches/ggml-cuda-small-batches.patch). All other steps stay upstream's.
#pragma once

#include "ggml.h"

#include <assert.h>
#include <stdbool.h>

#define ECL_SMALL_BATCH 32

// Slots of op_params that GGML_OP_MUL_MAT, GGML_OP_MUL_MAT_ID and GGML_OP_FLASH_ATTN_EXT leave at zero.
enum ecl_mark {
    ECL_MARK_KERNELS = 12,  // of an attention: not 0 if our CPU kernel computes it where it can
    ECL_MARK_TOKENS  = 13,  // of a small batch: how many of its tokens the operation is over
    ECL_MARK_AXIS    = 14,  // the axis of src[1] (attention: of src[0]) along which they lie
    ECL_MARK_WIDTH   = 15,  // entries of the axis that each has (several heads, for example)
};

// Slots of an attention mask: an input, which has no parameters of its own.
enum ecl_mask_mark {
    ECL_MASK_USED_CELLS = 14,  // cells in use before the batch; 0: not known
    ECL_MASK_CELLS_PAD  = 15,  // steps read a multiple of so many cells
};

// Sources of GGML_OP_FLASH_ATTN_EXT beyond upstream's five, where the batch is a tree of tokens: token t
// finds in cells[d] the keys and values of token paths[t][d].
enum ecl_attention_source {
    ECL_ATTENTION_CELLS = 5,  // I64 [n_tokens]: where the tokens are stored
    ECL_ATTENTION_PATHS = 6,  // I32 [n_tokens, n_tokens]
};

static_assert((ECL_MARK_WIDTH + 1) * sizeof(int32_t) <= GGML_MAX_OP_PARAMS, "the marks fit in op_params");
static_assert((ECL_MASK_CELLS_PAD + 1) * sizeof(int32_t) <= GGML_MAX_OP_PARAMS, "so do a mask's");
static_assert(ECL_ATTENTION_PATHS < GGML_MAX_SRC, "a tree's sources fit in src");

static inline bool ecl_in_small_batch(const struct ggml_tensor * op) {
    return (op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_MUL_MAT_ID || op->op == GGML_OP_FLASH_ATTN_EXT) &&
           op->op_params[ECL_MARK_TOKENS] > 1;
}
