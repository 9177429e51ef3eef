// Taught early exits (DSSD, arXiv 2407.21082), which foresee the next token from the first layers alone.
//
// An exit is a norm and a linear map, from the residual stream after its layer to the last hidden state; the
// model's own LM head, of which the context's draft vocabulary has rows, takes that to logits. The paper maps
// to the vocabulary itself, which would make an exit as large as an LM head.
#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace ecl {

struct draft_head;

class taught_exit {
  public:
    // The token that an exit holds likeliest.
    struct guess {
        int32_t row;  // of the draft vocabulary's head
        float   probability;
        float   entropy;  // of the exit's distribution over the draft vocabulary, in nats
    };

    // norm: n_embd factors; weights: n_embd rows of n_embd numbers. Null if there is no memory.
    static std::unique_ptr<taught_exit> make(int32_t layer, const float * norm, const float * weights, int64_t n_embd);

    // Layers that run before it.
    int32_t layer() const { return n_layer; }

    // Makes the graph for a draft vocabulary, unless it is there; the number tells one vocabulary from others.
    // Returns null, or why that cannot be.
    const char * prepare(const draft_head & head, uint64_t number);

    // What it guesses by the residual stream of one token, n_embd floats. Throws if the graph fails.
    guess operator()(const float * stream, int32_t n_threads);

  private:
    int32_t            n_layer = 0;
    std::vector<float> norm;

    ggml_backend_ptr        backend;  // the CPU's, for this exit alone
    ggml_context_ptr        weights_meta;
    ggml_backend_buffer_ptr weights_buffer;
    ggml_tensor *           weights = nullptr;  // [n_embd, n_embd]

    ggml_context_ptr        graph_meta;
    ggml_backend_buffer_ptr graph_buffer;
    ggml_cgraph *           graph  = nullptr;
    ggml_tensor *           input  = nullptr;  // F32 [n_embd]
    ggml_tensor *           output = nullptr;  // F32 [rows of the draft vocabulary]
    uint64_t                number = 0;        // of the draft vocabulary that the graph is for; 0: none

    std::vector<float> normed;
    std::vector<float> logits;
};

// The likeliest of n logits, and the entropy of their softmax.
taught_exit::guess guess_of(const float * logits, int32_t n);

}  // namespace ecl
