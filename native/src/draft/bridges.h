// Drafts over bridges: the states that one token gives to the next.
#pragma once

#include "llama.h"

#include <cstdint>

namespace ecl {

// Makes the steps of this scope's options go over the context's bridges. before: as in ecl_draft_options, for n
// tokens. Throws if there are no bridges or the mask keeps a layer that they replace.
void begin_bridges(llama_context * ctx, const float * before, int32_t n);

// After a draft step: its last token gives its states to the next step's only one.
void follow_bridges(llama_context * ctx);

}  // namespace ecl
