// NEON with the dot-product extension: a line is four registers of 4 rows. i8mm.cpp builds
// this file again with the matrix-multiply extension, which takes two columns at a time.
#include "product/product.h"

#if defined(__ARM_FEATURE_DOTPROD) && (!defined(ECL_I8MM) || defined(__ARM_FEATURE_MATMUL_INT8))

#include <arm_neon.h>

#include <type_traits>

#include "product/generic.h"

namespace ecl {
namespace {

struct Neon {
    using Int = uint8x16_t;
    using Float = float32x4_t;
    static constexpr int lanes = 4, parts = 4, float_sums = 24;
    static constexpr bool keeps_shift = false;

    ECL_INLINE Int load(const uint8_t * p) { return vld1q_u8(p); }
    ECL_INLINE Int mask(Int v, int bits) { return vandq_u8(v, vdupq_n_u8((uint8_t) bits)); }
    ECL_INLINE Int select(int bits, Int a, Int b) { return vbslq_u8(vdupq_n_u8((uint8_t) bits), a, b); }
    template <int Left> ECL_INLINE Int shift_left(Int v) {
        if constexpr (Left > 0) {
            return vshlq_n_u8(v, Left);
        } else if constexpr (Left < 0) {
            return vshrq_n_u8(v, -Left);
        } else {
            return v;
        }
    }
    template <int I> ECL_INLINE Int byte(Int v) {
        return vreinterpretq_u8_u32(vandq_u32(shift_right<8 * I>(vreinterpretq_u32_u8(v)), vdupq_n_u32(0xff)));
    }
    template <int I> ECL_INLINE Int signed_byte(Int v) {
        const int32x4_t top = vreinterpretq_s32_u8(v);
        if constexpr (I == 3) {
            return vreinterpretq_u8_s32(vshrq_n_s32(top, 24));
        } else {
            return vreinterpretq_u8_s32(vshrq_n_s32(vshlq_n_s32(top, 24 - 8 * I), 24));
        }
    }
    ECL_INLINE Int even_bytes(Int v) { return vreinterpretq_u8_u16(vandq_u16(vreinterpretq_u16_u8(v), vdupq_n_u16(0xff))); }
    ECL_INLINE Int odd_bytes(Int v) { return vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_u8(v), 8)); }

    ECL_INLINE Float load_halves(const uint8_t * p) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
    }
    ECL_INLINE Float set(float v) { return vdupq_n_f32(v); }
    ECL_INLINE Float broadcast(const float * p) { return vld1q_dup_f32(p); }
    ECL_INLINE Float to_float(Int v) { return vcvtq_f32_s32(vreinterpretq_s32_u8(v)); }
    ECL_INLINE Float negate(Float v) { return vnegq_f32(v); }
    ECL_INLINE Float mul(Float a, Float b) { return vmulq_f32(a, b); }
    ECL_INLINE Float add(Float a, Float b) { return vaddq_f32(a, b); }
    ECL_INLINE Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
    ECL_INLINE void store(float * p, Float v) { vst1q_f32(p, v); }

    ECL_INLINE Int dot_pairs(const Int (&w)[4], const int32_t * pairs, int stride) {
        int32x4_t sum = vdupq_n_s32(0);
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
            const int16x8_t x = vreinterpretq_s16_s32(vdupq_n_s32(pairs[i * stride]));
            const int16x8_t wi = vreinterpretq_s16_u8(w[i]);
            const int32x4_t low = vmull_s16(vget_low_s16(wi), vget_low_s16(x));
            const int32x4_t high = vmull_high_s16(wi, x);
            sum = vaddq_s32(sum, vpaddq_s32(low, high));
        }
        return vreinterpretq_u8_s32(sum);
    }

    // Unsigned, shifted quads to signed bytes without the shift.
    template <int Bits, int Shift> ECL_INLINE int8x16_t signed_quad(Int w) {
        if constexpr (Bits == 8) {
            return vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(0x80)));
        } else {
            return vreinterpretq_s8_u8(shift_left<-Shift>(w));
        }
    }

    // First values of the sums. Bytes are multiplied signed, so nothing needs to be taken off.
    template <int Bits, int Shift> ECL_INLINE int32_t first(const int32_t * init, int c) {
        return init && Bits != 8 ? init[c] >> Shift : 0;
    }

    template <int N, int Bits, int Shift> struct Dots {
        int32x4_t acc[N];
        int8x16_t x16[N];

        __attribute__((always_inline)) void start(const int32_t * init) {
            ECL_COLUMNS acc[c] = vdupq_n_s32(first<Bits, Shift>(init, c));
        }
        template <int Quad, int> __attribute__((always_inline)) void step(Int w, const int32_t * x) {
            const int8x16_t s = signed_quad<Bits, Shift>(w);
            ECL_COLUMNS {
                if (Quad % 4 == 0) {
                    x16[c] = vld1q_s8((const int8_t *) (x + (Quad / 4 * N + c) * 4));
                }
                acc[c] = vdotq_laneq_s32(acc[c], s, x16[c], Quad % 4);
            }
        }
        __attribute__((always_inline)) Int sum(int c) const { return vreinterpretq_u8_s32(acc[c]); }
    };

