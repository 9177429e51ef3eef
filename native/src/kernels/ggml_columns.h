// What the patched ggml-cpu calls so that a matrix product that our kernels do not serve gives a
// token the same bits in a small batch as alone: column by column, each by upstream's own path for
// one token.
#pragma once

#include <stdbool.h>

struct ggml_compute_params;
struct ggml_tensor;

#ifdef __cplusplus
extern "C" {
#endif

// Batches up to this many tokens are promised the one-token bits.
#define ECL_SMALL_BATCH 32

// Whether this operation is such a product of 2 to ECL_SMALL_BATCH columns.
bool ecl_goes_by_columns(const struct ggml_tensor * op);

// Called by every thread: runs `forward` on each column in turn.
void ecl_by_columns(struct ggml_compute_params * params, struct ggml_tensor * op,
                    void (*forward)(struct ggml_compute_params *, struct ggml_tensor *));

#ifdef __cplusplus
}
#endif
