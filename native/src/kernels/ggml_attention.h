// What the patched ggml-cpu calls for GGML_OP_FLASH_ATTN_EXT.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct ggml_compute_params;
struct ggml_tensor;

#ifdef __cplusplus
extern "C" {
#endif

// Sources of the operation beyond upstream's five, for a batch whose tokens are a tree: in which cells
// they are stored (I64 [n_tokens]) and what each sees there (I32 [n_tokens, n_tokens]): token t finds
// in cells[d] the keys and values of token paths[t][d].
enum { ECL_ATTENTION_CELLS = 5, ECL_ATTENTION_PATHS = 6 };

// By this name ggml's registry of the CPU backend gives ecl_attention_takes.
#define ECL_ATTENTION_TAKES_NAME "ecl_attention_takes"

// Whether our kernel computes this operation; depends on its shape and types alone.
bool ecl_attention_takes(const struct ggml_tensor * dst);

// Bytes of params->wdata that ecl_attention_compute needs.
size_t ecl_attention_work_size(const struct ggml_tensor * dst, int n_threads);

// Called by every thread of the operation.
void ecl_attention_compute(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