#if defined(ECL_I8MM)

    // Two quads hold 8 k of 4 rows: as two registers of 2 rows x 8 k each, times 8 k x 2 columns.
    // acc[p][h] is rows 2h, 2h + 1 by columns 2p, 2p + 1. An odd last column is paired with zeros.
    template <int N, int Bits, int Shift> struct Matrices {
        static constexpr int pairs = (N + 1) / 2;
        int32x4_t acc[pairs][2];
        int8x16_t even;  // the quad before

        __attribute__((always_inline)) void start(const int32_t * init) {
            _Pragma("GCC unroll 4") for (int p = 0; p < pairs; ++p) {
                const int32_t a = first<Bits, Shift>(init, 2 * p);
                const int32_t b = 2 * p + 1 < N ? first<Bits, Shift>(init, 2 * p + 1) : 0;
                const int32x4_t both = vsetq_lane_s32(b, vsetq_lane_s32(b, vdupq_n_s32(a), 1), 3);
                acc[p][0] = acc[p][1] = both;
            }
        }
        template <int Quad, int> __attribute__((always_inline)) void step(Int w, const int32_t * x) {
            const int8x16_t s = signed_quad<Bits, Shift>(w);
            if constexpr (Quad % 2 == 0) {
                even = s;
            } else {
                const int32x4_t a = vreinterpretq_s32_s8(even), b = vreinterpretq_s32_s8(s);
                const int8x16_t rows01 = vreinterpretq_s8_s32(vzip1q_s32(a, b));
                const int8x16_t rows23 = vreinterpretq_s8_s32(vzip2q_s32(a, b));
                _Pragma("GCC unroll 4") for (int p = 0; p < pairs; ++p) {
                    const int32_t * xp = x + (Quad / 4 * N + 2 * p) * 4 + (Quad % 4 - 1);
                    const int8x8_t first = vld1_s8((const int8_t *) xp);
                    const int8x8_t second = 2 * p + 1 < N ? vld1_s8((const int8_t *) (xp + 4)) : vdup_n_s8(0);
                    const int8x16_t columns = vcombine_s8(first, second);
                    acc[p][0] = vmmlaq_s32(acc[p][0], rows01, columns);
                    acc[p][1] = vmmlaq_s32(acc[p][1], rows23, columns);
                }
            }
        }
        __attribute__((always_inline)) Int sum(int c) const {
            const int32x4_t a = acc[c / 2][0], b = acc[c / 2][1];
            return vreinterpretq_u8_s32(c % 2 ? vuzp2q_s32(a, b) : vuzp1q_s32(a, b));
        }
    };

    template <int N, int Bits, int Shift>
    using Dot = std::conditional_t<(N > 1), Matrices<N, Bits, Shift>, Dots<N, Bits, Shift>>;

#else

    template <int N, int Bits, int Shift> using Dot = Dots<N, Bits, Shift>;

#endif

  private:
    template <int N> ECL_INLINE uint32x4_t shift_right(uint32x4_t v) {
        if constexpr (N == 0) {
            return v;
        } else {
            return vshrq_n_u32(v, N);
        }
    }
};

#if defined(ECL_I8MM)
constexpr KernelSet neon = make_set<Neon>("i8mm");
#else
constexpr KernelSet neon = make_set<Neon>("neon");
#endif

}  // namespace

#if defined(ECL_I8MM)
const KernelSet * kernels_i8mm() {
#else
const KernelSet * kernels_neon() {
#endif
    return &neon;
}

}  // namespace ecl

#elif defined(ECL_I8MM)

const ecl::KernelSet * ecl::kernels_i8mm() {
    return nullptr;
}

#else

const ecl::KernelSet * ecl::kernels_neon() {
    return nullptr;
}

#endif
