// The kernels of all formats, written once over the vector operations of an instruction set. Each
// instruction set's file defines a class Isa and instantiates make_set<Isa>. What differs between
// them is how int32 dot products come about, which are exact; the float operations are here, so
// every set does the same ones in the same order.
//
// Isa has lanes (rows in a register) and parts = 16 / lanes; a part of a line is one register. It
// may drop the shift of shifted quads (see FormatInfo::shift), if keeps_shift is false.
#pragma once

#include "product/product.h"
#include "product/quads.h"
#include "product/quantize.h"

#define ECL_COLUMNS _Pragma("GCC unroll 8") for (int c = 0; c < N; ++c)

namespace ecl {
namespace {

// Far ahead into the second-level cache, near into the first: a core has few outstanding loads of
// its first level, which alone do not cover the memory's latency.
ECL_INLINE void prefetch(const uint8_t * p) {
    __builtin_prefetch(p + prefetch_far, 0, 2);
    __builtin_prefetch(p + prefetch_near, 0, 3);
}

// The lines of a chunk are prefetched evenly over its 16 quads and, if a line has several parts,
// over the passes for them.
template <int Parts, int Lines, int Quad> ECL_INLINE void prefetch_share(const uint8_t * chunk, int part) {
    constexpr int share = (Lines + Parts - 1) / Parts;
    _Pragma("GCC unroll 4") for (int i = Quad * share / 16; i < (Quad + 1) * share / 16; ++i) {
        prefetch(chunk + line_bytes * (part * share + i));
    }
}

// A sub-block: quads Data::quads * S and on, shifted if it is the last. x is the chunk's activations.
template <class Isa, class Data, int S, int Lines, int Q, class Dot>
ECL_INLINE void dot_quads(Dot & d, const uint8_t * chunk, const uint8_t * data, const int32_t * x, int part) {
    constexpr int quad = Data::quads * S + Q;
    prefetch_share<Isa::parts, Lines, quad>(chunk, part);
    d.template step<quad, Q>(Data::template quad<quad>(data), x);
    if constexpr (Q + 1 < Data::quads) {
        dot_quads<Isa, Data, S, Lines, Q + 1>(d, chunk, data, x, part);
    }
}

template <class Isa, class Data, int S> constexpr int shift_of() {
    return (S + 1) * Data::quads == 16 ? Data::shift : 0;
}

// What a shifted sub-block's scale is multiplied by: exact, a power of two.
template <class Isa, class Data> ECL_INLINE typename Isa::Float unshifted(typename Isa::Float scale) {
    if constexpr (Isa::keeps_shift && Data::shift != 0) {
        return Isa::mul(scale, Isa::set(1.0f / (1 << Data::shift)));
    } else {
        return scale;
    }
}

// Formats with 32-blocks and an f16 scale each.
template <class Isa, class Data, bool Signed, bool Mins, int N> struct Blocks32 {
    using Float = typename Isa::Float;
    static constexpr int headers = Mins ? 2 : 1;
    static constexpr int lines = headers + Data::lines;

    template <int S>
    ECL_INLINE void sub_block(Float * sum, const uint8_t * chunk, const int32_t * x, const int32_t * init,
                          const float * scale, const float * block_sum, int part) {
        typename Isa::template Dot<N, Data::bits, shift_of<Isa, Data, S>()> d;
        d.start(Signed ? init + S * N : nullptr);
        const uint8_t * data = chunk + headers * line_bytes + 4 * Isa::lanes * part;
        dot_quads<Isa, Data, S, lines, 0>(d, chunk, data, x, part);
        const uint8_t * halves = chunk + 32 * S + 2 * Isa::lanes * part;
        Float dw = Isa::load_halves(halves);
        if constexpr (S == 1) {
            dw = unshifted<Isa, Data>(dw);
        }
        ECL_COLUMNS {
            const Float s = Isa::mul(dw, Isa::broadcast(scale + S * N + c));
            sum[c] = Isa::fma(Isa::to_float(d.sum(c)), s, sum[c]);
        }
        if constexpr (Mins) {
            const Float min = Isa::load_halves(halves + line_bytes);
            ECL_COLUMNS sum[c] = Isa::fma(min, Isa::broadcast(block_sum + S * N + c), sum[c]);
        }
    }

    static void multiply(const uint8_t * p, const Activations & a, float * y, size_t ldy) {
        const int32_t * x = (const int32_t *) a.q, * init = a.init;
        const float * scale = a.scale, * block_sum = a.block_sum;
        Float sum[Isa::parts][N];
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS sum[part][c] = Isa::set(0.0f);
        }
        for (int k = 0; k < a.k; k += chunk_k) {
            _Pragma("GCC unroll 1") for (int part = 0; part < Isa::parts; ++part) {
                sub_block<0>(sum[part], p, x, init, scale, block_sum, part);
                sub_block<1>(sum[part], p, x, init, scale, block_sum, part);
            }
            p += lines * line_bytes;
            x += 16 * N;
            init += Signed ? 2 * N : 0;
            scale += 2 * N;
            block_sum += Mins ? 2 * N : 0;
        }
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS Isa::store(y + c * ldy + part * Isa::lanes, sum[part][c]);
        }
    }
};

