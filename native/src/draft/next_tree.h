// The tree of tokens that a next-state head foresees.
#pragma once

#include "draft/next_state.h"
#include "ecl.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace ecl {

// Grows a tree level by level, as the options say: asks the head about the text's end, then about the likeliest
// of the tokens that it answered, and so on.
class next_tree {
  public:
    struct node {
        llama_token token;
        int32_t     parent;       // an earlier index; -1: it follows the text
        float       probability;  // given its ancestors
        double      chance;       // that it and all its ancestors are accepted
        int32_t     place;        // that it was answered at
    };
    using embeddings = std::function<void(llama_token, float *)>;  // writes a token's

    // vocabulary: of the head's tokens.
    next_tree(next_state_head & head, const std::vector<int32_t> & vocabulary, const ecl_next_tree_options & options,
              int32_t n_threads);

    // Of a head whose input of the first place is the text's end. Parents come before their children. Throws if
    // a graph fails.
    std::vector<node> grow(int32_t n_embd, const embeddings & read_embedding);

  private:
    void                 ask();
    std::vector<int32_t> worth_asking_about(size_t begin) const;
    void                 roll_out(int32_t n_embd, const embeddings & read_embedding);
    void                 keep_likeliest(size_t n);

    next_state_head &             head;
    const std::vector<int32_t> &  vocabulary;
    const ecl_next_tree_options & options;
    const int32_t                 n_threads;
    std::vector<node>             nodes;
    std::vector<int32_t>          places = { -1 };  // by place, the node that is asked about; -1: the text's end
};

}  // namespace ecl
