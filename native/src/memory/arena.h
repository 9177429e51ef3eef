// Host memory that all graphs of a context share.
//
// Only one graph of a context runs at a time, and every input is set before each run, so all graphs,
// upstream's own included, lie over each other in one piece of memory: upstream reserves it for its
// largest batch, and the small graphs that stay alive beside it cost none.
//
// memory/ depends on ggml only: memory that is taken late, shared, or given back early.
#pragma once

#include "ggml-backend-impl.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace ecl {

class compute_arena {
  public:
    compute_arena();
    compute_arena(const compute_arena &)             = delete;
    compute_arena & operator=(const compute_arena &) = delete;

    // The types, with plain host memory replaced by the arena's.
    std::vector<ggml_backend_buffer_type_t> shared(std::vector<ggml_backend_buffer_type_t> types);

    bool is_shared(ggml_backend_buffer_type_t type) const { return type == &this->type; }

    // Bytes taken.
    size_t size() const;

    // Whether an address lies in the arena, whose memory is not given back before it ends.
    bool holds(const void * address) const;

  private:
    struct block {
        std::unique_ptr<uint8_t[]> memory;
        size_t                     size;
    };

    ggml_backend_buffer_type type;
    std::vector<block>       blocks;  // the last and largest is handed out; graphs may lie in the others still

    static ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size);
};

// Plain host memory, all zeros, whose pages are not resident before they are touched, where the system can.
ggml_backend_buffer_type_t zeroed_buffer_type();

}  // namespace ecl
