// The hidden states that the last step left, and rows of the embedding table.
#pragma once

#include "llama.h"

#include <cstdint>

struct llama_model;

namespace ecl {

// The messages of what has no such states begin with this: next-state heads alone ask for them.
constexpr const char * for_next_state = "a next-state head: ";

// Throws unless the embedding table has rows of the width that the layers take.
void require_embeddings(const llama_model & model);

// Writes a token's row of the embedding table: n_embd floats. Throws if it cannot be read or there is none.
void read_embedding(const llama_context * ctx, llama_token token, float * embedding);

}  // namespace ecl
