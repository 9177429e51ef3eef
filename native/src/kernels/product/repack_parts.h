// What packing and unpacking rows share (see repack.cpp for the layout).
#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include "product/product.h"

#include <cstring>

namespace ecl {

inline uint32_t load32(const void * p) {
    uint32_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline void store32(uint8_t * p, uint32_t v) {
    std::memcpy(p, &v, sizeof v);
}

// A row's 64 quants of a chunk, unsigned, four to a dword.
struct Quads {
    uint32_t q[16];
};

constexpr uint32_t low6 = 0x3f3f3f3fu;
constexpr uint32_t low5 = 0x1f1f1f1fu;
constexpr uint32_t low4 = 0x0f0f0f0fu;
constexpr uint32_t low3 = 0x07070707u;
constexpr uint32_t low2 = 0x03030303u;
constexpr uint32_t low1 = 0x01010101u;

template <Format F> struct Source;
template <> struct Source<Format::q4_0> { using Block = block_q4_0; };
template <> struct Source<Format::q4_1> { using Block = block_q4_1; };
template <> struct Source<Format::q5_0> { using Block = block_q5_0; };
template <> struct Source<Format::q8_0> { using Block = block_q8_0; };
template <> struct Source<Format::q4_k> { using Block = block_q4_K; };
template <> struct Source<Format::q5_k> { using Block = block_q5_K; };
template <> struct Source<Format::q6_k> { using Block = block_q6_K; };

// Where a chunk of a group begins; where a K-quant super-block has a prefix, chunk 0's comes first.
inline size_t chunk_offset(const FormatInfo & f, int64_t chunk) {
    return chunk * f.chunk_bytes + (f.prefix_bytes ? (chunk / 4 + 1) * f.prefix_bytes : 0);
}

}  // namespace ecl
