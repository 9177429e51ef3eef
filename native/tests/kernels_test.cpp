// The kernels alone, without ggml's CPU backend: one group at a time against a scalar kernel that
// works on ggml's own blocks. Every instruction set that this CPU has must give the scalar kernel's
// bits for every number of columns.
#include "kernels_reference.h"

#include <cinttypes>

using namespace ecl;
using namespace ecl_test;

namespace {

float half(const uint8_t * p) {
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

Element element(Format f, const uint8_t * row, int64_t k) {
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
Column quantize(Format f, const std::vector<float> & x, int64_t kp) {
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
float scalar_dot(Format f, const uint8_t * row, int64_t k, const Column & c) {
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

static_assert(max_columns == 8, "one kind of column each");

std::vector<float> make_column(int64_t k, int kind, Random & r) {
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

uint32_t bits(float f) {
    uint32_t u;
    std::memcpy(&u, &f, sizeof u);
    return u;
}

// -0 and 0 are the same result: a sum of zeros can be either.
bool same(float a, float b) {
    return bits(a) == bits(b) || (a == 0 && b == 0) || (std::isnan(a) && std::isnan(b));
}

void test_case(const KernelSet & set, Format f, Blocks kind, int64_t rows, int64_t k) {
    Random r(1234u + 7u * (unsigned) rows + 13u * (unsigned) k + 17u * (unsigned) f + 19u * (unsigned) kind);
    const std::vector<uint8_t> w = make_weights(f, kind, rows, k, r);
    const size_t row_bytes = ggml_row_size(type_of(f), k);
    const int64_t groups = (rows + group_rows - 1) / group_rows, kp = padded_k(f, k);
    const size_t size = group_bytes(f, k);
    Aligned packed(groups * size);
    repack(f, w.data(), row_bytes, rows, k, 0, groups, packed.data);

    std::vector<std::vector<float>> x;
    std::vector<std::vector<float>> want;
    for (int c = 0; c < max_columns; ++c) {
        x.push_back(make_column(k, c, r));
        const Column column = quantize(f, x.back(), kp);
        want.emplace_back();
        for (int64_t row = 0; row < rows; ++row) {
            want.back().push_back(scalar_dot(f, w.data() + row * row_bytes, k, column));
        }
    }
    for (int n = 1; n <= max_columns; ++n) {
        for (int shift = 0; shift < max_columns; shift += 3) {
            Aligned memory(activation_bytes(f, kp, n));
            const Activations a = activations_at(f, kp, n, memory.data);
            for (int c = 0; c < n; ++c) {
                for (int64_t begin = 0; begin < kp; begin += super_k) {
                    const int end = (int) std::min<int64_t>(kp, begin + super_k);
                    set.quantize(f, x[(c + shift) % max_columns].data(), (int) begin, end, (int) k, c, a);
                }
            }
            for (int64_t g = 0; g < groups; ++g) {
                std::vector<float> y((size_t) (n * group_rows));
                set.multiply[(int) f][n - 1](packed.data + g * size, a, y.data(), group_rows);
                for (int c = 0; c < n; ++c) {
                    for (int row = 0; row < group_rows && g * group_rows + row < rows; ++row) {
                        const float got = y[c * group_rows + row];
                        const float expected = want[(c + shift) % max_columns][g * group_rows + row];
                        if (!same(got, expected)) {
                            char text[200];
                            std::snprintf(text, sizeof text,
                                          "%s %s %s %" PRId64 "x%" PRId64 " n=%d column %d row %d: %.9g, not %.9g",
                                          set.name, format_info(f).name, name(kind), rows, k, n, c, row, got, expected);
                            expect(false, text);
                            return;
                        }
                    }
                }
            }
        }
    }
}

// Unpacked rows are the original ones, bit for bit.
void test_unpack(Format f, Blocks kind, int64_t rows, int64_t k) {
    Random r(4321u + 7u * (unsigned) rows + 13u * (unsigned) k + 17u * (unsigned) f + 19u * (unsigned) kind);
    const std::vector<uint8_t> w = make_weights(f, kind, rows, k, r);
    const size_t row_bytes = ggml_row_size(type_of(f), k);
    const int64_t groups = (rows + group_rows - 1) / group_rows;
    Aligned packed(groups * group_bytes(f, k));
    repack(f, w.data(), row_bytes, rows, k, 0, groups, packed.data);
    std::vector<uint8_t> row(row_bytes);
    for (int64_t i = 0; i < rows; ++i) {
        unpack(f, packed.data, row_bytes, k, i, row.data());
        if (std::memcmp(row.data(), w.data() + i * row_bytes, row_bytes) != 0) {
            expect(false, std::string("unpacked ") + format_info(f).name + " " + name(kind) + ": row " +
                              std::to_string(i) + " of " + std::to_string(rows) + "x" + std::to_string(k));
            return;
        }
    }
}

// Calls test(format, kind of blocks, rows, k); returns how often.
template <class Test> int each_case(const Test & test) {
    int cases = 0;
    for (int i = 0; i < n_formats; ++i) {
        const Format f = (Format) i;
        const int64_t block = ggml_blck_size(type_of(f));
        for (int kind = 0; kind < 5; ++kind) {
            for (const int64_t rows : { 16, 1, 23, 48 }) {
                // 32-block formats also with a k that is not a multiple of 64, F16 with odd ones
                for (const int64_t k : { (int64_t) 256, (int64_t) 1536, block, 3 * block, 21 * block }) {
                    test(f, (Blocks) kind, rows, k);
                    ++cases;
                }
            }
        }
    }
    return cases;
}

int test_set(const KernelSet & set, const char * variant) {
    const int failed_before = failures;
    const int cases =
        each_case([&](Format f, Blocks kind, int64_t rows, int64_t k) { test_case(set, f, kind, rows, k); });
    std::printf("%s%s: %d cases, %d failures\n", set.name, variant, cases, failures - failed_before);
    return cases;
}

}  // namespace

// The sets named on the command line, which must exist, or all that this CPU has.
int main(int argc, char ** argv) {
    const KernelSet * sets[max_sets];
    const int n = available_kernels(sets);
    int cases = 0;
    each_case(test_unpack);
    for (int i = 0; i < n; ++i) {
        bool wanted = argc == 1;
        for (int j = 1; j < argc; ++j) {
            wanted = wanted || std::string(argv[j]) == sets[i]->name;
        }
        if (wanted) {
            cases += test_set(*sets[i], "");
#if defined(__x86_64__)
            for (const bool few : { false, true }) {
                if (sets[i] == kernels_avx512vnni(!few)) {
                    test_set(*kernels_avx512vnni(few), " (the other way to broadcast)");
                }
            }
#endif
        }
    }
    expect(cases > 0 || (n == 0 && argc == 1), "no kernel set was tested");
    if (n == 0) {
        std::printf("this CPU has no kernel: nothing to test\n");
    }
    return failures ? 1 : 0;
}
