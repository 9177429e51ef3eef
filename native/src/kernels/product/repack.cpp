// Repacks ggml's rows into groups of 16 interleaved rows (see product.h). The stream of a group is
// cut into chunks of 64 k: header lines first, then data lines in the order in which they are used.
//
//   line i of a plain format: dword r = bytes 4i..4i+3 of row r
//   nibbles (Q4): low nibble quad i of the first 32 k, high nibble quad i of the second
//   fives (Q5):   lines 0-7: low 5 bits quad i of the first 32 k, top 3 bits the top bits of quad i
//                 of the second; lines 8, 9: its low 2 bits, four quads to a byte
//   sixes (Q6_K): lines 0-11: low 6 bits quads 0-11, top 2 bits the fourth 16 k, top bits first
//   Q8_0:         q xor 0x80, 16 lines
//   F16:          16 f16 (one k of the 16 rows) after the other
//
// Headers: Q4_0, Q5_0, Q8_0: 16 f16 scales of each 32 k. Q4_1: a second line with the minima.
// Q4_K, Q5_K: the four headers of a super-block are 16 d and 16 dmin, then A, B, C: byte i of
// dword r has in its low 6 bits scale[i], scale[4+i], min[i] of row r; the three top 2-bit fields
// together are min[4+i]. Q6_K: 16 d (f16) in front of a super-block; each chunk's header has the
// row's four int8 scales as its dword.
#include "product/repack_parts.h"

