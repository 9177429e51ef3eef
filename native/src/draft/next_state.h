// A linear draft head, which foresees the token after the next.
//
// It takes the hidden state that a token was drawn from, the inner state of the same place, and the token's
// embedding to the next hidden and inner state; the model's own LM head, of which the context's draft
// vocabulary has rows, takes the hidden one to logits. The idea is EAGLE's (arXiv 2401.15077: predict the next feature, keep the LM
// head), with one matrix in place of a layer, so that a few thousand tokens teach it in closed form.
#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace ecl {

struct draft_head;

class next_state_head {
  public:
    // weights: 2 * n_embd rows of 3 * n_embd numbers, which multiply the state, then the inner state, then the
    // token's embedding; the first n_embd rows give the next state, the others the next inner one. Null if
    // there is no memory.
    static std::unique_ptr<next_state_head> make(const float * weights, int64_t n_embd);

    // Makes the graph for a draft vocabulary, unless it is there; the number tells one vocabulary from others.
    // Returns null, or why that cannot be, after "a next-state head: ".
    const char * prepare(const draft_head & head, uint64_t number);

    // The logits of the draft vocabulary that it was prepared for, by row of its head; null if the graph fails.
    // state: the hidden state, then the inner one, 2 * n_embd floats; embedding: the token's, n_embd floats.
    const std::vector<float> * logits(const float * state, const float * embedding, int32_t n_threads);

  private:
    ggml_backend_ptr        backend;  // the CPU's, for this graph alone
    ggml_context_ptr        weights_meta;
    ggml_backend_buffer_ptr weights_buffer;
    ggml_tensor *           weights = nullptr;  // [3 * n_embd, 2 * n_embd]

    ggml_context_ptr        graph_meta;
    ggml_backend_buffer_ptr graph_buffer;
    ggml_cgraph *           graph  = nullptr;
    ggml_tensor *           input  = nullptr;  // F32 [3 * n_embd]
    ggml_tensor *           output = nullptr;  // F32 [rows of the draft vocabulary]
    uint64_t                number = 0;        // of the draft vocabulary that the graph is for; 0: none

    std::vector<float> found;
};

}  // namespace ecl
