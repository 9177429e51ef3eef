// Several decode graphs alive at once.
//
// Upstream keeps one reusable graph and one scheduler for it. Drafting and verification alternate
// between graphs, so each switch would build, split and allocate anew. Here every small batch shape
// with its mask has a graph and a scheduler of its own; switching swaps pointers. Large batches
// (prompts) and probes, which are rare and keep many tensors, stay on upstream's own pair.
//
// What must hold: llama_context's members are always the active graph's, so upstream's code reads
// the right one without knowing; upstream's own pair is active whenever upstream resets it; and what a
// step left in its graph is asked for through last_run(), which forgets it as soon as another step
// begins or graphs are freed.
#pragma once

#include "ggml-cpp.h"
#include "graph/hook.h"
#include "llama-graph.h"
#include "memory/arena.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

namespace ecl {

// What upstream's context holds for one graph.
struct live_graph {
    ggml_backend_sched_ptr              sched;
    std::array<llm_graph_result_ptr, 2> results;  // without and with outputs, as upstream keeps them
    llm_graph_result *                  active = nullptr;
};

// Those members of a context, by reference.
struct live_graph_ref {
    ggml_backend_sched_ptr &              sched;
    std::array<llm_graph_result_ptr, 2> & results;
    llm_graph_result *&                   active;

    void swap(live_graph & other) {
        std::swap(sched, other.sched);
        std::swap(results, other.results);
        std::swap(active, other.active);
    }
};

class live_graphs {
  public:
    // Batches up to this size get a graph of their own.
    static constexpr uint32_t max_tokens = 32;
    // Least recently used graphs beyond this number are freed.
    static constexpr size_t max_graphs = 8;

    // Makes a scheduler that allocates from buffers of these types, one a backend.
    using make_sched = std::function<ggml_backend_sched_t(std::vector<ggml_backend_buffer_type_t>)>;

    // Makes the graph for this step's shape the context's own.
    void activate(live_graph_ref context, const graph_options & options, uint32_t n_tokens, uint32_t n_outputs,
                  llm_graph_type type, const std::vector<ggml_backend_buffer_type_t> & buffer_types,
                  const make_sched & make);

    // Makes upstream's own pair active and frees all others. Upstream calls this before it lays its memory
    // out anew, which an adapter or a control vector makes it do, and before it shifts the KV cache.
    void reset(live_graph_ref context);

    // Notes that a graph has run, which was activated before.
    void note_run(const llm_graph_result * result) { last = result; }

    // Notes that the active graph was reset.
    void forget_last_run() { last = nullptr; }

    // What the last step left; null if no step has run since graphs were last activated or reset.
    const llm_graph_result * last_run() const { return last; }

    // Frees the parked graphs of draft heads, or of bridges, which will not come back.
    void forget_draft_heads();
    void forget_bridges();

    // Whether memory stays readable, and as it is until another graph runs, when graphs are freed.
    bool outlives_graphs(const void * memory) const { return arena.holds(memory); }

    // The buffer types that every scheduler of the context allocates from: of these, one a backend, those
    // that graphs can share.
    std::vector<ggml_backend_buffer_type_t> buffer_types(const std::vector<ggml_backend_buffer_type_t> & types) {
        return arena.shared(types);
    }

    // The type that one of them stands for.
    ggml_backend_buffer_type_t plain_type(ggml_backend_buffer_type_t type) const {
        return arena.is_shared(type) ? ggml_backend_cpu_buffer_type() : type;
    }

    // Bytes of compute buffers of all graphs, the active scheduler's included, for one backend.
    size_t buffer_size(ggml_backend_sched_t active, ggml_backend_t backend) const;

    size_t size() const { return parked.size(); }

    // Counts every step and every reset: while it stays the same, nothing has written to the KV cache, and
    // the model's adapters are the same.
    uint64_t n_changes() const { return changes; }

    // Counts resets alone.
    uint64_t n_resets() const { return resets; }

  private:
    struct key {
        bool           upstream = true;  // the pair for everything that has no graph of its own
        graph_options  options;
        uint32_t       n_tokens  = 0;
        uint32_t       n_outputs = 0;
        llm_graph_type type      = LLM_GRAPH_TYPE_DEFAULT;

        bool operator==(const key & other) const {
            return upstream == other.upstream &&
                   (upstream || (options == other.options && n_tokens == other.n_tokens &&
                                 n_outputs == other.n_outputs && type == other.type));
        }
    };
    struct entry {
        key        name;
        live_graph graph;
    };

    uint64_t                 changes = 0;
    uint64_t                 resets  = 0;
    const llm_graph_result * last    = nullptr;

    compute_arena    arena;  // before the graphs that lie in it, so that it is freed after them
    key              current;
    std::list<entry> parked;  // most recently parked first

    void switch_to(live_graph_ref context, const key & wanted,
                   const std::vector<ggml_backend_buffer_type_t> & buffer_types, const make_sched & make);
};

}  // namespace ecl
