// What the patched ggml-cpu calls for GGML_OP_FLASH_ATTN_EXT.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct ggml_compute_params;
struct ggml_tensor;

#ifdef __cplusplus
extern "C" {
#endif

// Whether our kernel computes this operation: it is marked (ggml_marks.h), and its shape and types are
// ones that we have a kernel for.
bool ecl_attention_takes(const struct ggml_tensor * dst);

// Bytes of params->wdata that ecl_attention_compute needs.
size_t ecl_attention_work_size(const struct ggml_tensor * dst, int n_threads);

// Called by every thread of the operation.
void ecl_attention_compute(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
