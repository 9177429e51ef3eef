// A step that starts from given hidden states and not from the tokens' embeddings.
#pragma once

#include "graph/hook.h"

#include <string>
#include <unordered_map>
#include <vector>

namespace ecl {

class graph_edit;

class given_states {
  public:
    // Only looks at the graph; does nothing for options without states.
    given_states(llm_graph_result & res, graph_edit & edit, const graph_options & options);

    // Makes the stream into layer 0 the given states. Returns an empty string, or why it cannot be.
    std::string put_in(ggml_tensor * stream);

    // Empty if the states stand for all that comes before the first layer that runs; otherwise what else the
    // needed part of the graph reads, which would be wrong.
    std::string why_not_enough() const;

  private:
    llm_graph_result &    res;
    graph_edit &          edit;
    const graph_options & options;

    std::unordered_map<const ggml_tensor *, std::vector<const ggml_tensor *>> users;  // of each tensor, as built
    const ggml_tensor * embeddings = nullptr;  // what enters layer 0 without states
};

}  // namespace ecl
