// What a llama_context carries for us.
#pragma once

#include "ecl_graph.h"
#include "ecl_head.h"
#include "ecl_live_graphs.h"
#include "ecl_next_state.h"
#include "ecl_tree.h"
#include "llama.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ecl {

// The last draft by an early exit. Its positions were given back, but the keys and values of the
// layers that ran are still in the cells.
struct exit_draft {
    int32_t                  n_layer = 0;  // that ran; 0: there is none
    llama_seq_id             seq     = 0;
    llama_pos                pos     = 0;  // of the first token
    uint64_t                 n_runs  = 0;  // graphs run when it was done
    std::vector<llama_token> tokens;
    std::vector<uint32_t>    cells;  // of every token in every cache, cache by cache
};

struct context_state {
    graph_options options;  // of the next decode step
    live_graphs   graphs;
    std::string   error;    // why the last call failed

    token_tree tree;                 // what options point to in a step over a tree
    bool       takes_trees = false;  // whether this was asked and found so

    std::vector<float> states;  // what a step over states starts from
    exit_draft         drafted;

    const llm_graph_result * last_result = nullptr;  // of the last step that ran

    std::unique_ptr<draft_head> head;         // the draft vocabulary; null: all tokens
    uint64_t                    n_heads = 0;  // draft vocabularies so far

    std::unique_ptr<next_state_head> next_state;  // null: there is none

    int64_t n_built  = 0;  // graphs built, split and allocated
    int64_t build_us = 0;  // time spent on that
};

}  // namespace ecl
