// A linear draft head, which foresees the tokens after the next.
//
// It takes the hidden state that a token was drawn from, the inner state of the same place, and the token's
// embedding to the next hidden and inner state; the model's own LM head, of which the context's draft
// vocabulary has rows, takes the hidden one to logits. The idea is EAGLE's (arXiv 2401.15077: predict the next
// feature, keep the LM head), with one matrix in place of a layer, so that a few thousand tokens teach it in
// closed form.
//
// Several places are asked about in one product, which takes as long as reading the weights once. The rows
// that give the inner states are read only by those who go on from there.
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
    static constexpr int32_t max_places = 4;  // asked about together

    // weights: 2 * n_embd rows of 3 * n_embd numbers, which multiply the state, then the inner state, then the
    // token's embedding; the first n_embd rows give the next state, the others the next inner one. preferred:
    // a type of buffer to keep them in, if its kernels multiply them on the CPU, or null. Null if there is no
    // memory.
    static std::unique_ptr<next_state_head> make(const float * weights, int64_t n_embd,
                                                 ggml_backend_buffer_type_t preferred);

    // Makes the graphs for a draft vocabulary, unless they are there; the number tells one vocabulary from
    // others. Returns null, or why that cannot be, after "a next-state head: ".
    const char * prepare(const draft_head & head, uint64_t number);

    // What the next `ask` reads for a place: hidden state, inner state, the token's embedding, n_embd of each.
    float * input(int32_t place);

    // Computes hidden and logits of the first n places; false if the graph fails.
    bool ask(int32_t n, int32_t n_threads);

    // Computes inner of the places that the last `ask` was about; false if the graph fails.
    bool roll_out(int32_t n_threads);

    // Of the last `ask` and `roll_out`, by place: the next states, n_embd of each, and the logits of the draft
    // vocabulary, n_tokens of them by row of its head.
    const float * hidden(int32_t place) const;
    const float * inner(int32_t place) const;
    const float * logits(int32_t place) const;
    int32_t       n_tokens() const { return n_logits; }

  private:
    // The graphs over some number of places.
    struct graphs {
        ggml_cgraph * ask      = nullptr;
        ggml_cgraph * roll_out = nullptr;
        ggml_tensor * hidden   = nullptr;  // F32 [n_embd, places]
        ggml_tensor * inner    = nullptr;  // F32 [n_embd, places]
        ggml_tensor * logits   = nullptr;  // F32 [rows of the draft vocabulary, places]
    };

    bool   allocate(int64_t n_embd, ggml_backend_buffer_type_t type);
    graphs build(const draft_head & head, int32_t n_places) const;
    bool   compute(ggml_cgraph * graph, int32_t n_threads);

    ggml_backend_ptr        backend;  // the CPU's, for these graphs alone
    ggml_context_ptr        weights_meta;
    ggml_backend_buffer_ptr weights_buffer;
    ggml_tensor *           to_hidden = nullptr;  // [3 * n_embd, n_embd]
    ggml_tensor *           to_inner  = nullptr;  // [3 * n_embd, n_embd]

    ggml_context_ptr        graph_meta;
    ggml_backend_buffer_ptr graph_buffer;
    ggml_tensor *           inputs = nullptr;    // F32 [3 * n_embd, max_places]
    graphs                  of_places[max_places];  // by the number of places, less one
    const graphs *          last     = nullptr;  // that was asked
    int32_t                 n_logits = 0;        // tokens of the draft vocabulary; the rows after them are zeros
    uint64_t                number   = 0;        // of the draft vocabulary that the graphs are for; 0: none
};

}  // namespace ecl
