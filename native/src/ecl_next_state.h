// A linear draft head: from the hidden state that a token was drawn from, that of an inner layer at the
// same place and that token, the next hidden state, and by the model's own LM head the tokens that may come after.
//
// It is EAGLE's idea (arXiv 2401.15077: predict the next feature, keep the LM head) with one matrix in
// place of a layer, so that a few thousand tokens teach it in closed form. Of the LM head it takes
// the rows of the context's draft vocabulary.
#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct llama_context;

namespace ecl {

struct draft_head;

class next_state_head {
  public:
    // weights: n_embd rows of 3 * n_embd numbers, which take the state first, then the inner state, then the
    // token's embedding. Null if there is no memory.
    static std::unique_ptr<next_state_head> make(const float * weights, int64_t n_embd);

    // The logits of the draft vocabulary after a token drawn from a state. Null if they cannot be had:
    // why says so in one line.
    const std::vector<float> * logits(llama_context * ctx, const float * state, int32_t token, std::string & why);

  private:
    // Makes the graph for another draft vocabulary.
    bool build(const draft_head & head, std::string & why);

    ggml_backend_ptr        backend;  // the CPU's, for this graph alone
    ggml_context_ptr        weights_meta;
    ggml_backend_buffer_ptr weights_buffer;
    ggml_tensor *           weights = nullptr;  // [3 * n_embd, n_embd]

    ggml_context_ptr        graph_meta;
    ggml_backend_buffer_ptr graph_buffer;
    ggml_cgraph *           graph  = nullptr;
    ggml_tensor *           input  = nullptr;  // F32 [3 * n_embd]
    ggml_tensor *           output = nullptr;  // F32 [rows of the draft vocabulary]
    uint64_t                number = 0;        // of the draft vocabulary that the graph is for

    std::vector<float>   x;
    std::vector<uint8_t> row;
    std::vector<float>   found;
};

}  // namespace ecl
