// Dropping and probing sub-layers while upstream builds a compute graph.
//
// Upstream's model files call a few shared builders (build_attn, build_ffn, build_moe_ffn) once
// per sub-layer. Three hook lines in each tell us where a sub-layer's output is; the rest happens
// here, after the graph is built and before it is allocated, on ggml's own graph structure. So one
// implementation serves every architecture that goes through those builders, whatever its norms,
// scales or parallel branches, and one that does not is refused instead of run half masked.
//
// What must hold: with no sub-layer dropped and no probe asked for, nothing is changed. With
// sub-layers dropped, the graph is the one that upstream would build for a model without them:
// the same operations, on the same operands, in the same order. Steps over a few tokens also get
// the marks of kernels/ggml_columns.h, which change no operation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct ggml_tensor;
struct llm_graph_context;
class llm_graph_result;

namespace ecl {

enum class sublayer : uint8_t { attention = 0, ffn = 1 };

// One decode step's wishes. Part of the key under which a graph may be reused.
struct graph_options {
    std::vector<uint8_t> drop;  // per layer: bit 0 drops attention, bit 1 the feed-forward; empty: none
    bool                 probe = false;
    bool                 exact = false;   // each of a few tokens gets the bits of a one-token step
    bool                 tree  = false;   // the step's tokens are a tree, not a row
    const ggml_tensor *  head  = nullptr; // rows of the LM head to compute logits with; null: all of them
    int32_t              keep  = -1;      // layer whose residual stream, as it leaves the layer, stays readable

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
               head == other.head && keep == other.keep;
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

    void clear() {
        sublayers.clear();
        probes.clear();
    }
};

// Called by the builders: stand-ins of the shape that the builder would have returned.
ggml_tensor * drop_attention(const llm_graph_context & graph, ggml_tensor * wo, ggml_tensor * q,
                             ggml_tensor * v_mla, int il);
ggml_tensor * drop_ffn(const llm_graph_context & graph, ggml_tensor * cur, ggml_tensor * down, int il);

// Called by the builders on return: remembers the output, returns it.
ggml_tensor * mark_sublayer(llm_graph_result * res, ggml_tensor * cur, int il, sublayer kind);

// Takes dropped sub-layers out of a built graph, adds the probes' nodes, and marks what must follow
// the one-token step's arithmetic. Returns an empty string,
// or why this architecture's graph cannot be served; the graph must then not be run.
std::string finish_graph(llm_graph_result & res, const graph_options & options);

}  // namespace ecl