// Q4_K and Q5_K.
template <class Isa, class Data, int N> struct SuperBlocks {
    using Int = typename Isa::Int;
    using Float = typename Isa::Float;
    static constexpr int lines = 1 + Data::lines;
    static constexpr int chunk_bytes = lines * line_bytes;

    // Float scales of the 8 sub-blocks, and the columns' sums of minima as first partial sums.
    ECL_INLINE void open(const uint8_t * super, const int32_t * pair_sums, Float * scales, Float * partial, int part) {
        const uint8_t * p = super + 4 * Isa::lanes * part;
        const Float d = Isa::load_halves(super + 2 * Isa::lanes * part);
        const Float minus_dmin = Isa::negate(Isa::load_halves(super + 32 + 2 * Isa::lanes * part));
        const Float d_last = unshifted<Isa, Data>(d);
        const Int a = Isa::load(p + chunk_bytes), b = Isa::load(p + 2 * chunk_bytes), e = Isa::load(p + 3 * chunk_bytes);
        const Int s0 = Isa::mask(a, 0x3f), s1 = Isa::mask(b, 0x3f), m0 = Isa::mask(e, 0x3f);
        const Int low = Isa::select(0x03, Isa::template shift_left<-6>(a), Isa::template shift_left<-4>(b));
        const Int m1 = Isa::mask(Isa::select(0x0f, low, Isa::template shift_left<-2>(e)), 0x3f);
        scales[0] = Isa::mul(Isa::to_float(Isa::template byte<0>(s0)), d);
        scales[1] = Isa::mul(Isa::to_float(Isa::template byte<1>(s0)), d_last);
        scales[2] = Isa::mul(Isa::to_float(Isa::template byte<2>(s0)), d);
        scales[3] = Isa::mul(Isa::to_float(Isa::template byte<3>(s0)), d_last);
        scales[4] = Isa::mul(Isa::to_float(Isa::template byte<0>(s1)), d);
        scales[5] = Isa::mul(Isa::to_float(Isa::template byte<1>(s1)), d_last);
        scales[6] = Isa::mul(Isa::to_float(Isa::template byte<2>(s1)), d);
        scales[7] = Isa::mul(Isa::to_float(Isa::template byte<3>(s1)), d_last);
        const Int mins[4] = { Isa::even_bytes(m0), Isa::odd_bytes(m0), Isa::even_bytes(m1), Isa::odd_bytes(m1) };
        ECL_COLUMNS partial[c] = Isa::mul(Isa::to_float(Isa::dot_pairs(mins, pair_sums + c, N)), minus_dmin);
    }

    template <int S>
    ECL_INLINE void sub_block(Float * partial, const Float * scales, const uint8_t * chunk, const int32_t * x, int part) {
        typename Isa::template Dot<N, Data::bits, shift_of<Isa, Data, S>()> d;
        d.start(nullptr);
        dot_quads<Isa, Data, S, lines, 0>(d, chunk, chunk + line_bytes + 4 * Isa::lanes * part, x, part);
        const Float s = scales[S];
        ECL_COLUMNS partial[c] = Isa::fma(Isa::to_float(d.sum(c)), s, partial[c]);
    }

    static void multiply(const uint8_t * p, const Activations & a, float * y, size_t ldy) {
        const int32_t * x = (const int32_t *) a.q, * pair_sums = a.pair_sums;
        const float * scale = a.scale;
        Float sum[Isa::parts][N];
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS sum[part][c] = Isa::set(0.0f);
        }
        for (int k = 0; k < a.k; k += super_k) {
            _Pragma("GCC unroll 1") for (int part = 0; part < Isa::parts; ++part) {
                Float scales[8], partial[N];
                open(p, pair_sums, scales, partial, part);
                asm volatile("" : "+m"(scales));  // keeps them out of registers, which the columns need
                _Pragma("GCC unroll 1") for (int i = 0; i < 4; ++i) {
                    sub_block<0>(partial, scales + 2 * i, p + i * chunk_bytes, x + i * 16 * N, part);
                    sub_block<1>(partial, scales + 2 * i, p + i * chunk_bytes, x + i * 16 * N, part);
                }
                ECL_COLUMNS sum[part][c] = Isa::fma(partial[c], Isa::broadcast(scale + c), sum[part][c]);
            }
            p += 4 * chunk_bytes;
            x += 64 * N;
            pair_sums += 4 * N;
            scale += N;
        }
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS Isa::store(y + c * ldy + part * Isa::lanes, sum[part][c]);
        }
    }
};

