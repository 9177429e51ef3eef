// Matrices that were taught, which are held in 8 bits.
#pragma once

#include "ggml.h"

#include <cstdint>

namespace ecl {

// The type for rows of this width: Q8_0 where its blocks divide them.
ggml_type taught_type(int64_t width);

// Writes the rows of a matrix of that type, each `stride` floats after the one before, whatever its buffer.
void store_rows(ggml_tensor * matrix, const float * rows, int64_t stride);

}  // namespace ecl
