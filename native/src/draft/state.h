// What drafts keep from one call to the next, in a context.
//
// draft/ proposes tokens by the model itself: some of its layers, its first layers, taught exits, or a next-state head.
// It uses step/, graph/ and logits/; nothing uses it.
#pragma once

#include "draft/next_state.h"
#include "draft/taught_exits.h"
#include "ecl_status.h"
#include "llama.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace ecl {

// The last draft by an early exit. It was rolled back, but the keys and values of the layers that ran are
// still in the cells.
struct exit_draft {
    int32_t                  n_layer   = 0;  // that ran; 0: there is none
    llama_seq_id             seq       = 0;
    llama_pos                pos       = 0;  // of the first token
    uint64_t                 n_changes = 0;  // live_graphs::n_changes when it was done
    std::vector<llama_token> tokens;
    std::vector<uint32_t>    cells;  // of every token in every cache, cache by cache
};

struct draft_state {
    exit_draft                                exit;
    std::vector<std::unique_ptr<taught_exit>> taught;      // by depth; empty: there are none
    std::unique_ptr<next_state_head>          next_state;  // null: there is none
    std::vector<float>                        logits;  // of a draft step in the draft vocabulary, by row of its head
};

// A context's; made when it is first asked for.
draft_state & drafts_of(llama_context * ctx);

// The status of a step of a draft that has n tokens: without room for more, what was drafted is a draft.
inline int32_t status_of_draft(int32_t status, int32_t n) {
    return status == ECL_NO_ROOM && n > 0 ? ECL_OK : status;
}

}  // namespace ecl
