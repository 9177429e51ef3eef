// What a llama_context carries for us.
#pragma once

#include "ecl_graph.h"
#include "ecl_live_graphs.h"
#include "ecl_tree.h"

#include <cstdint>
#include <string>

namespace ecl {

struct context_state {
    graph_options options;  // of the next decode step
    live_graphs   graphs;
    std::string   error;    // why the last call failed

    token_tree tree;                 // what options point to in a step over a tree
    bool       takes_trees = false;  // whether this was asked and found so

    const llm_graph_result * last_result = nullptr;  // of the last step that ran

    int64_t n_built  = 0;  // graphs built, split and allocated
    int64_t build_us = 0;  // time spent on that
};

}  // namespace ecl
