// Attention on 64-bit ARM.
#include "attention/attention.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <tuple>

#include "attention/generic.h"

namespace ecl {
namespace {

struct Neon {
    using type = float32x4_t;
    static constexpr int width = 4, row_block = 8;

    static type load(const float * p) { return vld1q_f32(p); }
    static type load_half(const uint16_t * p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
    static void store(float * p, type x) { vst1q_f32(p, x); }
    static type set1(float x) { return vdupq_n_f32(x); }
    static type zero() { return vdupq_n_f32(0.0f); }
    static type fma(type a, type b, type c) { return vfmaq_f32(c, a, b); }
    static type add(type a, type b) { return vaddq_f32(a, b); }
    static type sub(type a, type b) { return vsubq_f32(a, b); }
    static type mul(type a, type b) { return vmulq_f32(a, b); }
    static type max(type a, type b) { return vmaxq_f32(a, b); }
    static type round(type a) { return vrndnq_f32(a); }
    static type times_power_of_two(type x, type n) {
        const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
        return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
    }
    static type zero_below(type x, type low, type value) {
        return vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(x, low), vreinterpretq_u32_f32(value)));
    }
    static type exp(type x);

    static void transpose(type * r) {
        const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
        r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
        r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
        r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
        r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
    }
};

Neon::type Neon::exp(type x) {
    return exp_by_polynomial<Neon>(x);
}

}  // namespace

const AttentionKernel * attention_neon() {
    static const AttentionKernel kernel = { "neon", Neon::width, attend_chunk<Neon>, combine_row<Neon> };
    return &kernel;
}

}  // namespace ecl

#else

const ecl::AttentionKernel * ecl::attention_neon() {
    return nullptr;
}

#endif
