#pragma once

#include "ggml-backend.h"

#ifdef __cplusplus
extern "C" {
#endif

// The extra buffer type of ggml's CPU backend that keeps 2D weights in the layout of product.h and
// multiplies them with its kernels; null where this CPU has none.
ggml_backend_buffer_type_t ecl_kernels_buffer_type(void);

#ifdef __cplusplus
}
#endif
