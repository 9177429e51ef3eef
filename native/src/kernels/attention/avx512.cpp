// Attention on AVX-512.
#include "attention/attention.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)

#include <immintrin.h>
#include <tuple>

#if defined(__GNUC__) && !defined(__clang__)
#    pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers (PR 105593)
#endif

#include "attention/generic.h"

namespace ecl {
namespace {

struct Avx512 {
    using type = __m512;
    static constexpr int width = 16, row_block = 8;

    static type load(const float * p) { return _mm512_loadu_ps(p); }
    static type load_half(const uint16_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
    static void store(float * p, type x) { _mm512_storeu_ps(p, x); }
    static type set1(float x) { return _mm512_set1_ps(x); }
    static type zero() { return _mm512_setzero_ps(); }
    static type fma(type a, type b, type c) { return _mm512_fmadd_ps(a, b, c); }
    static type add(type a, type b) { return _mm512_add_ps(a, b); }
    static type sub(type a, type b) { return _mm512_sub_ps(a, b); }
    static type mul(type a, type b) { return _mm512_mul_ps(a, b); }
    static type max(type a, type b) { return _mm512_max_ps(a, b); }
    static type round(type a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static type times_power_of_two(type x, type n) { return _mm512_scalef_ps(x, n); }
    static type zero_below(type x, type low, type value) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, low, _CMP_GE_OQ), value);
    }
    static type exp(type x);

    static void transpose(type * r) {
        type t[16];
        for (int i = 0; i < 16; i += 4) {
            const type a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
            const type c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
            t[i]         = pairs_low(a, c);
            t[i + 1]     = pairs_high(a, c);
            t[i + 2]     = pairs_low(b, d);
            t[i + 3]     = pairs_high(b, d);
        }
        // t[4q + j] holds, in 128-bit lane l, column 4l + j of rows 4q .. 4q + 3.
        for (int j = 0; j < 4; ++j) {
            const type a = _mm512_shuffle_f32x4(t[j], t[4 + j], 0x44), b = _mm512_shuffle_f32x4(t[8 + j], t[12 + j], 0x44);
            const type c = _mm512_shuffle_f32x4(t[j], t[4 + j], 0xee), d = _mm512_shuffle_f32x4(t[8 + j], t[12 + j], 0xee);
            r[j]         = _mm512_shuffle_f32x4(a, b, 0x88);
            r[4 + j]     = _mm512_shuffle_f32x4(a, b, 0xdd);
            r[8 + j]     = _mm512_shuffle_f32x4(c, d, 0x88);
            r[12 + j]    = _mm512_shuffle_f32x4(c, d, 0xdd);
        }
    }

  private:
    static type pairs_low(type a, type b) {
        return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    }
    static type pairs_high(type a, type b) {
        return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    }
};

Avx512::type Avx512::exp(type x) {
    return exp_by_polynomial<Avx512>(x);
}

}  // namespace

const AttentionKernel * attention_avx512() {
    static const AttentionKernel kernel = { "avx512", Avx512::width, attend_chunk<Avx512>, combine_row<Avx512> };
    return &kernel;
}

}  // namespace ecl

#else

const ecl::AttentionKernel * ecl::attention_avx512() {
    return nullptr;
}

#endif
