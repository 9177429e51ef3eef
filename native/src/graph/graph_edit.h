// Changes a built graph: replaces tensors by others, adds nodes, and leaves out what nothing needs any more.
#pragma once

#include <unordered_map>
#include <unordered_set>
#include <vector>

struct ggml_cgraph;
struct ggml_context;
struct ggml_tensor;
class llm_graph_result;

namespace ecl {

// A weight, or a view of one: the same for every token.
bool is_weight(const ggml_tensor * t);

// Takes the rows of an operand whose outputs are kept: the last layer goes on with these alone.
bool is_output_selection(const ggml_tensor * t);

class graph_edit {
  public:
    explicit graph_edit(llm_graph_result & res);

    // Upstream's nodes in upstream's order, as they were built.
    const std::vector<ggml_tensor *> & order() const { return nodes; }

    // Notes what the graph is run for: everything that no other node uses (KV cache stores, the result) and
    // everything that the context reads back. To be called before operands are changed.
    void find_roots();

    const std::unordered_set<const ggml_tensor *> & roots() const { return run_for; }

    // Everything that used `t` is to use `by`.
    void replace(const ggml_tensor * t, ggml_tensor * by) { replaced[t] = by; }
    bool is_replaced(const ggml_tensor * t) const { return replaced.count(t) != 0; }

    // What takes a tensor's place; the tensor itself if it was not replaced.
    ggml_tensor * resolve(ggml_tensor * t) const;
    void          resolve_operands(ggml_tensor * node) const;

    // Runs a new node right after one of upstream's.
    void run_after(const ggml_tensor * node, ggml_tensor * added) { added_after[node].push_back(added); }

    // Runs a new node at the end.
    void run_last(ggml_tensor * added) { added_last.push_back(added); }

    // Finds what the graph needs, after all replacements.
    void find_needed();

    const std::unordered_set<const ggml_tensor *> & needed() const { return in_use; }

    // Makes the graph the needed nodes in upstream's order, and those that were added.
    void rebuild();

  private:
    llm_graph_result &         res;
    ggml_cgraph *              gf;
    ggml_context *             ctx;
    std::vector<ggml_tensor *> nodes;

    std::unordered_set<const ggml_tensor *>                             run_for;
    std::unordered_set<const ggml_tensor *>                             in_use;
    std::unordered_map<const ggml_tensor *, ggml_tensor *>              replaced;
    std::unordered_map<const ggml_tensor *, std::vector<ggml_tensor *>> added_after;
    std::vector<ggml_tensor *>                                          added_last;

    std::vector<ggml_tensor *> inputs() const;
};

}  // namespace ecl
