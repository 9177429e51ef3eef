// Trees of tokens in one decode step.
//
// The tokens are stored as a row: token i of the step in the cell, and at the cache's position, of the
// i-th token of a text. So the cache's bookkeeping is a row's, and rolling back to a prefix of the first
// branch is all that has to be done afterwards. Two things differ from a row. The graph's inputs are
// filled with each token's true position, its depth: then its mask shows it as many of the step's cells
// as its branch is long, which is the mask of plain decoding. And attention is told whose keys and values
// a token finds in those cells: its branch's.
//
// What must hold: a token's operations, with their operands and order, are those of decoding its branch
// token by token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

class llm_graph_result;

namespace ecl {

// The tokens of one step. Graphs made for it read it at every step that they are used for.
struct token_tree {
    std::vector<int32_t> depth;  // [token]
    std::vector<int32_t> paths;  // [token][token]: row t has t's branch, from its root to t, then each its own index

    int32_t size() const { return static_cast<int32_t>(depth.size()); }

    // parents[i] < i, or -1.
    void assign(const int32_t * parents, int32_t n);
};

// Empty, or why a graph's tokens cannot be made a tree.
std::string why_no_branches(const llm_graph_result & res);

// Makes the tokens of a built graph the tree's. Returns what why_no_branches does.
std::string follow_branches(llm_graph_result & res, const token_tree & tree);

}  // namespace ecl
