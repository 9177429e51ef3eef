// Quantization of activation columns, as ggml does it: Q8_K for K-quants, else Q8_0 and Q8_1, but
// with the float scale kept in f32 where ggml rounds it to f16. Plain C++ that compilers
// vectorize; each instruction set's file includes it and gets its own copy.
#pragma once

#include "product/product.h"

#include <cstring>

namespace ecl {
namespace {

inline int32_t float_bits(float x) {
    int32_t i;
    std::memcpy(&i, &x, sizeof i);
    return i;
}

inline float bits_float(int32_t i) {
    float x;
    std::memcpy(&x, &i, sizeof x);
    return x;
}

// Bit patterns of non-negative floats are ordered as the floats are, and integer maxima vectorize.
inline float max_abs(const float * x, int n) {
    int32_t m = 0;
    for (int i = 0; i < n; ++i) {
        const int32_t b = float_bits(x[i]) & 0x7fffffff;
        m = b > m ? b : m;
    }
    return bits_float(m);
}

// The largest positive value, or 0.
inline float max_positive(const float * x, int n) {
    int32_t m = 0;
    for (int i = 0; i < n; ++i) {
        const int32_t b = float_bits(x[i]);
        m = b > m ? b : m;
    }
    return bits_float(m);
}

// Vectors of the compiler (gcc and clang lower them to what the target has): left to loops, these
// 16 steps are unrolled and stay scalar.
typedef float Float16 __attribute__((vector_size(64)));
typedef int32_t Int16 __attribute__((vector_size(64)));
typedef int32_t Int8 __attribute__((vector_size(32)));
typedef int32_t Int4 __attribute__((vector_size(16)));
typedef int8_t Byte16 __attribute__((vector_size(16)));

// Nearest even, by adding 1.5 * 2^23 (|x * factor| is at most 127). Returns the sum of the 16.
inline int32_t round16(const float * x, float factor, int8_t * q) {
    Float16 v;
    std::memcpy(&v, x, sizeof v);
    const Float16 shifted = v * factor + 12582912.0f;
    Int16 rounded;
    std::memcpy(&rounded, &shifted, sizeof rounded);
    rounded -= 0x4b400000;
    const Byte16 bytes = __builtin_convertvector(rounded, Byte16);
    std::memcpy(q, &bytes, sizeof bytes);
    Int8 eights[2];
    std::memcpy(eights, &rounded, sizeof eights);
    const Int8 eight = eights[0] + eights[1];
    Int4 fours[2];
    std::memcpy(fours, &eight, sizeof fours);
    const Int4 four = fours[0] + fours[1];
    return four[0] + four[1] + four[2] + four[3];
}

// One block of Size values; sums[i] is the sum of the i-th 16. Returns the scale.
template <int Size>
inline float quantize_block(const float * x, int n, int c, int8_t * q, int32_t * sums) {
    const float amax = max_abs(x, Size);
    float factor, scale;
    if (Size == 32) {
        // Below 2^-80 the products with weight scales could leave the normal floats; ggml's f16
        // scale is zero there too.
        const bool tiny = amax < 0x1p-80f;
        factor = tiny ? 0.0f : 127.0f / amax;
        scale = tiny ? 0.0f : amax / 127.0f;
    } else {
        const bool tiny = amax < 0x1p-119f;  // 127 / amax would be infinite
        const float peak = max_positive(x, Size) == amax ? amax : -amax;
        factor = tiny ? 0.0f : -127.0f / peak;
        scale = tiny ? 0.0f : 1.0f / factor;
    }
    for (int i = 0; i < Size / 16; ++i) {
        sums[i] = round16(x + 16 * i, factor, q + ((size_t) i * n + c) * 16);
    }
    return scale;
}

template <int Size>
inline void quantize_blocks(const FormatInfo & f, const float * x, int k_begin, int k_end, int k_valid, int c,
                            const Activations & a) {
    const int n = a.n;
    for (int k = k_begin; k < k_end; k += Size) {
        // Only formats with blocks of 32 are padded, and by whole blocks.
        static constexpr float zeros[32] = {};
        const float * src = k < k_valid ? x + k : zeros;
        int32_t sums[Size / 16];
        const float scale = quantize_block<Size>(src, n, c, a.q + (size_t) k * n, sums);
        a.scale[(size_t) (k / Size) * n + c] = scale;

        const bool by16 = f.sum_k == 16;
        if (!by16) {
            for (int i = 0; i < Size / 32; ++i) {
                sums[i] = sums[2 * i] + sums[2 * i + 1];
            }
        }
        if (f.offset != 0) {
            const int first = by16 ? k / 16 : k / 32, count = by16 ? Size / 16 : Size / 32;
            for (int i = 0; i < count; ++i) {
                const bool shifted = ((first + i) & (f.period - 1)) == f.period - 1;
                const int weight_offset = f.offset << (shifted ? f.shift : 0);
                a.init[(size_t) (first + i) * n + c] = -weight_offset * sums[i];
            }
        }
        if constexpr (Size == super_k) {
            if (f.mins) {
                // The mins of a dword are used in two steps: bytes 0 and 2, then bytes 1 and 3.
                const int low[4] = { 0, 1, 4, 5 };
                for (int i = 0; i < 4; ++i) {
                    const uint32_t a16 = (uint16_t) sums[low[i]], b16 = (uint16_t) sums[low[i] + 2];
                    a.pair_sums[(size_t) (k / 64 + i) * n + c] = (int32_t) (a16 | (b16 << 16));
                }
            }
        }
        if (f.float_mins) {
            a.block_sum[(size_t) (k / 32) * n + c] = scale * (float) sums[0];
        }
    }
}

inline void quantize_column(Format format, const float * x, int k_begin, int k_end, int k_valid,
                            int c, const Activations & a) {
    const FormatInfo & f = format_info(format);
    if (f.scale_k == 32) {
        quantize_blocks<32>(f, x, k_begin, k_end, k_valid, c, a);
    } else if (f.scale_k == super_k) {
        quantize_blocks<super_k>(f, x, k_begin, k_end, k_valid, c, a);
    } else {
        for (int k = k_begin; k < k_end; ++k) {
            a.values[(size_t) k * a.n + c] = k < k_valid ? x[k] : 0.0f;
        }
    }
}

}  // namespace
}  // namespace ecl