// Q6_K.
template <class Isa, int N> struct SuperBlocks6 {
    using Float = typename Isa::Float;
    using Data = Sixes<Isa>;
    static constexpr int lines = 1 + Data::lines;

    template <int S>
    ECL_INLINE void sub_block(Float * partial, Float d, const uint8_t * chunk, const int32_t * x, const int32_t * init,
                          int part) {
        typename Isa::template Dot<N, Data::bits, shift_of<Isa, Data, S>()> dot;
        dot.start(init + S * N);
        const uint8_t * p = chunk + 4 * Isa::lanes * part;
        dot_quads<Isa, Data, S, lines, 0>(dot, chunk, p + line_bytes, x, part);
        const Float scale = Isa::mul(Isa::to_float(Isa::template signed_byte<S>(Isa::load(p))), d);
        ECL_COLUMNS partial[c] = Isa::fma(Isa::to_float(dot.sum(c)), scale, partial[c]);
    }

    static void multiply(const uint8_t * p, const Activations & a, float * y, size_t ldy) {
        const int32_t * x = (const int32_t *) a.q, * init = a.init;
        const float * scale = a.scale;
        Float sum[Isa::parts][N];
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS sum[part][c] = Isa::set(0.0f);
        }
        for (int k = 0; k < a.k; k += super_k) {
            prefetch(p);
            _Pragma("GCC unroll 1") for (int part = 0; part < Isa::parts; ++part) {
                Float partial[N], d[2];
                d[0] = Isa::load_halves(p + 2 * Isa::lanes * part);
                d[1] = unshifted<Isa, Data>(d[0]);
                asm volatile("" : "+m"(d));  // as the scales of SuperBlocks
                ECL_COLUMNS partial[c] = Isa::set(0.0f);
                _Pragma("GCC unroll 1") for (int i = 0; i < 4; ++i) {
                    const uint8_t * chunk = p + line_bytes + i * lines * line_bytes;
                    const int32_t * xi = x + i * 16 * N, * ii = init + i * 4 * N;
                    sub_block<0>(partial, d[0], chunk, xi, ii, part);
                    sub_block<1>(partial, d[0], chunk, xi, ii, part);
                    sub_block<2>(partial, d[0], chunk, xi, ii, part);
                    sub_block<3>(partial, d[1], chunk, xi, ii, part);
                }
                ECL_COLUMNS sum[part][c] = Isa::fma(partial[c], Isa::broadcast(scale + c), sum[part][c]);
            }
            p += (1 + 4 * lines) * line_bytes;
            x += 64 * N;
            init += 16 * N;
            scale += N;
        }
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS Isa::store(y + c * ldy + part * Isa::lanes, sum[part][c]);
        }
    }
};

