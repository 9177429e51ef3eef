// The attention kernel over a vector type V of one instruction set; included once by each file.
//
// V has: width, type, load(const float *), load_half(const uint16_t *), store, set1, zero, fma, add,
// mul, sub, max, exp (0 for minus infinity), transpose(type[width]); and row_block, how many query
// rows share a loaded vector.

#include "attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace ecl {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
constexpr uint16_t half_minus_infinity = 0xfc00;

template <class V> struct Chunk {
    using vec = typename V::type;
    static constexpr int W = V::width;
    static constexpr int n_blocks = attention_chunk / W;

    const Attention & a;
    const int kv_head, begin, n_cells;  // of the chunk
    const int group, n_rows;            // row r is token r / group, head kv_head * group + r % group
    float * const scores;               // [n_rows][attention_chunk]
    float * const keys;                 // [dk][W], the block at hand, transposed
    bool active[n_blocks];              // some token sees some cell of the block

    Chunk(const Attention & a, int kv_head, int chunk, float * scratch) :
        a(a),
        kv_head(kv_head),
        begin(chunk * attention_chunk),
        n_cells(std::min(attention_chunk, a.n_cells - begin)),
        group(a.group()),
        n_rows(a.n_tokens * a.group()),
        scores(scratch),
        keys(scratch + static_cast<size_t>(n_rows) * attention_chunk) {}

    const uint16_t * mask_of(int token) const {
        return reinterpret_cast<const uint16_t *>(reinterpret_cast<const char *>(a.mask) + token * a.mask_token) +
               begin;
    }
    const float * query(int row) const {
        const int head = kv_head * group + row % group;
        return reinterpret_cast<const float *>(a.q + (row / group) * a.q_token + head * a.q_head);
    }
    vec load(const char * base, int i) const {
        return a.half ? V::load_half(reinterpret_cast<const uint16_t *>(base) + i)
                      : V::load(reinterpret_cast<const float *>(base) + i);
    }

    int cell_of(int i) const { return a.from != nullptr ? a.from[i] : begin + i; }

    void find_active() {
        for (int b = 0; b < n_blocks; ++b) {
            active[b] = b * W < n_cells && a.mask == nullptr;
            const int end = std::min((b + 1) * W, n_cells);
            for (int t = 0; t < a.n_tokens && !active[b] && a.mask != nullptr; ++t) {
                const uint16_t * mask = mask_of(t);
                active[b] = std::any_of(mask + b * W, mask + std::max(end, b * W),
                                        [](uint16_t m) { return m != half_minus_infinity; });
            }
        }
    }

    void transpose_keys(int block) {
        const char * k = a.k + kv_head * a.k_head;
        for (int d = 0; d < a.dk; d += W) {
            vec rows[W];
            for (int i = 0; i < W; ++i) {
                const int cell = cell_of(std::min(block * W + i, n_cells - 1));  // beyond: masked below
                rows[i] = load(k + cell * a.k_cell, d);
            }
            V::transpose(rows);
            for (int i = 0; i < W; ++i) {
                V::store(keys + (d + i) * W, rows[i]);
            }
        }
    }

    // Dot products of R query rows with the W keys of a block, even and odd dimensions apart.
    template <int R> void score_rows(int row, int block) {
        const float * q[R];
        vec even[R], odd[R];
        for (int i = 0; i < R; ++i) {
            q[i]    = query(row + i);
            even[i] = odd[i] = V::zero();
        }
        for (int d = 0; d < a.dk; d += 2) {
            const vec k0 = V::load(keys + d * W);
            const vec k1 = V::load(keys + (d + 1) * W);
            for (int i = 0; i < R; ++i) {
                even[i] = V::fma(V::set1(q[i][d]), k0, even[i]);
                odd[i]  = V::fma(V::set1(q[i][d + 1]), k1, odd[i]);
            }
        }
        for (int i = 0; i < R; ++i) {
            finish_scores(row + i, block, V::add(even[i], odd[i]));
        }
    }

    void finish_scores(int row, int block, vec dot) {
        float * s = scores + static_cast<size_t>(row) * attention_chunk + block * W;
        V::store(s, V::mul(dot, V::set1(a.scale)));
        if (a.softcap != 0.0f) {
            for (int i = 0; i < W; ++i) {
                s[i] = a.softcap * std::tanh(s[i]);
            }
        }
        const int valid = std::min(W, n_cells - block * W);
        if (a.mask != nullptr) {
            const uint16_t * mask = mask_of(row / group) + block * W;
            uint16_t         tail[W];
            if (valid < W) {
                std::fill(std::copy(mask, mask + valid, tail), tail + W, half_minus_infinity);
                mask = tail;
            }
            V::store(s, V::fma(V::set1(slope(row)), V::load_half(mask), V::load(s)));
        } else {
            std::fill(s + valid, s + W, minus_infinity);
        }
    }

    // ALiBi (upstream: ggml_compute_forward_flash_attn_ext_f16_one_chunk)
    float slope(int row) const {
        if (a.max_bias == 0.0f) {
            return 1.0f;
        }
        const uint32_t head   = kv_head * group + row % group;
        const uint32_t n_log2 = 1u << static_cast<uint32_t>(std::floor(std::log2(a.n_heads)));
        return head < n_log2 ? std::pow(std::pow(2.0f, -a.max_bias / n_log2), head + 1.0f)
                             : std::pow(std::pow(2.0f, -a.max_bias / 2.0f / n_log2), 2.0f * (head - n_log2) + 1.0f);
    }

    // Scores to exp(score - maximum), in place; returns maximum and sum.
    std::pair<float, float> softmax(int row) {
        float * s   = scores + static_cast<size_t>(row) * attention_chunk;
        vec     top = V::set1(minus_infinity);
        for (int b = 0; b < n_blocks; ++b) {
            if (active[b]) {
                top = V::max(top, V::load(s + b * W));
            }
        }
        float lanes[W];
        V::store(lanes, top);
        const float maximum = *std::max_element(lanes, lanes + W);
        if (maximum == minus_infinity) {
            for (int b = 0; b < n_blocks; ++b) {
                std::fill_n(s + b * W, W, 0.0f);
            }
            return { maximum, 0.0f };
        }
        vec sums = V::zero();
        for (int b = 0; b < n_blocks; ++b) {
            if (active[b]) {
                const vec p = V::exp(V::sub(V::load(s + b * W), V::set1(maximum)));
                V::store(s + b * W, p);
                sums = V::add(sums, p);
            }
        }
        V::store(lanes, sums);
        float sum = 0.0f;
        for (float lane : lanes) {
            sum += lane;
        }
        return { maximum, sum };
    }

    // Weighted values of R rows, D vectors of dimensions at a time.
    template <int R, int D> void weigh_rows(int row, int d, float * const * out) const {
        const char * v = a.v + kv_head * a.v_head;
        vec          sum[R][D];
        for (int i = 0; i < R; ++i) {
            for (int j = 0; j < D; ++j) {
                sum[i][j] = V::zero();
            }
        }
        const float * p = scores + static_cast<size_t>(row) * attention_chunk;
        for (int b = 0; b < n_blocks; ++b) {
            if (!active[b]) {
                continue;
            }
            const int end = std::min((b + 1) * W, n_cells);
            for (int cell = b * W; cell < end; ++cell) {
                const char * values = v + cell_of(cell) * a.v_cell;
                vec          x[D];
                for (int j = 0; j < D; ++j) {
                    x[j] = load(values, d + j * W);
                }
                for (int i = 0; i < R; ++i) {
                    const vec weight = V::set1(p[i * attention_chunk + cell]);
                    for (int j = 0; j < D; ++j) {
                        sum[i][j] = V::fma(weight, x[j], sum[i][j]);
                    }
                }
            }
        }
        for (int i = 0; i < R; ++i) {
            for (int j = 0; j < D; ++j) {
                V::store(out[i] + d + j * W, sum[i][j]);
            }
        }
    }

    template <int R> void weigh_rows(int row, float * const * out) const {
        constexpr int D = R * 4 <= 2 * V::row_block ? 4 : 2;
        int           d = 0;
        for (; d + D * W <= a.dv; d += D * W) {
            weigh_rows<R, D>(row, d, out);
        }
        for (; d < a.dv; d += W) {
            weigh_rows<R, 1>(row, d, out);
        }
    }

    // Calls f<R>(row) for blocks of rows that cover all of them.
    template <class F> void for_row_blocks(F && f) const {
        int row = 0;
        for (; row + V::row_block <= n_rows; row += V::row_block) {
            f(std::integral_constant<int, V::row_block>(), row);
        }
        switch (n_rows - row) {
            case 7: f(std::integral_constant<int, 7>(), row); break;
            case 6: f(std::integral_constant<int, 6>(), row); break;
            case 5: f(std::integral_constant<int, 5>(), row); break;
            case 4: f(std::integral_constant<int, 4>(), row); break;
            case 3: f(std::integral_constant<int, 3>(), row); break;
            case 2: f(std::integral_constant<int, 2>(), row); break;
            case 1: f(std::integral_constant<int, 1>(), row); break;
            default: break;
        }
    }

    void run(float * partials) {
        find_active();
        for (int b = 0; b < n_blocks; ++b) {
            if (active[b]) {
                transpose_keys(b);
                for_row_blocks([&](auto rows, int row) { score_rows<decltype(rows)::value>(row, b); });
            }
        }
        for_row_blocks([&](auto rows, int row) {
            constexpr int R = decltype(rows)::value;
            float *       out[R];
            for (int i = 0; i < R; ++i) {
                const int head = kv_head * group + (row + i) % group;
                float *   to   = partials + (static_cast<size_t>((row + i) / group) * a.n_heads + head) * a.row_floats();
                std::tie(to[0], to[1]) = softmax(row + i);
                out[i]                 = to + 16;
            }
            weigh_rows<R>(row, out);
        });
    }
};

