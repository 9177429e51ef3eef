// What a step over changed layers does to its graph: drops, probes, kept streams, given states.
#pragma once

#include "graph/hook.h"

#include <string>

namespace ecl {

// Takes dropped sub-layers out of a built graph, starts it from given states, and adds what probes and kept
// streams compute. Returns an empty string, or why this architecture's graph cannot be served; the graph
// must then not be run.
std::string change_sublayers(llm_graph_result & res, const graph_options & options);

// Keeps what enters some layers readable (graph_marks::inner and kept) in a graph that drops nothing; does nothing
// for what cannot be found. No operation changes.
void keep_inputs(llm_graph_result & res, const graph_options & options);

}  // namespace ecl
