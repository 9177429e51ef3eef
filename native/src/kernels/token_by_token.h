// Upstream's CPU kernels over a small batch (ggml_marks.h): what our kernels do not serve runs token by
// token through upstream's own path for one token, so that no token's bits depend on the batch.
#pragma once

#include "ggml_marks.h"

struct ggml_compute_params;

#ifdef __cplusplus
extern "C" {
#endif

// Whether the operation must run token by token.
bool ecl_goes_token_by_token(const struct ggml_tensor * op);

// Called by every thread: runs `forward` on each token's part in turn.
void ecl_compute_token_by_token(struct ggml_compute_params * params, struct ggml_tensor * op,
                                void (*forward)(struct ggml_compute_params *, struct ggml_tensor *));

#ifdef __cplusplus
}
#endif
