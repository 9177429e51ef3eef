// What a llama_context carries for us.
//
// step/ has the decode steps of a context and what is read after them. It uses graph/, sources/ and logits/,
// and knows nothing of draft/, whose state it only holds.
#pragma once

#include "graph/bridge.h"
#include "graph/draft_head.h"
#include "graph/hook.h"
#include "graph/live_graphs.h"
#include "graph/tree.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ecl {

struct draft_state;

struct context_state {
    graph_options options;  // of the next decode step
    live_graphs   graphs;
    refusal       refused;  // why the last graph could not be finished
    std::string   error;    // why the last call failed; empty if it did not

    token_tree tree;                 // what options point to in a step over a tree
    bool       takes_trees = false;  // found by ecl_tree_supported

    std::vector<float> states;  // what options point to in a step that starts from states

    std::unique_ptr<draft_head> head;         // the draft vocabulary's; null: all tokens
    uint64_t                    n_heads = 0;  // draft vocabularies so far

    std::unique_ptr<bridge_set> bridges;        // over dropped layers; null: none
    uint64_t                    n_bridges = 0;  // sets of them so far

    std::shared_ptr<draft_state> drafts;  // made by the first draft; shared, so that its type can be incomplete

    int64_t n_built  = 0;  // graphs built, split and allocated
    int64_t build_us = 0;  // time spent on that
};

}  // namespace ecl
