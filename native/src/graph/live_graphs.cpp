#include "graph/live_graphs.h"

#include <algorithm>
#include <utility>

namespace ecl {

void live_graphs::activate(live_graph_ref context, const graph_options & options, uint32_t n_tokens,
                           uint32_t n_outputs, llm_graph_type type,
                           const std::vector<ggml_backend_buffer_type_t> & buffer_types, const make_sched & make) {
    ++changes;
    last = nullptr;  // what follows may overwrite or free it
    key wanted;
    if (n_tokens <= max_tokens && !options.probe) {
        wanted.upstream  = false;
        wanted.options   = options;
        wanted.n_tokens  = n_tokens;
        wanted.n_outputs = n_outputs;
        wanted.type      = type;
    }
    if (!(wanted == current)) {
        switch_to(context, wanted, buffer_types, make);
    }
}

void live_graphs::switch_to(live_graph_ref context, const key & wanted,
                            const std::vector<ggml_backend_buffer_type_t> & buffer_types, const make_sched & make) {
    live_graph next;
    const auto found =
        std::find_if(parked.begin(), parked.end(), [&](const entry & e) { return e.name == wanted; });
    if (found != parked.end()) {
        next = std::move(found->graph);
        parked.erase(found);
    } else {
        next.sched.reset(make(arena.shared(buffer_types)));
    }
    context.swap(next);
    parked.push_front({ std::move(current), std::move(next) });
    current = wanted;

    size_t n_graphs = 1;
    for (auto it = parked.begin(); it != parked.end();) {
        if (it->name.upstream || ++n_graphs <= max_graphs) {
            ++it;
        } else {
            it = parked.erase(it);
        }
    }
}

void live_graphs::reset(live_graph_ref context) {
    ++changes;
    ++resets;
    last = nullptr;
    const auto upstream =
        std::find_if(parked.begin(), parked.end(), [](const entry & e) { return e.name.upstream; });
    if (upstream != parked.end()) {
        context.swap(upstream->graph);
    }
    parked.clear();
    current = key();
}

void live_graphs::forget_draft_heads() {
    parked.remove_if([](const entry & e) { return e.name.options.head != nullptr; });
}

void live_graphs::forget_bridges() {
    parked.remove_if([](const entry & e) { return e.name.options.bridges != nullptr; });
}

size_t live_graphs::buffer_size(ggml_backend_sched_t active, ggml_backend_t backend) const {
    if (arena.is_shared(ggml_backend_sched_get_buffer_type(active, backend))) {
        return arena.size();
    }
    size_t size = ggml_backend_sched_get_buffer_size(active, backend);
    for (const entry & e : parked) {
        size += ggml_backend_sched_get_buffer_size(e.graph.sched.get(), backend);
    }
    return size;
}

}  // namespace ecl
