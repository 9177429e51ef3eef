// Dropping and probing sub-layers while upstream builds a compute graph.
//
// Upstream's model files call a few shared builders (build_attn, build_ffn, build_moe_ffn) once
// per sub-layer. Three hook lines in each tell us where a sub-layer's output is; the rest happens
// here, after the graph is built and before it is allocated, on ggml's own graph structure. So one
// implementation serves every architecture that goes through those builders, whatever its norms,
// scales or parallel branches, and one that does not is refused instead of run half masked.
//
// What must hold: with no sub-layer dropped, no probe asked for and no tree (ecl_tree.h), nothing is
// changed. With sub-layers dropped, the graph is the one that upstream would build for a model without
// them: the same operations, on the same operands, in the same order. Steps over a few tokens also get
// the marks of kernels/ggml_columns.h, which change no operation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct ggml_tensor;
struct llm_graph_context;
class llm_graph_result;

namespace ecl {

struct draft_head;
struct token_tree;

enum class sublayer : uint8_t { attention = 0, ffn = 1 };

// One decode step's wishes. Part of the key under which a graph may be reused.
struct graph_options {
    std::vector<uint8_t> drop;  // per layer: bit 0 drops attention, bit 1 the feed-forward; empty: none
    bool                 probe = false;
    bool                 exact = false;   // each of a few tokens gets the bits of a one-token step
    const token_tree *   tree  = nullptr; // of the step's tokens; null: they are a row
    const draft_head *   head  = nullptr; // rows of the LM head to compute logits with; null: all of them
    int32_t              keep  = keep_none;  // layer whose residual stream, as it leaves the layer, stays readable
    uint64_t             head_number = 0; // tells a head from one that was at the same address before
    int32_t              watch = keep_none;  // layer of which what enters it stays readable in full steps over a few
                                             // tokens, if it can be found
    // What the first layer starts from instead of the tokens' embeddings: [n_embd, n_tokens]. Its
    // address is part of the key, its content is read before each run.
    const std::vector<float> * states = nullptr;

    static constexpr int32_t keep_none = -1;
    static constexpr int32_t keep_all  = -2;  // what enters each layer

    bool drops(int il, sublayer kind) const {
        return il >= 0 && static_cast<size_t>(il) < drop.size() &&
               ((drop[il] >> static_cast<int>(kind)) & 1) != 0;
    }
    bool drops_any() const {
        for (uint8_t d : drop) {
            if (d != 0) {
                return true;
            }
        }
        return false;
    }
    bool operator==(const graph_options & other) const {
        return drop == other.drop && probe == other.probe && exact == other.exact && tree == other.tree &&
               head == other.head && keep == other.keep && head_number == other.head_number &&
               watch == other.watch && states == other.states;
    }
    bool operator!=(const graph_options & other) const { return !(*this == other); }
};

// Where a builder returned a sub-layer's output, or the stand-in for a dropped one.
struct sublayer_mark {
    ggml_tensor * tensor;
    int           il;
    sublayer      kind;
    bool          dropped;
};

// What a probed graph holds for one sub-layer.
struct sublayer_probe {
    int           il;
    sublayer      kind;
    ggml_tensor * confidence;  // F32 [1]: 1 - entropy / log(width), mean over the step's tokens
    ggml_tensor * before;      // F32 [n_embd, n_tokens]: residual stream entering the sub-layer; may be null
    ggml_tensor * after;       // F32 [n_embd, n_tokens]: residual stream leaving it
};

struct graph_marks {
    std::vector<sublayer_mark>  sublayers;
    std::vector<sublayer_probe> probes;
    ggml_tensor *               logits = nullptr;  // of a draft head, which llama_context does not read back
    std::vector<ggml_tensor *>  streams;  // F32 [n_embd, n_tokens], as graph_options::keep asks
    ggml_tensor *               watched = nullptr;  // F32 [n_embd, n_tokens], as graph_options::watch asks

    void clear() {
        sublayers.clear();
        probes.clear();
        logits = nullptr;
        streams.clear();
        watched = nullptr;
    }
};

// Called by the builders: stand-ins of the shape that the builder would have returned.
ggml_tensor * drop_attention(const llm_graph_context & graph, ggml_tensor * wo, ggml_tensor * q,
                             ggml_tensor * v_mla, int il);
ggml_tensor * drop_ffn(const llm_graph_context & graph, ggml_tensor * cur, ggml_tensor * down, int il);

// Called by the builders on return: remembers the output, returns it.
ggml_tensor * mark_sublayer(llm_graph_result * res, ggml_tensor * cur, int il, sublayer kind);

// Takes dropped sub-layers out of a built graph, puts given states in, adds the probes' nodes, puts the
// draft head in the LM head's place, has a tree's tokens attend along their branches, and marks what
// must follow the one-token step's arithmetic. Returns an empty string, or why this architecture's graph
// cannot be served; the graph must then not be run.
std::string finish_graph(llm_graph_result & res, const graph_options & options);

}  // namespace ecl
