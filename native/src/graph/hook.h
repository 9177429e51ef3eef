// Drops and probes sub-layers while upstream builds a compute graph.
//
// Upstream's model files call a few shared builders (build_attn, build_ffn, build_moe_ffn) once per
// sub-layer. Three hook lines in each tell us which tensor is a sub-layer's output. The rest happens
// after the graph is built and before it is allocated, on ggml's own graph structure. So one
// implementation serves every architecture that goes through those builders, whatever its norms, scales
// or parallel branches; an architecture that does not is refused, never run half masked.
//
// What must hold: with no sub-layer dropped, no probe, no draft vocabulary and no tree, upstream's
// operations stay as they are. With sub-layers dropped, the graph is the one that upstream would build
// for a model without them: the same operations, on the same operands, in the same order. What is kept
// readable is marked as an output or copied, and steps over a few tokens get the marks of
// kernels/ggml_marks.h; neither changes an operation.
//
// Folders: graph/ uses memory/ and kernels/, and knows llm_graph_result but not llama_context.
// All arrows: draft -> step -> graph, sources; graph -> memory, kernels; draft, step, sources -> logits.
#pragma once

#include "ecl_kernels.h"
#include "ecl_status.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

struct ggml_tensor;
struct llm_graph_context;
class llm_graph_result;

namespace ecl {

struct bridge_set;
struct draft_head;
struct token_tree;

// Why something cannot be done, and the code that says so to callers. Without a reason: ECL_OK.
struct refusal {
    ecl_status  status = ECL_OK;
    std::string why;

    explicit operator bool() const { return status != ECL_OK; }
};

enum class sublayer : uint8_t { attention = 0, ffn = 1 };

// What one decode step asks of its graph. Part of the key under which a graph may be reused.
struct graph_options {
    static constexpr int32_t no_layer   = -1;
    static constexpr int32_t all_layers = -2;

    std::vector<uint8_t> drop;           // per layer: bit 0 drops attention, bit 1 the feed-forward; empty: none
    bool                 probe = false;  // measure every sub-layer's output
    bool                 exact = false;  // each of a few tokens gets the bits of a one-token step

    // The step's tokens are this tree; null: each follows the one before it.
    const token_tree * tree = nullptr;

    // Rows of the LM head to compute logits with; null: all of them. The number tells a head from one that
    // was at the same address before.
    const draft_head * head        = nullptr;
    uint64_t           head_number = 0;

    // Maps in the place of blocks that are dropped as well; null: none. Numbered like heads.
    const bridge_set * bridges        = nullptr;
    uint64_t           bridges_number = 0;

    // Layer whose residual stream is kept as it leaves the layer; all_layers: of each as it enters it.
    int32_t stream_layer = no_layer;

    // Layer whose input is kept in unmasked steps over a few tokens, where it can be found.
    int32_t inner_layer = no_layer;

    // More layers whose inputs are kept in such steps.
    std::vector<int32_t> kept_layers;

    // What the first layer starts from instead of the tokens' embeddings: [n_embd, n_tokens]. The address is
    // part of the key; the content is read before each run.
    const std::vector<float> * states = nullptr;

    bool drops(int il, sublayer kind) const {
        return il >= 0 && static_cast<size_t>(il) < drop.size() &&
               ((drop[il] >> static_cast<int>(kind)) & 1) != 0;
    }
    bool drops_any() const {
        return std::any_of(drop.begin(), drop.end(), [](uint8_t bits) { return bits != 0; });
    }
    bool keeps_inputs() const { return inner_layer != no_layer || !kept_layers.empty(); }
    bool operator==(const graph_options & other) const {
        return drop == other.drop && probe == other.probe && exact == other.exact && tree == other.tree &&
               head == other.head && head_number == other.head_number && bridges == other.bridges &&
               bridges_number == other.bridges_number && stream_layer == other.stream_layer &&
               inner_layer == other.inner_layer && kept_layers == other.kept_layers && states == other.states;
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

// What a probed graph computes for one sub-layer.
struct sublayer_probe {
    int           il;
    sublayer      kind;
    ggml_tensor * confidence;  // F32 [1]: 1 - entropy / log(width), mean over the step's tokens
    ggml_tensor * before;      // F32 [n_embd, n_tokens]: residual stream entering the sub-layer; may be null
    ggml_tensor * after;       // F32 [n_embd, n_tokens]: residual stream leaving it
};

// What we know of a built graph. Lives in upstream's llm_graph_result.
struct graph_marks {
    std::vector<sublayer_mark>  sublayers;
    std::vector<sublayer_probe> probes;
    ggml_tensor *               draft_logits = nullptr;  // F32 [rows of the draft head, n_outputs]; null without one
    std::vector<ggml_tensor *>  streams;                 // F32 [n_embd, n_tokens] each: graph_options::stream_layer
    ggml_tensor *               inner = nullptr;         // F32 [n_embd, n_tokens]: graph_options::inner_layer
    std::vector<ggml_tensor *>  kept;                    // likewise: graph_options::kept_layers; null: not found
    std::vector<ggml_tensor *>  bridge_ends;             // likewise: what enters and what leaves each bridge

    void clear() { *this = graph_marks(); }
};

// Called by the builders: stand-ins of the shape that the builder would have returned.
ggml_tensor * drop_attention(const llm_graph_context & graph, ggml_tensor * wo, ggml_tensor * q,
                             ggml_tensor * v_mla, int il);
ggml_tensor * drop_ffn(const llm_graph_context & graph, ggml_tensor * cur, ggml_tensor * down, int il);

// Called by the builders on return: notes the output, returns it.
ggml_tensor * mark_sublayer(llm_graph_result * res, ggml_tensor * cur, int il, sublayer kind);

// Makes a built graph what the options ask for, with the model's choice of kernels. Refuses what this architecture's graph cannot be served
// with; the graph must then not be run.
refusal finish_graph(llm_graph_result & res, const graph_options & options, ecl_kernels_choice kernels);

}  // namespace ecl
