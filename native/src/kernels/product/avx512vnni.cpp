// AVX-512 with VNNI: a line of 16 rows is one register.
#include "product/product.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#if defined(__GNUC__) && !defined(__clang__)
#    pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers (PR 105593)
#endif

#include "product/generic.h"

namespace ecl {
namespace {

// How the dword of a column gets to all lanes. Intel's cores have the load slots for one memory
// broadcast a product; Zen's are short of them, there half of the columns take one 128-bit
// broadcast a 16 k and shuffle it.
enum class Broadcast { from_memory, half_shuffled };

template <Broadcast How> struct Avx512 {
    using Int = __m512i;
    using Float = __m512;
    static constexpr int lanes = 16, parts = 1, float_sums = 24;
    static constexpr bool keeps_shift = true;

    ECL_INLINE Int load(const uint8_t * p) { return _mm512_load_si512(p); }
    ECL_INLINE Int bytes(int v) { return _mm512_set1_epi8((char) v); }
    ECL_INLINE Int mask(Int v, int bits) { return _mm512_and_si512(v, bytes(bits)); }
    // Bits of a where the mask is set, of b elsewhere.
    ECL_INLINE Int select(int bits, Int a, Int b) { return _mm512_ternarylogic_epi32(bytes(bits), a, b, 0xca); }
    // Shifts 16-bit lanes; the caller masks away the bits that cross a byte.
    template <int Left> ECL_INLINE Int shift_left(Int v) {
        return Left >= 0 ? _mm512_slli_epi16(v, Left >= 0 ? Left : 0) : _mm512_srli_epi16(v, Left >= 0 ? 0 : -Left);
    }
    // Byte I of each dword.
    template <int I> ECL_INLINE Int byte(Int v) {
        return _mm512_and_si512(_mm512_srli_epi32(v, 8 * I), _mm512_set1_epi32(0xff));
    }
    template <int I> ECL_INLINE Int signed_byte(Int v) {
        return _mm512_srai_epi32(_mm512_slli_epi32(v, 24 - 8 * I), 24);
    }
    ECL_INLINE Int even_bytes(Int v) { return _mm512_and_si512(v, _mm512_set1_epi32(0x00ff00ff)); }
    ECL_INLINE Int odd_bytes(Int v) { return even_bytes(_mm512_srli_epi16(v, 8)); }

    ECL_INLINE Float load_halves(const uint8_t * p) {
        return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *) p));
    }
    ECL_INLINE Float set(float v) { return _mm512_set1_ps(v); }
    ECL_INLINE Float broadcast(const float * p) { return _mm512_set1_ps(*p); }
    ECL_INLINE Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
    ECL_INLINE Float negate(Float v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }
    ECL_INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    ECL_INLINE Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
    ECL_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    ECL_INLINE void store(float * p, Float v) { _mm512_storeu_ps(p, v); }

    // gcc does not fold a broadcast into these instructions by itself.
    ECL_INLINE Int dot_pairs(const Int (&w)[4], const int32_t * pairs, int stride) {
        Int sum = _mm512_setzero_si512();
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
            asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w[i]), "m"(pairs[i * stride]));
        }
        return sum;
    }

    template <int N, int Bits, int Shift> struct Dot {
        static constexpr int direct = How == Broadcast::from_memory || N < 3 ? N : (N + 1) / 2;
        Int acc[N], x16[N];

        __attribute__((always_inline)) void start(const int32_t * init) {
            ECL_COLUMNS acc[c] = init ? _mm512_set1_epi32(init[c]) : _mm512_setzero_si512();
        }
        template <int Quad, int> __attribute__((always_inline)) void step(Int w, const int32_t * x) {
            ECL_COLUMNS {
                const int32_t * xc = x + (Quad / 4 * N + c) * 4;
                if (c < direct) {
                    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc[c]) : "v"(w), "m"(xc[Quad % 4]));
                } else {
                    if (Quad % 4 == 0) {
                        x16[c] = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *) xc));
                        asm("" : "+v"(x16[c]));
                    }
                    constexpr _MM_PERM_ENUM lane = (_MM_PERM_ENUM) (Quad % 4 * 0x55);
                    acc[c] = _mm512_dpbusd_epi32(acc[c], w, _mm512_shuffle_epi32(x16[c], lane));
                }
            }
        }
        __attribute__((always_inline)) Int sum(int c) const { return acc[c]; }
    };
};

constexpr KernelSet from_memory = make_set<Avx512<Broadcast::from_memory>>("avx512vnni");
constexpr KernelSet half_shuffled = make_set<Avx512<Broadcast::half_shuffled>>("avx512vnni");

}  // namespace

const KernelSet * kernels_avx512vnni(bool few_load_slots) {
    return few_load_slots ? &half_shuffled : &from_memory;
}

}  // namespace ecl

#else

const ecl::KernelSet * ecl::kernels_avx512vnni(bool) {
    return nullptr;
}

#endif
