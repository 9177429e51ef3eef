// Marks the operations of a built graph for the backends (ggml_marks.h). Part of libllama.
#pragma once

#include "ecl_kernels.h"

#include <cstdint>

struct ggml_cgraph;
struct ggml_tensor;

namespace ecl {

// The kernels of the models that this thread loads; upstream's if the CPU backend has none of ours.
ecl_kernels_choice chosen_kernels();

// Has our CPU kernel compute the graph's attention, if these are the model's kernels and it can.
void mark_attention(ggml_cgraph * graph, ecl_kernels_choice kernels);

// Marks a graph over n_tokens tokens, 2 to ECL_SMALL_BATCH, as a small batch.
void mark_small_batch(ggml_cgraph * graph, int64_t n_tokens);

// Notes at an attention mask that `used` cells were in use before the batch, or that this is not known
// (0), and that a step reads a multiple of `pad` cells.
void note_cells(ggml_tensor & mask, uint32_t used, uint32_t pad);

}  // namespace ecl
