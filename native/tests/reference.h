// A plain matrix product on ggml's own blocks, in the order of float operations that product.h promises,
// and columns to multiply with.
#pragma once

#include "check.h"

namespace ecl_check {

using namespace ecl;

inline float half(const uint8_t * p) {
    ggml_fp16_t h;
    std::memcpy(&h, p, sizeof h);
    return ggml_fp16_to_fp32(h);
}

// Integer weight, and float scale and minimum, of element k of a row in ggml's blocks:
// the weight is scale * (quant - offset) + min.
struct Element {
    int quant;       // without the offset
    float d, min;    // of the block
    int scale;       // integer scale of the sub-block, 1 where the format has none
    int sub_min;
};

inline Element element(Format f, const uint8_t * row, int64_t k) {
    const auto nibble = [](const uint8_t * qs, int j) { return j < 16 ? qs[j] & 15 : qs[j - 16] >> 4; };
    const int j = (int) (k % 32);
    const uint8_t * b;
    switch (f) {
        case Format::q4_0: b = row + k / 32 * 18; return { nibble(b + 2, j) - 8, half(b), 0, 1, 0 };
        case Format::q4_1: b = row + k / 32 * 20; return { nibble(b + 4, j), half(b), half(b + 2), 1, 0 };
        case Format::q5_0: {
            b = row + k / 32 * 22;
            uint32_t high;
            std::memcpy(&high, b + 2, 4);
            return { (nibble(b + 6, j) | (int) (high >> j & 1) << 4) - 16, half(b), 0, 1, 0 };
        }
        case Format::q8_0: b = row + k / 32 * 34; return { (int8_t) b[2 + j], half(b), 0, 1, 0 };
        case Format::q4_k:
        case Format::q5_k: {
            const bool five = f == Format::q5_k;
            b = row + k / 256 * (five ? 176 : 144);
            const int i = (int) (k % 256), s = i / 32;
            const uint8_t * sc = b + 4, * qs = b + (five ? 48 : 16) + i / 64 * 32;
            int q = s % 2 ? qs[j] >> 4 : qs[j] & 15;
            if (five) {
                q |= (b[16 + j] >> s & 1) << 4;
            }
            const int scale = s < 4 ? sc[s] & 63 : (sc[s + 4] & 15) | (sc[s - 4] >> 6) << 4;
            const int min = s < 4 ? sc[s + 4] & 63 : sc[s + 4] >> 4 | (sc[s] >> 6) << 4;
            return { q, half(b), half(b + 2), scale, min };
        }
        case Format::q6_k: {
            b = row + k / 256 * 210;
            const int i = (int) (k % 128), h = (int) (k % 256 / 128);
            const uint8_t * ql = b + 64 * h, * qh = b + 128 + 32 * h;
            const int low = i < 64 ? ql[i] & 15 : ql[i - 64] >> 4;
            const int high = qh[i % 32] >> (2 * (i / 32)) & 3;
            return { (low | high << 4) - 32, half(b + 208), 0, (int8_t) b[192 + k % 256 / 16], 0 };
        }
        case Format::f16: return { 1, half(row + 2 * k), 0, 1, 0 };
    }
    return {};
}

// One column, plainly laid out.
struct Column {
    std::vector<int8_t> q;
    std::vector<float> scale, x;
};

// Independent of quantize.h: rounds with nearbyint and keeps f32 scales.
inline Column quantize(Format f, const std::vector<float> & x, int64_t kp) {
    Column c;
    c.x = x;
    c.x.resize((size_t) kp, 0.0f);
    const int block = format_info(f).scale_k;
    if (block == 0) {
        return c;
    }
    c.q.resize((size_t) kp);
    for (int64_t b = 0; b < kp; b += block) {
        float amax = 0, top = 0;
        for (int i = 0; i < block; ++i) {
            amax = std::max(amax, std::fabs(c.x[b + i]));
            top = std::max(top, c.x[b + i]);
        }
        float factor = 0, scale = 0;
        if (block == 32 && amax >= std::ldexp(1.0f, -80)) {
            factor = 127.0f / amax;
            scale = amax / 127.0f;
        } else if (block == 256 && amax >= std::ldexp(1.0f, -119)) {
            factor = -127.0f / (top == amax ? amax : -amax);
            scale = 1.0f / factor;
        }
        c.scale.push_back(scale);
        for (int i = 0; i < block; ++i) {
            c.q[b + i] = (int8_t) std::nearbyint(c.x[b + i] * factor);
        }
    }
    return c;
}

// The order of float operations that every kernel follows.
inline float scalar_dot(Format f, const uint8_t * row, int64_t k, const Column & c) {
    const FormatInfo & info = format_info(f);
    float sum = 0;
    if (f == Format::f16) {
        for (int64_t b = 0; b < k; b += chunk_k) {
            float half_sum[2] = { 0, 0 };
            for (int64_t i = b; i < std::min<int64_t>(k, b + chunk_k); ++i) {
                half_sum[i % 2] = std::fma(element(f, row, i).d, c.x[i], half_sum[i % 2]);
            }
            sum += half_sum[0] + half_sum[1];
        }
        return sum;
    }
    const auto dot = [&](int64_t begin, int n) {
        int s = 0;
        for (int64_t i = begin; i < begin + n; ++i) {
            s += element(f, row, i).quant * c.q[i];
        }
        return s;
    };
    const auto total = [&](int64_t begin, int n) {
        int s = 0;
        for (int64_t i = begin; i < begin + n; ++i) {
            s += c.q[i];
        }
        return s;
    };
    if (info.scale_k == 32) {
        for (int64_t b = 0; b < k; b += 32) {
            const Element e = element(f, row, b);
            const float dx = c.scale[b / 32];
            sum = std::fma((float) dot(b, 32), e.d * dx, sum);
            if (info.float_mins) {
                sum = std::fma(e.min, dx * (float) total(b, 32), sum);
            }
        }
        return sum;
    }
    for (int64_t b = 0; b < k; b += super_k) {
        float partial = 0;
        if (info.mins) {
            int m = 0;
            for (int s = 0; s < 8; ++s) {
                m += element(f, row, b + 32 * s).sub_min * total(b + 32 * s, 32);
            }
            partial = (float) m * -element(f, row, b).min;
        }
        for (int64_t s = b; s < b + super_k; s += info.sum_k) {
            const Element e = element(f, row, s);
            partial = std::fma((float) dot(s, info.sum_k), (float) e.scale * e.d, partial);
        }
        sum = std::fma(partial, c.scale[b / super_k], sum);
    }
    return sum;
}

constexpr int column_kinds = 8;

inline std::vector<float> make_column(int64_t k, int kind, Random & r) {
    std::vector<float> x((size_t) k);
    for (size_t i = 0; i < x.size(); ++i) {
        switch (kind) {
            case 0: x[i] = uniform(r) + uniform(r); break;
            case 1: x[i] = uniform(r) * 1e4f + 3; break;
            case 2: x[i] = i % 97 == 5 ? -300.0f : uniform(r) * 0.01f; break;  // an outlier channel
            case 3: x[i] = i / 64 % 2 ? 0.0f : uniform(r); break;
            case 4: x[i] = uniform(r) * 1e-30f; break;
            case 5: x[i] = i % 2 ? 1.0f : -1.0f; break;
            case 6: x[i] = -2.5f; break;  // every quant at its end: the largest integer sums
            default: x[i] = i % 2 ? 1e-42f : 0.5f; break;
        }
    }
    return x;
}

}  // namespace ecl_check