// F16: two sums a column (even and odd k), added up at the end of each chunk.
template <class Isa, int N> struct Halves {
    using Float = typename Isa::Float;

    static void multiply(const uint8_t * p, const Activations & a, float * y, size_t ldy) {
        const float * x = a.values;
        Float sum[Isa::parts][N];
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS sum[part][c] = Isa::set(0.0f);
        }
        for (int k = 0; k < a.k; k += chunk_k) {
            _Pragma("GCC unroll 1") for (int part = 0; part < Isa::parts; ++part) {
                const uint8_t * w = p + 2 * Isa::lanes * part;
                Float even[N], odd[N];
                ECL_COLUMNS even[c] = odd[c] = Isa::set(0.0f);
                if constexpr (2 * N <= Isa::float_sums) {
                    for (int i = 0; i < chunk_k / 2; ++i) {
                        prefetch_line(p, i, part);
                        const Float w0 = Isa::load_halves(w + line_bytes * i);
                        const Float w1 = Isa::load_halves(w + line_bytes * i + 32);
                        ECL_COLUMNS even[c] = Isa::fma(w0, Isa::broadcast(x + 2 * i * N + c), even[c]);
                        ECL_COLUMNS odd[c] = Isa::fma(w1, Isa::broadcast(x + (2 * i + 1) * N + c), odd[c]);
                    }
                } else {
                    for (int i = 0; i < chunk_k / 2; ++i) {
                        prefetch_line(p, i, part);
                        const Float w0 = Isa::load_halves(w + line_bytes * i);
                        ECL_COLUMNS even[c] = Isa::fma(w0, Isa::broadcast(x + 2 * i * N + c), even[c]);
                    }
                    for (int i = 0; i < chunk_k / 2; ++i) {
                        const Float w1 = Isa::load_halves(w + line_bytes * i + 32);
                        ECL_COLUMNS odd[c] = Isa::fma(w1, Isa::broadcast(x + (2 * i + 1) * N + c), odd[c]);
                    }
                }
                ECL_COLUMNS sum[part][c] = Isa::add(sum[part][c], Isa::add(even[c], odd[c]));
            }
            p += chunk_k / 2 * line_bytes;
            x += chunk_k * N;
        }
        for (int part = 0; part < Isa::parts; ++part) {
            ECL_COLUMNS Isa::store(y + c * ldy + part * Isa::lanes, sum[part][c]);
        }
    }

    ECL_INLINE void prefetch_line(const uint8_t * chunk, int i, int part) {
        if (i % Isa::parts == part) {
            prefetch(chunk + line_bytes * i);
        }
    }
};

template <class Isa, int N> constexpr void fill(KernelSet & set) {
    constexpr int i = N - 1;
    set.multiply[(int) Format::q4_0][i] = Blocks32<Isa, Nibbles<Isa>, true, false, N>::multiply;
    set.multiply[(int) Format::q4_1][i] = Blocks32<Isa, Nibbles<Isa>, false, true, N>::multiply;
    set.multiply[(int) Format::q5_0][i] = Blocks32<Isa, Fives<Isa>, true, false, N>::multiply;
    set.multiply[(int) Format::q8_0][i] = Blocks32<Isa, Bytes<Isa>, true, false, N>::multiply;
    set.multiply[(int) Format::q4_k][i] = SuperBlocks<Isa, Nibbles<Isa>, N>::multiply;
    set.multiply[(int) Format::q5_k][i] = SuperBlocks<Isa, Fives<Isa>, N>::multiply;
    set.multiply[(int) Format::q6_k][i] = SuperBlocks6<Isa, N>::multiply;
    set.multiply[(int) Format::f16][i] = Halves<Isa, N>::multiply;
    if constexpr (N < max_columns) {
        fill<Isa, N + 1>(set);
    }
}

template <class Isa> constexpr KernelSet make_set(const char * name) {
    KernelSet set = {};
    set.name = name;
    set.quantize = quantize_column;
    fill<Isa, 1>(set);
    return set;
}

}  // namespace
}  // namespace ecl
