// Trees of tokens in one decode step.
//
// The cache stores the tokens of a tree as those of a chain: token i of the step in the cell, and at the
// position, of the i-th token of a text. So the cache's bookkeeping needs no change, and afterwards rolling
// back to a prefix of the first chain is enough. Two things differ from a chain. The graph's inputs are
// filled with each token's position by its depth in the tree, so that its mask shows as many of the step's
// cells as its branch is long, as in plain decoding. And attention is told whose keys and values a token
// finds in those cells: its branch's.
//
// What must hold: a token's operations, with their operands and order, are those of decoding its branch
// token by token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

class llm_graph_result;

namespace ecl {

// The tokens of one step. Graphs that were built for a tree read it at every step.
struct token_tree {
    std::vector<int32_t> depth;  // [token]
    std::vector<int32_t> paths;  // [token][token]: t's branch, from its root to t, then each place's own index

    int32_t size() const { return static_cast<int32_t>(depth.size()); }

    // parents[i] < i, or -1: [n]
    void assign(const int32_t * parents, int32_t n);
};

// Empty, or why a graph's tokens cannot be a tree.
std::string why_no_branches(const llm_graph_result & res);

// Makes the tokens of a built graph the tree's. Returns what why_no_branches does.
std::string follow_branches(llm_graph_result & res, const token_tree & tree);

}  // namespace ecl
