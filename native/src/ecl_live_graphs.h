// Several decode graphs alive at once.
//
// Upstream keeps one reusable graph and one scheduler for it. Drafting and verification alternate
// between graphs, so each switch would build, split and allocate anew. Here every small batch shape
// with its mask has a graph and a scheduler of its own; switching swaps pointers. Large batches
// (prompts) and probes, which are rare and keep many tensors, stay on upstream's own pair.
//
// What must hold: llama_context's members are always the active graph's, so upstream's code reads
// the right one without knowing; and upstream's own pair is active whenever upstream resets it.
#pragma once

#include "ecl_arena.h"
#include "ecl_graph.h"

#include "ggml-cpp.h"
#include "llama-graph.h"

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

    // Makes upstream's own pair active and frees all others.
    void reset(live_graph_ref context);

    // Frees the parked graphs of draft heads, which will not come back.
    void forget_draft_heads();

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

    // Graphs run so far: whatever writes to the KV cache is among them.
    uint64_t n_runs() const { return runs; }

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
        struct key name;
        live_graph graph;
    };

    uint64_t         runs = 0;
    compute_arena    arena;  // before the graphs that lie in it, so that it is freed after them
    key              current;
    std::list<entry> parked;  // most recently parked first

    void switch_to(live_graph_ref context, const key & wanted,
                   const std::vector<ggml_backend_buffer_type_t> & buffer_types, const make_sched & make);
};

}  // namespace ecl