namespace ecl {

namespace {

// ggml's 32-blocks of 4 bits: byte j has element j low and element j + 16 high.
void nibbles32(const uint8_t * qs, uint32_t * out) {
    for (int i = 0; i < 4; ++i) {
        const uint32_t v = load32(qs + 4 * i);
        out[i] = v & low4;
        out[i + 4] = (v >> 4) & low4;
    }
}

// Four of the 32 high bits at position i, spread to bit 4 of four bytes.
uint32_t spread_high(uint32_t bits, int i) {
    const uint32_t b = bits >> (4 * i);
    return ((b & 1) | (b & 2) << 7 | (b & 4) << 14 | (b & 8) << 21) << 4;
}

void quants(const block_q4_0 * row, int64_t chunk, Quads & out) {
    nibbles32(row[2 * chunk].qs, out.q);
    nibbles32(row[2 * chunk + 1].qs, out.q + 8);
}

void quants(const block_q4_1 * row, int64_t chunk, Quads & out) {
    nibbles32(row[2 * chunk].qs, out.q);
    nibbles32(row[2 * chunk + 1].qs, out.q + 8);
}

void quants(const block_q5_0 * row, int64_t chunk, Quads & out) {
    for (int b = 0; b < 2; ++b) {
        const block_q5_0 & block = row[2 * chunk + b];
        nibbles32(block.qs, out.q + 8 * b);
        const uint32_t high = load32(block.qh);
        for (int i = 0; i < 8; ++i) {
            out.q[8 * b + i] |= spread_high(high, i);
        }
    }
}

void quants(const block_q8_0 * row, int64_t chunk, Quads & out) {
    for (int b = 0; b < 2; ++b) {
        for (int i = 0; i < 8; ++i) {
            out.q[8 * b + i] = load32(row[2 * chunk + b].qs + 4 * i) ^ 0x80808080u;
        }
    }
}

// K-quants keep the low halves of 64 k in 32 bytes: first 32 k low nibbles, second 32 k high ones.
void quants(const block_q4_K * row, int64_t chunk, Quads & out) {
    const uint8_t * qs = row[chunk / 4].qs + 32 * (chunk % 4);
    for (int i = 0; i < 8; ++i) {
        const uint32_t v = load32(qs + 4 * i);
        out.q[i] = v & low4;
        out.q[i + 8] = (v >> 4) & low4;
    }
}

void quants(const block_q5_K * row, int64_t chunk, Quads & out) {
    const block_q5_K & block = row[chunk / 4];
    const int c = (int) (chunk % 4);
    for (int i = 0; i < 8; ++i) {
        const uint32_t v = load32(block.qs + 32 * c + 4 * i);
        const uint32_t h = load32(block.qh + 4 * i);
        out.q[i] = (v & low4) | ((h >> (2 * c)) & low1) << 4;
        out.q[i + 8] = ((v >> 4) & low4) | ((h >> (2 * c + 1)) & low1) << 4;
    }
}

void quants(const block_q6_K * row, int64_t chunk, Quads & out) {
    const block_q6_K & block = row[chunk / 4];
    const int half = (int) (chunk % 4) / 2, odd = (int) (chunk % 4) % 2;
    const uint8_t * ql = block.ql + 64 * half;
    const uint8_t * qh = block.qh + 32 * half;
    for (int i = 0; i < 16; ++i) {
        const uint32_t low = (load32(ql + 4 * i) >> (4 * odd)) & low4;
        const uint32_t high = (load32(qh + 4 * (i % 8)) >> (4 * odd + 2 * (i / 8))) & low2;
        out.q[i] = low | high << 4;
    }
}

// Each writes one row's dwords of the data lines; z points at the row's dword of the first line.
void pack_nibbles(const Quads & in, uint8_t * z) {
    for (int i = 0; i < 8; ++i) {
        store32(z + line_bytes * i, in.q[i] | in.q[i + 8] << 4);
    }
}

void pack_fives(const Quads & in, uint8_t * z) {
    uint32_t low[2] = { 0, 0 };
    for (int i = 0; i < 8; ++i) {
        const uint32_t second = in.q[i + 8];
        store32(z + line_bytes * i, in.q[i] | ((second >> 2) & low3) << 5);
        low[i / 4] |= (second & low2) << (2 * (i % 4));
    }
    store32(z + line_bytes * 8, low[0]);
    store32(z + line_bytes * 9, low[1]);
}

void pack_sixes(const Quads & in, uint8_t * z) {
    for (int i = 0; i < 4; ++i) {
        const uint32_t d = in.q[12 + i];
        store32(z + line_bytes * i, in.q[i] | ((d >> 4) & low2) << 6);
        store32(z + line_bytes * (4 + i), in.q[4 + i] | ((d >> 2) & low2) << 6);
        store32(z + line_bytes * (8 + i), in.q[8 + i] | (d & low2) << 6);
    }
}

void pack_bytes(const Quads & in, uint8_t * z) {
    for (int i = 0; i < 16; ++i) {
        store32(z + line_bytes * i, in.q[i]);
    }
}

template <class Block> void k_header(const Block & block, int chunk, int r, uint8_t * header) {
    if (chunk == 0) {
        std::memcpy(header + 2 * r, (const uint8_t *) &block, 2);           // d
        std::memcpy(header + 32 + 2 * r, (const uint8_t *) &block + 2, 2);  // dmin
        return;
    }
    // ggml's 12 bytes, as get_scale_min_k4 in ggml-quants.c reads them, four sub-blocks to a dword.
    const uint32_t s0 = load32(block.scales), s1 = load32(block.scales + 4), s2 = load32(block.scales + 8);
    const uint32_t scale_high = (s2 & low4) | ((s0 >> 6) & low2) << 4;
    const uint32_t min_high = ((s2 >> 4) & low4) | ((s1 >> 6) & low2) << 4;
    const uint32_t low = chunk == 1 ? s0 & low6 : chunk == 2 ? scale_high : s1 & low6;
    store32(header + 4 * r, low | ((min_high >> (2 * (chunk - 1))) & low2) << 6);
}

// Bytes 0-1 of these blocks are the f16 scale, bytes 2-3 of Q4_1 the f16 minimum.
template <class Block> void block_halves(const Block * row, int64_t chunk, int byte, int r, uint8_t * header) {
    for (int b = 0; b < 2; ++b) {
        std::memcpy(header + 32 * b + 2 * r, (const uint8_t *) &row[2 * chunk + b] + byte, 2);
    }
}

// One row's share of one chunk; o is the start of the chunk.
template <Format F> void pack_chunk(const void * weights, int64_t chunk, int r, uint8_t * o) {
    const auto * row = (const typename Source<F>::Block *) weights;
    Quads q;
    quants(row, chunk, q);
    uint8_t * data = o + line_bytes + 4 * r;
    if constexpr (F == Format::q4_k || F == Format::q5_k) {
        k_header(row[chunk / 4], (int) (chunk % 4), r, o);
    } else if constexpr (F == Format::q6_k) {
        if (chunk % 4 == 0) {
            std::memcpy(o - line_bytes + 2 * r, &row[chunk / 4].d, 2);
        }
        std::memcpy(o + 4 * r, row[chunk / 4].scales + 4 * (chunk % 4), 4);
    } else {
        block_halves(row, chunk, 0, r, o);
        if constexpr (F == Format::q4_1) {
            block_halves(row, chunk, 2, r, o + line_bytes);
            data += line_bytes;
        }
    }
    if constexpr (F == Format::q5_0 || F == Format::q5_k) {
        pack_fives(q, data);
    } else if constexpr (F == Format::q6_k) {
        pack_sixes(q, data);
    } else if constexpr (F == Format::q8_0) {
        pack_bytes(q, data);
    } else {
        pack_nibbles(q, data);
    }
}

template <Format F>
void repack_groups(const uint8_t * weights, size_t row_bytes, int64_t rows, int64_t k,
                   int64_t group_begin, int64_t group_end, uint8_t * out) {
    using Block = typename Source<F>::Block;
    const FormatInfo & f = format_info(F);
    const size_t bytes = group_bytes(F, k);
    const int64_t chunks = padded_k(F, k) / chunk_k;
    const bool tail = k % chunk_k != 0;  // the last chunk has one block of 32 only
    for (int64_t g = group_begin; g < group_end; ++g) {
        uint8_t * o = out + g * bytes;
        const int n = (int) (rows - g * group_rows < group_rows ? rows - g * group_rows : group_rows);
        if (n < group_rows) {
            std::memset(o, 0, bytes);
        }
        for (int64_t c = 0; f.prefix_bytes && c < chunks; c += 4) {
            std::memset(o + chunk_offset(f, c) - f.prefix_bytes, 0, f.prefix_bytes);
        }
        for (int64_t c = 0; c < chunks; ++c) {
            for (int r = 0; r < n; ++r) {
                const uint8_t * row = weights + (g * group_rows + r) * row_bytes;
                if (tail && c == chunks - 1) {
                    Block last[2] = {};  // a zero scale makes the padding's products zero
                    std::memcpy(last, (const Block *) row + 2 * c, sizeof(Block));
                    pack_chunk<F>(last, 0, r, o + chunk_offset(f, c));
                } else {
                    pack_chunk<F>(row, c, r, o + chunk_offset(f, c));
                }
            }
        }
    }
}

void repack_f16(const uint8_t * weights, size_t row_bytes, int64_t rows, int64_t k,
                int64_t group_begin, int64_t group_end, uint8_t * out) {
    const size_t bytes = group_bytes(Format::f16, k);
    for (int64_t g = group_begin; g < group_end; ++g) {
        uint16_t * o = (uint16_t *) (out + g * bytes);
        const int n = (int) (rows - g * group_rows < group_rows ? rows - g * group_rows : group_rows);
        std::memset(o + k * group_rows, 0, bytes - k * group_rows * sizeof(uint16_t));
        for (int64_t i = 0; i < k; ++i) {
            for (int r = 0; r < group_rows; ++r) {
                uint16_t h = 0;
                if (r < n) {
                    std::memcpy(&h, weights + (g * group_rows + r) * row_bytes + 2 * i, 2);
                }
                o[i * group_rows + r] = h;
            }
        }
    }
}

}  // namespace

void repack(Format format, const void * weights, size_t row_bytes, int64_t rows, int64_t k,
            int64_t group_begin, int64_t group_end, uint8_t * out) {
    const uint8_t * w = (const uint8_t *) weights;
    switch (format) {
#define ECL_CASE(F) \
    case Format::F: return repack_groups<Format::F>(w, row_bytes, rows, k, group_begin, group_end, out)
        ECL_CASE(q4_0);
        ECL_CASE(q4_1);
        ECL_CASE(q5_0);
        ECL_CASE(q8_0);
        ECL_CASE(q4_k);
        ECL_CASE(q5_k);
        ECL_CASE(q6_k);
#undef ECL_CASE
        case Format::f16: return repack_f16(w, row_bytes, rows, k, group_begin, group_end, out);
    }
}

}  // namespace ecl
