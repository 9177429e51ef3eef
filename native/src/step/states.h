// Steps that start from given hidden states, and the residual streams that steps keep.
#pragma once

#include "graph/hook.h"
#include "llama.h"

#include <cstdint>

namespace ecl {

// Throws if this model's residual stream cannot be handed from one step to another, as far as can be told
// without its graph.
void require_states(llama_context * ctx);

// Makes a step with these options start from n rows of n_embd floats, which are copied.
void set_states(llama_context * ctx, graph_options & options, const float * states, int64_t n);

// Writes the streams that the last step kept, n rows of n_embd floats each. Throws if one has other rows.
void read_streams(llama_context * ctx, int64_t n, float * out);

}  // namespace ecl
