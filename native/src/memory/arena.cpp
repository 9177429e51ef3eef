#include "memory/arena.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <new>

namespace ecl {

namespace {

constexpr size_t alignment = 64;

uint8_t * aligned(uint8_t * memory) {
    return memory + (alignment - reinterpret_cast<uintptr_t>(memory) % alignment) % alignment;
}

void free_zeroed(ggml_backend_buffer_t buffer) {
    // The address that calloc gave is kept in front of the buffer.
    std::free(static_cast<void **>(buffer->context)[-1]);
}

ggml_backend_buffer_t allocate_zeroed(ggml_backend_buffer_type_t, size_t size) {
    auto * memory = static_cast<uint8_t *>(std::calloc(size + sizeof(void *) + alignment, 1));
    if (memory == nullptr) {
        return nullptr;
    }
    uint8_t * start = aligned(memory + sizeof(void *));
    reinterpret_cast<void **>(start)[-1] = memory;
    ggml_backend_buffer_t buffer = ggml_backend_cpu_buffer_from_ptr(start, size);
    buffer->iface.free_buffer    = free_zeroed;
    return buffer;
}

}  // namespace

compute_arena::compute_arena() : type(*ggml_backend_cpu_buffer_type()) {
    type.iface.alloc_buffer = allocate;
    type.context            = this;
}

std::vector<ggml_backend_buffer_type_t> compute_arena::shared(std::vector<ggml_backend_buffer_type_t> types) {
    std::replace(types.begin(), types.end(), ggml_backend_cpu_buffer_type(), &type);
    return types;
}

size_t compute_arena::size() const {
    size_t size = 0;
    for (const block & each : blocks) {
        size += each.size;
    }
    return size;
}

bool compute_arena::holds(const void * address) const {
    const auto * byte = static_cast<const uint8_t *>(address);
    return std::any_of(blocks.begin(), blocks.end(), [&](const block & each) {
        const uint8_t * begin = each.memory.get();
        return !std::less<>()(byte, begin) && std::less<>()(byte, begin + each.size + alignment);
    });
}

ggml_backend_buffer_t compute_arena::allocate(ggml_backend_buffer_type_t type, size_t size) {
    auto & blocks = static_cast<compute_arena *>(type->context)->blocks;
    if (blocks.empty() || size > blocks.back().size) {
        std::unique_ptr<uint8_t[]> memory(new (std::nothrow) uint8_t[size + alignment]);
        if (memory == nullptr) {
            return nullptr;
        }
        blocks.push_back({ std::move(memory), size });
    }
    return ggml_backend_cpu_buffer_from_ptr(aligned(blocks.back().memory.get()), size);
}

ggml_backend_buffer_type_t zeroed_buffer_type() {
    static ggml_backend_buffer_type type = [] {
        ggml_backend_buffer_type zeroed = *ggml_backend_cpu_buffer_type();
        zeroed.iface.alloc_buffer       = allocate_zeroed;
        return zeroed;
    }();
    return &type;
}

}  // namespace ecl
