// One piece of host memory for the intermediate results of all live graphs.
//
// Only one graph of a context runs at a time, and every input is set before each run, so graphs may
// lie over each other. Memory that is only reserved costs nothing until it is touched.
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

    // The next allocation is for a graph of this many tokens, the largest to come has max_tokens.
    void expect(uint32_t n_tokens, uint32_t max_tokens);

    // The largest allocation so far, in bytes.
    size_t used() const { return largest; }

    // Frees everything; no graph may use it any more.
    void clear();

  private:
    ggml_backend_buffer_type               type;
    std::vector<std::unique_ptr<uint8_t[]>> blocks;  // the last one is handed out, all others still in use
    size_t                                 capacity = 0;
    size_t                                 largest  = 0;
    size_t                                 growth   = 1;

    static ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size);
};

}  // namespace ecl
