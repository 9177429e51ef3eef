// Bridges: taught maps in the place of blocks of dropped layers.
//
// A block [begin, end) of layers is dropped, and what enters layer end becomes
//
//     x' = x + rms(x) * (W [x / rms(x); p / rms(p); q / rms(q)] + b)
//
// where x is what enters layer begin, and p and q are what entered layers begin and end at the token before.
// Without the map a draft would go on with x itself; with W = 0 and b = 0 it does.
//
// What must hold: steps over bridges only draft. No step that verifies or decodes plainly has any.
#pragma once

#include "ggml-cpp.h"
#include "graph/hook.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct llama_model;
class llm_graph_result;

namespace ecl {

class graph_edit;
class sublayer_flow;

struct bridge {
    int32_t            begin   = 0;
    int32_t            end     = 0;
    ggml_tensor *      weights = nullptr;  // [3 * n_embd, n_embd]
    ggml_tensor *      bias    = nullptr;  // F32 [n_embd]
    std::vector<float> before;             // of the next step, for each token: p / rms(p), then q / rms(q)
};

// Bridges over blocks that do not touch each other, in the order of the layers.
struct bridge_set {
    std::vector<bridge>     bridges;
    ggml_context_ptr        meta;  // of their tensors
    ggml_backend_buffer_ptr buffer;

    // Number of floats of the states that one token gives to the next: p, then q, of each bridge.
    int64_t floats_a_token() const;

    // Sets what the next step's n tokens have before them, floats_a_token() each. The rows are scaled.
    void set_before(const float * states, int64_t n);
};

// layers: begin and end of each of n bridges; weights: of each, n_embd rows of 3 * n_embd + 1 numbers, the last
// of them that of b. Kept in 8 bits. Sets `made` unless it refuses.
refusal make_bridges(const llama_model & model, const int32_t * layers, const float * weights, int32_t n,
                     std::unique_ptr<bridge_set> & made);

// Puts bridges in a graph whose outputs were followed, and notes their ends (graph_marks::bridge_ends). Returns an
// empty string, or why this architecture's graph cannot be served.
std::string put_bridges(llm_graph_result & res, graph_edit & edit, const sublayer_flow & flow,
                        const bridge_set & set);

}  // namespace ecl
