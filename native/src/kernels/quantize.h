// Quantization of activation columns, as ggml does it: Q8_K for K-quants, else Q8_0 and Q8_1, but
// with the float scale kept in f32 where ggml rounds it to f16. Plain C++ that compilers
// vectorize; each instruction set's file includes it and gets its own copy.
#pragma once

#include "kernels.h"

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

// Nearest even, by adding 1.5 * 2^23 (|x * factor| is at most 127). Returns the sum of the 16.
inline int32_t round16(const float * x, float factor, int8_t * q) {
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) {
        const float shifted = x[i] * factor + 12582912.0f;
        const int32_t v = float_bits(shifted) - 0x4b400000;
        q[i] = (int8_t) v;
        sum += (int8_t) v;
    }
    return sum;
}

// One block of 32 or 256 values; sums[i] is the sum of the i-th 16.
inline float quantize_block(const float * x, int size, int n, int c, int8_t * q, int32_t * sums) {
    const float amax = max_abs(x, size);
    float factor, scale;
    if (size == 32) {
        // Below 2^-80 the products with weight scales could leave the normal floats; ggml's f16
        // scale is zero there too.
        const bool tiny = amax < 0x1p-80f;
        factor = tiny ? 0.0f : 127.0f / amax;
        scale = tiny ? 0.0f : amax / 127.0f;
    } else {
        const bool tiny = amax < 0x1p-119f;  // 127 / amax would be infinite
        const float peak = max_positive(x, size) == amax ? amax : -amax;
        factor = tiny ? 0.0f : -127.0f / peak;
        scale = tiny ? 0.0f : 1.0f / factor;
    }
    for (int i = 0; i < size / 16; ++i) {
        sums[i] = round16(x + 16 * i, factor, q + ((size_t) i * n + c) * 16);
    }
    return scale;
}

inline void quantize_column(Format format, const float * x, int k_begin, int k_end, int k_valid,
                            int c, const Activations & a) {
    const FormatInfo & f = format_info(format);
    const int n = a.n;
    if (f.scale_k == 0) {
        for (int k = k_begin; k < k_end; ++k) {
            a.values[(size_t) k * n + c] = k < k_valid ? x[k] : 0.0f;
        }
        return;
    }
    for (int k = k_begin; k < k_end; k += f.scale_k) {
        // Only formats with blocks of 32 are padded, and by whole blocks.
        static constexpr float zeros[32] = {};
        const float * src = k < k_valid ? x + k : zeros;
        int32_t sums[super_k / 16];
        const float scale = quantize_block(src, f.scale_k, n, c, a.q + (size_t) k * n, sums);
        a.scale[(size_t) (k / f.scale_k) * n + c] = scale;

        if (f.sum_k == 32) {
            for (int i = 0; i < f.scale_k / 32; ++i) {
                sums[i] = sums[2 * i] + sums[2 * i + 1];
            }
        }
        if (f.offset != 0) {
            const int first = k / f.sum_k;
            for (int i = 0; i < f.scale_k / f.sum_k; ++i) {
                const bool shifted = (first + i) % f.period == f.period - 1;
                const int weight_offset = f.offset * (shifted ? 1 << f.shift : 1);
                a.init[(size_t) (first + i) * n + c] = -weight_offset * sums[i];
            }
        }
        if (f.mins) {
            // The mins of a dword are used in two steps: bytes 0 and 2, then bytes 1 and 3.
            const int low[4] = { 0, 1, 4, 5 };
            for (int i = 0; i < 4; ++i) {
                const uint32_t a16 = (uint16_t) sums[low[i]], b16 = (uint16_t) sums[low[i] + 2];
                a.pair_sums[(size_t) (k / 64 + i) * n + c] = (int32_t) (a16 | (b16 << 16));
            }
        }
        if (f.float_mins) {
            a.block_sum[(size_t) (k / 32) * n + c] = scale * (float) sums[0];
        }
    }
}

}  // namespace
}  // namespace ecl
