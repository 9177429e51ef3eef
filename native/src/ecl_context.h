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
    token_tree    tree;     // where options point for a tree; before the graphs, which read it
    bool          takes_trees = false;  // known to
    live_graphs   graphs;
    std::string   error;    // why the last call failed

    const llm_graph_result * last_result = nullptr;  // of the last step that ran

    int64_t n_built  = 0;  // graphs built, split and allocated
    int64_t build_us = 0;  // time spent on that
};

}  // namespace ecl
