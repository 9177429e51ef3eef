// Matrix products of repacked weights inside ggml's CPU backend. See product.h for the layout.
#pragma once

#include "product/product.h"

#include "ggml.h"

struct ggml_compute_params;

namespace ecl {

// The format of a ggml type; false for a type without a layout.
bool format_of(ggml_type type, Format & format);

// Work memory of op (a GGML_OP_MUL_MAT).
size_t product_scratch_bytes(Format format, const ggml_tensor * op);

// Computes op (a GGML_OP_MUL_MAT); every thread of the team calls it. weights is the repacked matrix. The
// result has op->ne[0] of its rows, from first_row on. op->src[1] is f32 with contiguous rows.
void compute_product(const ggml_compute_params * params, Format format, ggml_tensor * op,
                     const uint8_t * weights, int64_t first_row);

}  // namespace ecl
