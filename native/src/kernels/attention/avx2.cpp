// Attention on AVX2 with FMA and F16C.
#include "attention/attention.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>
#include <tuple>

#include "attention/generic.h"

namespace ecl {
namespace {

struct Avx2 {
    using type = __m256;
    static constexpr int width = 8, row_block = 4;

    static type load(const float * p) { return _mm256_loadu_ps(p); }
    static type load_half(const uint16_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }
    static void store(float * p, type x) { _mm256_storeu_ps(p, x); }
    static type set1(float x) { return _mm256_set1_ps(x); }
    static type zero() { return _mm256_setzero_ps(); }
    static type fma(type a, type b, type c) { return _mm256_fmadd_ps(a, b, c); }
    static type add(type a, type b) { return _mm256_add_ps(a, b); }
    static type sub(type a, type b) { return _mm256_sub_ps(a, b); }
    static type mul(type a, type b) { return _mm256_mul_ps(a, b); }
    static type max(type a, type b) { return _mm256_max_ps(a, b); }
    static type round(type a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static type times_power_of_two(type x, type n) {
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
    }
    static type zero_below(type x, type low, type value) {
        return _mm256_and_ps(_mm256_cmp_ps(x, low, _CMP_GE_OQ), value);
    }
    static type exp(type x);

    static void transpose(type * r) {
        type t[8];
        for (int i = 0; i < 8; i += 4) {
            const type a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
            const type c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
            t[i]         = _mm256_shuffle_ps(a, c, 0x44);
            t[i + 1]     = _mm256_shuffle_ps(a, c, 0xee);
            t[i + 2]     = _mm256_shuffle_ps(b, d, 0x44);
            t[i + 3]     = _mm256_shuffle_ps(b, d, 0xee);
        }
        for (int j = 0; j < 4; ++j) {
            r[j]     = _mm256_permute2f128_ps(t[j], t[4 + j], 0x20);
            r[4 + j] = _mm256_permute2f128_ps(t[j], t[4 + j], 0x31);
        }
    }
};

Avx2::type Avx2::exp(type x) {
    return exp_by_polynomial<Avx2>(x);
}

}  // namespace

const AttentionKernel * attention_avx2() {
    static const AttentionKernel kernel = { "avx2", Avx2::width, attend_chunk<Avx2>, combine_row<Avx2> };
    return &kernel;
}

}  // namespace ecl

#else

const ecl::AttentionKernel * ecl::attention_avx2() {
    return nullptr;
}

#endif
