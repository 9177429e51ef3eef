// A draft vocabulary: copies of some rows of the LM head, and the graph that uses them instead
// (FR-Spec, arXiv 2502.14856).
//
// What must hold: a row's copy lies in a buffer of the head's own type, so that the same kernel
// multiplies it and its logit has the same bits.
#pragma once

#include "ggml-cpp.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct llama_model;
class llm_graph_result;

namespace ecl {

struct draft_head {
    std::vector<int32_t>    tokens;  // ascending, each once
    ggml_context_ptr        meta;    // of `rows`
    ggml_backend_buffer_ptr buffer;
    ggml_tensor *           rows = nullptr;  // [n_embd, tokens rounded up to row_multiple]; the rest are zeros
    const ggml_tensor *     full = nullptr;  // the LM head
    std::vector<float>      logits;          // of the last draft step, one a row; empty before it
};

// Copies the rows of these tokens. Null if they cannot be had: why says so in one line.
std::unique_ptr<draft_head> make_draft_head(const llama_model & model, std::vector<int32_t> tokens, std::string & why);

// Makes a built graph compute the logits of the head's tokens only. Returns an empty string, or why
// this architecture's graph cannot be served; the graph must then not be run.
std::string shorten_logits(llm_graph_result & res, const draft_head & head);

}  // namespace ecl
