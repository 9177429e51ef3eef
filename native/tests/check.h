// The harness of the kernel checks, in the manner of dav1d's checkasm: each family of kernels is run over
// a table of instruction sets, formats and sizes, on random and on worst-case input, and compared with a
// plain reference, guards around what it writes included. With --bench the same calls are timed.
#pragma once

#include "product/product.h"

#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace ecl_check {

struct Options {
    bool        bench = false;
    int         threads = 0, mb = 400, reps = 7;  // of a bench: weights of so many megabytes
    std::string isas, formats;                    // comma-separated names; empty: all

    static bool listed(const std::string & list, const std::string & name) {
        return list.empty() || ("," + list + ",").find("," + name + ",") != std::string::npos;
    }
    bool wants(const ecl::KernelSet & set) const { return listed(isas, set.name); }
    bool wants(ecl::Format f) const { return listed(formats, ecl::format_info(f).name); }
};

// The families.
void check_products(const Options & options);
void check_backend(const Options & options);
void check_attention(const Options & options);

inline int failures = 0;

// Reports a failed expectation; the checks go on.
inline void expect(bool ok, const std::string & what) {
    if (!ok) {
        ++failures;
        std::fprintf(stderr, "FAIL %s\n", what.c_str());
    }
}

inline bool same_bits(const float * a, const float * b, int64_t n) {
    return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

// 64-byte aligned memory between two guards that show a write outside it.
class Guarded {
  public:
    explicit Guarded(size_t bytes) : bytes(bytes), storage(bytes + 3 * guard, fill) {
        data = reinterpret_cast<uint8_t *>((reinterpret_cast<uintptr_t>(storage.data()) + guard + 63) / 64 * 64);
        std::fill_n(data, bytes, uint8_t{ 0 });
    }
    Guarded(const Guarded &) = delete;

    bool intact() const {
        const auto kept = [](uint8_t byte) { return byte == fill; };
        return std::all_of(storage.data(), static_cast<const uint8_t *>(data), kept) &&
               std::all_of(static_cast<const uint8_t *>(data) + bytes, storage.data() + storage.size(), kept);
    }

    uint8_t * data;

  private:
    static constexpr uint8_t fill  = 0xa5;
    static constexpr size_t  guard = 64;
    size_t                   bytes;
    std::vector<uint8_t>     storage;
};

inline ggml_type type_of(ecl::Format f) {
    switch (f) {
        case ecl::Format::q4_0: return GGML_TYPE_Q4_0;
        case ecl::Format::q4_1: return GGML_TYPE_Q4_1;
        case ecl::Format::q5_0: return GGML_TYPE_Q5_0;
        case ecl::Format::q8_0: return GGML_TYPE_Q8_0;
        case ecl::Format::q4_k: return GGML_TYPE_Q4_K;
        case ecl::Format::q5_k: return GGML_TYPE_Q5_K;
        case ecl::Format::q6_k: return GGML_TYPE_Q6_K;
        case ecl::Format::f16: return GGML_TYPE_F16;
    }
    return GGML_TYPE_COUNT;
}

using Random = std::mt19937;

inline float uniform(Random & r) {
    return (float) (r() & 0xffffff) / 16777216.0f * 2.0f - 1.0f;
}

enum class Blocks {
    quantized,  // of random floats, as a file would hold
    random,     // every bit random, scales finite and moderate
    zero,
    extreme,    // quants and sub-block scales at their ends, scales at the ends of f16
    subnormal,  // f16 scales below 2^-14
};

constexpr int block_kinds = 5;

inline const char * name(Blocks b) {
    const char * names[] = { "quantized", "random", "zero", "extreme", "subnormal" };
    return names[(int) b];
}

// Offsets of the f16 fields in a block of each type.
inline std::vector<size_t> half_fields(ecl::Format f) {
    switch (f) {
        case ecl::Format::q4_1:
        case ecl::Format::q4_k:
        case ecl::Format::q5_k: return { 0, 2 };
        case ecl::Format::q6_k: return { 208 };
        case ecl::Format::f16: return { 0 };
        default: return { 0 };
    }
}

inline uint16_t half_pattern(Blocks kind, ecl::Format f, Random & r) {
    const uint16_t sign = (uint16_t) ((r() & 1) << 15);
    switch (kind) {
        case Blocks::zero: return 0;
        case Blocks::subnormal: return (uint16_t) (sign | (r() % 0x400));
        case Blocks::extreme: return (uint16_t) (sign | (r() % 3 == 0 ? 0x7bff : r() % 2 ? 0x0001 : 0x3c00));
        default:
            // between 2^-14 and 1, f16 weights up to 4
            return (uint16_t) (sign | (0x0400 + r() % (f == ecl::Format::f16 ? 0x4000 : 0x3800)));
    }
}

// rows x k weights in ggml's own blocks.
inline std::vector<uint8_t> make_weights(ecl::Format f, Blocks kind, int64_t rows, int64_t k, Random & r) {
    const ggml_type type = type_of(f);
    const size_t row_bytes = ggml_row_size(type, k);
    std::vector<uint8_t> w((size_t) rows * row_bytes);
    if (kind == Blocks::quantized) {
        std::vector<float> x((size_t) (rows * k));
        for (float & v : x) {
            v = (uniform(r) + uniform(r) + uniform(r)) * 0.05f;
        }
        ggml_quantize_chunk(type, x.data(), w.data(), 0, rows, k, nullptr);
        return w;
    }
    const size_t block = ggml_type_size(type);
    for (size_t i = 0; i < w.size(); i += block) {
        const unsigned ends = r() % 3;  // extreme: all bits set, only the top bits, or both kinds of bytes
        for (size_t j = i; j < i + block; ++j) {
            const uint8_t extreme = ends == 0 || (ends == 2 && r() % 2) ? 0xff : 0x80;
            w[j] = kind == Blocks::zero ? 0 : kind == Blocks::extreme ? extreme : (uint8_t) r();
        }
        for (const size_t field : half_fields(f)) {
            const uint16_t h = half_pattern(kind, f, r);
            std::memcpy(w.data() + i + field, &h, sizeof h);
        }
    }
    return w;
}

}  // namespace ecl_check
