// How the data lines of each weight format become quads: registers with 4 consecutive k of each row. Isa
// is an instruction set's class (generic.h).
#pragma once

#include "product/product.h"

#define ECL_INLINE static inline __attribute__((always_inline))

namespace ecl {
namespace {

// quad<Q>(data) is quad Q of a chunk, unsigned, and shifted left by `shift` in the last sub-block of a
// period. data points at the part of the first data line.
template <class Isa> struct Nibbles {
    static constexpr int lines = 8, quads = 8, shift = 4, bits = 4;

    template <int Q> ECL_INLINE typename Isa::Int quad(const uint8_t * data) {
        return Isa::mask(Isa::load(data + line_bytes * (Q % 8)), Q < 8 ? 0x0f : 0xf0);
    }
};

template <class Isa> struct Fives {
    static constexpr int lines = 10, quads = 8, shift = 3, bits = 5;

    template <int Q> ECL_INLINE typename Isa::Int quad(const uint8_t * data) {
        const auto top = Isa::load(data + line_bytes * (Q % 8));
        if constexpr (Q < 8) {
            return Isa::mask(top, 0x1f);
        } else {
            const auto low = Isa::load(data + line_bytes * (8 + Q % 8 / 4));
            const auto moved = Isa::template shift_left<3 - 2 * (Q % 4)>(low);
            return Isa::mask(Isa::select(0xe0, top, moved), 0xf8);
        }
    }
};

template <class Isa> struct Sixes {
    static constexpr int lines = 12, quads = 4, shift = 2, bits = 6;

    template <int Q> ECL_INLINE typename Isa::Int quad(const uint8_t * data) {
        if constexpr (Q < 12) {
            return Isa::mask(Isa::load(data + line_bytes * Q), 0x3f);
        } else {
            const uint8_t * p = data + line_bytes * (Q - 12);
            const auto b = Isa::template shift_left<-2>(Isa::load(p + 4 * line_bytes));
            const auto c = Isa::template shift_left<-4>(Isa::load(p + 8 * line_bytes));
            return Isa::mask(Isa::select(0xf0, Isa::select(0xc0, Isa::load(p), b), c), 0xfc);
        }
    }
};

template <class Isa> struct Bytes {
    static constexpr int lines = 16, quads = 8, shift = 0, bits = 8;

    template <int Q> ECL_INLINE typename Isa::Int quad(const uint8_t * data) {
        return Isa::load(data + line_bytes * Q);
    }
};

}  // namespace
}  // namespace ecl
