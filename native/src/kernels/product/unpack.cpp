// The way back from groups to ggml's rows (see repack.cpp for the layout): no bit of a row is lost.
#include "product/repack_parts.h"

namespace ecl {

namespace {

// Each reads one row's dwords of the data lines; z points at the row's dword of the first line.
void unpack_nibbles(const uint8_t * z, Quads & out) {
    for (int i = 0; i < 8; ++i) {
        const uint32_t v = load32(z + line_bytes * i);
        out.q[i] = v & low4;
        out.q[i + 8] = (v >> 4) & low4;
    }
}

void unpack_fives(const uint8_t * z, Quads & out) {
    for (int i = 0; i < 8; ++i) {
        const uint32_t v = load32(z + line_bytes * i);
        const uint32_t low = load32(z + line_bytes * (8 + i / 4)) >> (2 * (i % 4));
        out.q[i] = v & low5;
        out.q[i + 8] = ((v >> 5) & low3) << 2 | (low & low2);
    }
}

void unpack_sixes(const uint8_t * z, Quads & out) {
    for (int i = 0; i < 4; ++i) {
        uint32_t d = 0;
        for (int j = 0; j < 3; ++j) {
            const uint32_t v = load32(z + line_bytes * (4 * j + i));
            out.q[4 * j + i] = v & low6;
            d |= ((v >> 6) & low2) << (4 - 2 * j);
        }
        out.q[12 + i] = d;
    }
}

void unpack_bytes(const uint8_t * z, Quads & out) {
    for (int i = 0; i < 16; ++i) {
        out.q[i] = load32(z + line_bytes * i);
    }
}

void or32(uint8_t * p, uint32_t v) {
    store32(p, load32(p) | v);
}

// ggml's 32-blocks of 4 bits: byte j has element j low and element j + 16 high.
void set_nibbles32(const uint32_t * q, uint8_t * qs) {
    for (int i = 0; i < 4; ++i) {
        store32(qs + 4 * i, (q[i] & low4) | (q[i + 4] & low4) << 4);
    }
}

// Bit 4 of four bytes, as four neighbouring bits.
uint32_t gather_high(uint32_t quad) {
    const uint32_t b = (quad >> 4) & low1;
    return (b & 1) | ((b >> 7) & 2) | ((b >> 14) & 4) | ((b >> 21) & 8);
}

// Each sets a chunk's quants in a row of zeros.
void set_quants(const Quads & in, block_q4_0 * row, int64_t chunk) {
    set_nibbles32(in.q, row[2 * chunk].qs);
    set_nibbles32(in.q + 8, row[2 * chunk + 1].qs);
}

void set_quants(const Quads & in, block_q4_1 * row, int64_t chunk) {
    set_nibbles32(in.q, row[2 * chunk].qs);
    set_nibbles32(in.q + 8, row[2 * chunk + 1].qs);
}

void set_quants(const Quads & in, block_q5_0 * row, int64_t chunk) {
    for (int b = 0; b < 2; ++b) {
        block_q5_0 & block = row[2 * chunk + b];
        set_nibbles32(in.q + 8 * b, block.qs);
        uint32_t high = 0;
        for (int i = 0; i < 8; ++i) {
            high |= gather_high(in.q[8 * b + i]) << (4 * i);
        }
        store32(block.qh, high);
    }
}

void set_quants(const Quads & in, block_q8_0 * row, int64_t chunk) {
    for (int i = 0; i < 16; ++i) {
        store32((uint8_t *) row[2 * chunk + i / 8].qs + 4 * (i % 8), in.q[i] ^ 0x80808080u);
    }
}

void set_quants(const Quads & in, block_q4_K * row, int64_t chunk) {
    uint8_t * qs = row[chunk / 4].qs + 32 * (chunk % 4);
    for (int i = 0; i < 8; ++i) {
        store32(qs + 4 * i, in.q[i] | in.q[i + 8] << 4);
    }
}

void set_quants(const Quads & in, block_q5_K * row, int64_t chunk) {
    block_q5_K & block = row[chunk / 4];
    const int c = (int) (chunk % 4);
    for (int i = 0; i < 8; ++i) {
        store32(block.qs + 32 * c + 4 * i, (in.q[i] & low4) | (in.q[i + 8] & low4) << 4);
        or32(block.qh + 4 * i,
             ((in.q[i] >> 4) & low1) << (2 * c) | ((in.q[i + 8] >> 4) & low1) << (2 * c + 1));
    }
}

void set_quants(const Quads & in, block_q6_K * row, int64_t chunk) {
    block_q6_K & block = row[chunk / 4];
    const int half = (int) (chunk % 4) / 2, odd = (int) (chunk % 4) % 2;
    for (int i = 0; i < 16; ++i) {
        or32(block.ql + 64 * half + 4 * i, (in.q[i] & low4) << (4 * odd));
        or32(block.qh + 32 * half + 4 * (i % 8), ((in.q[i] >> 4) & low2) << (4 * odd + 2 * (i / 8)));
    }
}

// d, dmin and ggml's 12 bytes of scales; header is the first chunk's, chunk_bytes before the next.
template <class Block> void set_k_header(const uint8_t * header, int chunk_bytes, int r, Block & block) {
    std::memcpy((uint8_t *) &block, header + 2 * r, 2);
    std::memcpy((uint8_t *) &block + 2, header + 32 + 2 * r, 2);
    const uint32_t a = load32(header + chunk_bytes + 4 * r);
    const uint32_t b = load32(header + 2 * chunk_bytes + 4 * r);
    const uint32_t c = load32(header + 3 * chunk_bytes + 4 * r);
    const uint32_t min_high = ((a >> 6) & low2) | ((b >> 6) & low2) << 2 | ((c >> 6) & low2) << 4;
    store32(block.scales, (a & low6) | ((b >> 4) & low2) << 6);
    store32(block.scales + 4, (c & low6) | ((min_high >> 4) & low2) << 6);
    store32(block.scales + 8, (b & low4) | (min_high & low4) << 4);
}

// Bytes 0-1 of these blocks are the f16 scale, bytes 2-3 of Q4_1 the f16 minimum.
template <class Block> void set_halves(const uint8_t * header, int byte, int r, Block * row, int64_t chunk) {
    for (int b = 0; b < 2; ++b) {
        std::memcpy((uint8_t *) &row[2 * chunk + b] + byte, header + 32 * b + 2 * r, 2);
    }
}

// One row's share of one chunk; o is the start of the chunk.
template <Format F>
void unpack_chunk(const uint8_t * o, int64_t chunk, int r, typename Source<F>::Block * row) {
    const uint8_t * data = o + line_bytes + 4 * r;
    if constexpr (F == Format::q4_k || F == Format::q5_k) {
        if (chunk % 4 == 0) {
            set_k_header(o, format_info(F).chunk_bytes, r, row[chunk / 4]);
        }
    } else if constexpr (F == Format::q6_k) {
        if (chunk % 4 == 0) {
            std::memcpy(&row[chunk / 4].d, o - line_bytes + 2 * r, 2);
        }
        std::memcpy(row[chunk / 4].scales + 4 * (chunk % 4), o + 4 * r, 4);
    } else {
        set_halves(o, 0, r, row, chunk);
        if constexpr (F == Format::q4_1) {
            set_halves(o + line_bytes, 2, r, row, chunk);
            data += line_bytes;
        }
    }
    Quads q;
    if constexpr (F == Format::q5_0 || F == Format::q5_k) {
        unpack_fives(data, q);
    } else if constexpr (F == Format::q6_k) {
        unpack_sixes(data, q);
    } else if constexpr (F == Format::q8_0) {
        unpack_bytes(data, q);
    } else {
        unpack_nibbles(data, q);
    }
    set_quants(q, row, chunk);
}

template <Format F> void unpack_blocks(const uint8_t * group, int64_t k, int r, uint8_t * out) {
    using Block = typename Source<F>::Block;
    const FormatInfo & f = format_info(F);
    auto * row = (Block *) out;
    const int64_t whole = k / chunk_k;
    for (int64_t c = 0; c < whole; ++c) {
        unpack_chunk<F>(group + chunk_offset(f, c), c, r, row);
    }
    if (k % chunk_k != 0) {  // the last chunk has one block of 32 only
        Block last[2] = {};
        unpack_chunk<F>(group + chunk_offset(f, whole), 0, r, last);
        std::memcpy(row + 2 * whole, last, sizeof(Block));
    }
}

}  // namespace

void unpack(Format format, const uint8_t * packed, size_t row_bytes, int64_t k, int64_t row, uint8_t * out) {
    const uint8_t * group = packed + row / group_rows * group_bytes(format, k);
    const int r = (int) (row % group_rows);
    std::memset(out, 0, row_bytes);
    switch (format) {
#define ECL_CASE(F) \
    case Format::F: return unpack_blocks<Format::F>(group, k, r, out)
        ECL_CASE(q4_0);
        ECL_CASE(q4_1);
        ECL_CASE(q5_0);
        ECL_CASE(q8_0);
        ECL_CASE(q4_k);
        ECL_CASE(q5_k);
        ECL_CASE(q6_k);
#undef ECL_CASE
        case Format::f16:
            for (int64_t i = 0; i < k; ++i) {
                std::memcpy(out + 2 * i, group + 2 * (i * group_rows + r), 2);
            }
    }
}

}  // namespace ecl
