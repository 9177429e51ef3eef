#include "ecl_arena.h"

#include <algorithm>
#include <new>

namespace ecl {

namespace {
constexpr size_t alignment = 64;
}

compute_arena::compute_arena() : type(*ggml_backend_cpu_buffer_type()) {
    type.iface.alloc_buffer = allocate;
    type.context            = this;
}

std::vector<ggml_backend_buffer_type_t> compute_arena::shared(std::vector<ggml_backend_buffer_type_t> types) {
    std::replace(types.begin(), types.end(), ggml_backend_cpu_buffer_type(), &type);
    return types;
}

void compute_arena::expect(uint32_t n_tokens, uint32_t max_tokens) {
    growth = (max_tokens + n_tokens - 1) / n_tokens;
}

void compute_arena::clear() {
    blocks.clear();
    capacity = largest = 0;
}

ggml_backend_buffer_t compute_arena::allocate(ggml_backend_buffer_type_t type, size_t size) {
    auto & arena = *static_cast<compute_arena *>(type->context);
    if (size > arena.capacity) {
        // A graph's memory grows at most in proportion to its tokens.
        const size_t capacity = size * arena.growth;
        auto *       block    = new (std::nothrow) uint8_t[capacity + alignment];
        if (block == nullptr) {
            return nullptr;
        }
        arena.blocks.emplace_back(block);
        arena.capacity = capacity;
    }
    arena.largest    = std::max(arena.largest, size);
    const auto start = (reinterpret_cast<uintptr_t>(arena.blocks.back().get()) + alignment - 1) / alignment * alignment;
    return ggml_backend_cpu_buffer_from_ptr(reinterpret_cast<void *>(start), size);
}

}  // namespace ecl