template <class V> void attend_chunk(const Attention & a, int kv_head, int chunk, float * partials, float * scratch) {
    Chunk<V>(a, kv_head, chunk, scratch).run(partials);
}

template <class V> void combine_row(int dv, const float * partial, float * running) {
    if (partial[1] == 0.0f) {
        return;
    }
    const float maximum = std::max(running[0], partial[0]);
    const float keep    = std::exp(running[0] - maximum);
    const float take    = std::exp(partial[0] - maximum);
    running[0]          = maximum;
    running[1]          = std::fma(running[1], keep, partial[1] * take);
    for (int d = 16; d < 16 + dv; d += V::width) {
        const auto kept = V::mul(V::load(running + d), V::set1(keep));
        V::store(running + d, V::fma(V::load(partial + d), V::set1(take), kept));
    }
}

// exp by range reduction to +-ln2/2 and a polynomial of degree 6, to about 1 ulp; 0 below -87.
template <class V> typename V::type exp_by_polynomial(typename V::type x) {
    const auto low = V::set1(-87.3f);
    const auto n   = V::round(V::mul(V::max(x, low), V::set1(1.44269504f)));
    auto       r   = V::fma(n, V::set1(-0.693359375f), V::max(x, low));
    r              = V::fma(n, V::set1(2.12194440e-4f), r);
    auto p         = V::set1(1.9875691500e-4f);
    for (float c : { 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f }) {
        p = V::fma(p, r, V::set1(c));
    }
    p = V::fma(V::mul(r, r), p, V::add(r, V::set1(1.0f)));
    return V::zero_below(x, low, V::times_power_of_two(p, n));
}

}  // namespace
}  // namespace ecl
