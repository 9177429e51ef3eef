// The LM head of a draft vocabulary: copies of some of its rows, and the graph that uses them instead
// (FR-Spec, arXiv 2502.14856).
//
// What must hold: the copies lie in a buffer of the head's own type, so that the same kernel multiplies them
// and each token's logit has the same bits.
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

struct draft_head {
    std::vector<int32_t>    tokens;  // ascending, each once
    ggml_context_ptr        meta;    // of `rows`
    ggml_backend_buffer_ptr buffer;
    ggml_tensor *           rows = nullptr;  // [n_embd, tokens rounded up to row_multiple]; the rest are zeros
    const ggml_tensor *     full = nullptr;  // the LM head
};

// The LM head where its rows can be read; null: nowhere.
const ggml_tensor * readable_lm_head(const llama_model & model);

// Copies the rows of these tokens, in any order, at least one. Sets `made` unless it refuses.
refusal make_draft_head(const llama_model & model, std::vector<int32_t> tokens, std::unique_ptr<draft_head> & made);

// Makes a built graph compute the logits of the head's tokens only. Returns an empty string, or why
// this architecture's graph cannot be served; the graph must then not be run.
std::string shorten_logits(llm_graph_result & res, const draft_head & head);

}  // namespace ecl
