// What a llama_context carries for us.
#pragma once

#include "ecl_graph.h"
#include "ecl_head.h"
#include "ecl_live_graphs.h"
#include "ecl_tree.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace ecl {

struct context_state {
    graph_options options;  // of the next decode step
    live_graphs   graphs;
    std::string   error;    // why the last call failed

    token_tree tree;                 // what options point to in a step over a tree
    bool       takes_trees = false;  // whether this was asked and found so

    const llm_graph_result * last_result = nullptr;  // of the last step that ran

    std::unique_ptr<draft_head> head;         // the draft vocabulary; null: all tokens
    uint64_t                    n_heads = 0;  // draft vocabularies so far

    int64_t n_built  = 0;  // graphs built, split and allocated
    int64_t build_us = 0;  // time spent on that
};

// Sets options for one scope.
class scoped_options {
  public:
    scoped_options(graph_options & current, graph_options options) : current(current), before(current) {
        current = std::move(options);
    }
    ~scoped_options() { current = std::move(before); }
    scoped_options(const scoped_options &)             = delete;
    scoped_options & operator=(const scoped_options &) = delete;

  private:
    graph_options & current;
    graph_options   before;
};

// Why a model cannot be served, as a person reads it.
std::string unsupported(const llama_model & model, const std::string & why);

}  // namespace ecl
