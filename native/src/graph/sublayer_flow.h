// Follows sub-layers' outputs through a built graph, from the builder's return to the residual stream.
#pragma once

#include "graph/hook.h"

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

namespace ecl {

class graph_edit;

// "the attention of layer 3"
std::string describe(int il, sublayer kind);

// One pass over a graph in its own order. A dropped sub-layer's output is a stand-in; where it joins the
// residual stream, the sum is replaced by the stream itself, and what stays is noted as a join.
class sublayer_flow {
  public:
    // A kept sub-layer's output that is added to the residual stream, or to a parallel branch before that.
    struct join {
        int           il;
        sublayer      kind;
        ggml_tensor * output;
        ggml_tensor * before;  // the stream; null where branches are added
        ggml_tensor * sum;
    };

    sublayer_flow(const llm_graph_result & res, graph_edit & edit);

    // Follows all outputs. Returns an empty string, or why the graph has no meaning without what is dropped.
    std::string run();

    // Empty, or which dropped sub-layer did not go through the shared builders.
    std::string why_not_marked(const graph_options & options) const;

    // Empty, or which dropped sub-layer's output is a result of the graph.
    std::string why_no_result() const;

    // In the order of the graph.
    const std::vector<join> & joins() const { return found_joins; }

    // The residual stream into a layer: into layer last_layer() + 1, what leaves the last one. Null if it
    // was not found.
    ggml_tensor * stream_into(int il) const;

    // The last layer that was seen; -1: none.
    int last_layer() const { return last; }

  private:
    // Which sub-layer a tensor's value comes from.
    struct origin {
        int      il;
        sublayer kind;
        bool     dropped;
    };

    std::string visit(ggml_tensor * node);
    std::string visit_add(ggml_tensor * node);
    std::string visit_branch_sum(ggml_tensor * node, origin a, origin b);
    bool        any_operand_dropped(const ggml_tensor * node) const;
    void        note_stream(int il, ggml_tensor * before, ggml_tensor * after);

    const graph_marks & marks;
    graph_edit &        edit;

    std::unordered_map<const ggml_tensor *, origin> origins;
    std::vector<join>                               found_joins;
    std::map<int, ggml_tensor *>                    entering;  // by layer
    int                                             last    = -1;
    ggml_tensor *                                   leaving = nullptr;
};

}  // namespace ecl
