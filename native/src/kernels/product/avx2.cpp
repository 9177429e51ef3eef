// AVX2: a line is two registers. avxvnni.cpp builds this file again with AVX-VNNI, where
// one instruction multiplies and adds four bytes; without it, products of unsigned and signed bytes
// are summed in int16 as long as they fit, and 8-bit weights take their absolute values.
#include "product/product.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && (!defined(ECL_AVXVNNI) || defined(__AVXVNNI__))

#include <immintrin.h>

#include "product/generic.h"

namespace ecl {
namespace {

struct Avx2 {
    using Int = __m256i;
    using Float = __m256;
    static constexpr int lanes = 8, parts = 2, float_sums = 12;
#if defined(ECL_AVXVNNI)
    static constexpr bool keeps_shift = true;
#else
    static constexpr bool keeps_shift = false;
#endif

    ECL_INLINE Int load(const uint8_t * p) { return _mm256_load_si256((const __m256i *) p); }
    ECL_INLINE Int bytes(int v) { return _mm256_set1_epi8((char) v); }
    ECL_INLINE Int mask(Int v, int bits) { return _mm256_and_si256(v, bytes(bits)); }
    ECL_INLINE Int select(int bits, Int a, Int b) {
        return _mm256_or_si256(_mm256_and_si256(bytes(bits), a), _mm256_andnot_si256(bytes(bits), b));
    }
    template <int Left> ECL_INLINE Int shift_left(Int v) {
        return Left >= 0 ? _mm256_slli_epi16(v, Left >= 0 ? Left : 0) : _mm256_srli_epi16(v, Left >= 0 ? 0 : -Left);
    }
    template <int I> ECL_INLINE Int byte(Int v) {
        return _mm256_and_si256(_mm256_srli_epi32(v, 8 * I), _mm256_set1_epi32(0xff));
    }
    template <int I> ECL_INLINE Int signed_byte(Int v) {
        return _mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * I), 24);
    }
    ECL_INLINE Int even_bytes(Int v) { return _mm256_and_si256(v, _mm256_set1_epi32(0x00ff00ff)); }
    ECL_INLINE Int odd_bytes(Int v) { return _mm256_srli_epi16(v, 8); }

    ECL_INLINE Float load_halves(const uint8_t * p) { return _mm256_cvtph_ps(_mm_load_si128((const __m128i *) p)); }
    ECL_INLINE Float set(float v) { return _mm256_set1_ps(v); }
    ECL_INLINE Float broadcast(const float * p) { return _mm256_broadcast_ss(p); }
    ECL_INLINE Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
    ECL_INLINE Float negate(Float v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }
    ECL_INLINE Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
    ECL_INLINE Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    ECL_INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    ECL_INLINE void store(float * p, Float v) { _mm256_storeu_ps(p, v); }

    ECL_INLINE Int dot_pairs(const Int (&w)[4], const int32_t * pairs, int stride) {
        Int sum = _mm256_setzero_si256();
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w[i], _mm256_set1_epi32(pairs[i * stride])));
        }
        return sum;
    }

#if defined(ECL_AVXVNNI)

    template <int N, int Bits, int Shift> struct Dot {
        Int acc[N];

        __attribute__((always_inline)) void start(const int32_t * init) {
            ECL_COLUMNS acc[c] = init ? _mm256_set1_epi32(init[c]) : _mm256_setzero_si256();
        }
        template <int Quad, int> __attribute__((always_inline)) void step(Int w, const int32_t * x) {
            ECL_COLUMNS {
                const Int xc = _mm256_set1_epi32(x[(Quad / 4 * N + c) * 4 + Quad % 4]);
                acc[c] = _mm256_dpbusd_avx_epi32(acc[c], w, xc);
            }
        }
        __attribute__((always_inline)) Int sum(int c) const { return acc[c]; }
    };

#else

    template <int N, int Bits, int Shift> struct Dot {
        // Quads whose products fit into int16: 2 * 127 * (2^bits - 1) each, 2 * 127 * 128 for bytes.
        static constexpr int run = Bits == 4 ? 8 : Bits == 5 ? 4 : Bits == 6 ? 2 : 1;
        Int acc[N], words[N];

        __attribute__((always_inline)) void start(const int32_t * init) {
            // Bytes are multiplied signed, so that nothing needs to be taken off.
            ECL_COLUMNS acc[c] = init && Bits != 8 ? _mm256_set1_epi32(init[c] >> Shift) : _mm256_setzero_si256();
        }
        template <int Quad, int Q> __attribute__((always_inline)) void step(Int w, const int32_t * x) {
            w = _mm256_srli_epi16(w, Shift);  // the low bits are zero: nothing crosses a byte
            const Int s = _mm256_xor_si256(w, bytes(0x80)), size = _mm256_abs_epi8(s);
            ECL_COLUMNS {
                const Int xc = _mm256_set1_epi32(x[(Quad / 4 * N + c) * 4 + Quad % 4]);
                const Int product = Bits == 8 ? _mm256_maddubs_epi16(size, _mm256_sign_epi8(xc, s))
                                              : _mm256_maddubs_epi16(w, xc);
                words[c] = Q % run == 0 ? product : _mm256_add_epi16(words[c], product);
                if (Q % run == run - 1) {
                    acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(words[c], _mm256_set1_epi16(1)));
                }
            }
        }
        __attribute__((always_inline)) Int sum(int c) const { return acc[c]; }
    };

#endif
};

#if defined(ECL_AVXVNNI)
constexpr KernelSet avx2 = make_set<Avx2>("avxvnni");
#else
constexpr KernelSet avx2 = make_set<Avx2>("avx2");
#endif

}  // namespace

#if defined(ECL_AVXVNNI)
const KernelSet * kernels_avxvnni() {
#else
const KernelSet * kernels_avx2() {
#endif
    return &avx2;
}

}  // namespace ecl

#elif defined(ECL_AVXVNNI)

const ecl::KernelSet * ecl::kernels_avxvnni() {
    return nullptr;
}

#else

const ecl::KernelSet * ecl::kernels_avx2() {
    return nullptr;
}

#endif
