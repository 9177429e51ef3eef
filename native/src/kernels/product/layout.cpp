// Sizes of repacked weights and of activation blocks. See product.h for the layout itself.
#include "product/product.h"

namespace ecl {

namespace {

// Header lines are 64 bytes: two 16 x f16 vectors, or one dword a row.
constexpr FormatInfo infos[n_formats] = {
    /*          chunk        prefix scale sum offset shift period mins  float_mins */
    { "Q4_0", 64 * (1 + 8),   0,  32, 32,   8, 4, 2, false, false },
    { "Q4_1", 64 * (2 + 8),   0,  32, 32,   0, 4, 2, false, true },
    { "Q5_0", 64 * (1 + 10),  0,  32, 32,  16, 3, 2, false, false },
    { "Q8_0", 64 * (1 + 16),  0,  32, 32, 128, 0, 2, false, false },
    { "Q4_K", 64 * (1 + 8),   0, 256, 32,   0, 4, 2, true,  false },
    { "Q5_K", 64 * (1 + 10),  0, 256, 32,   0, 3, 2, true,  false },
    { "Q6_K", 64 * (1 + 12), 64, 256, 16,  32, 2, 4, false, false },
    { "F16",  64 * 32,        0,   0,  0,   0, 0, 0, false, false },
};

struct Sizes {
    size_t q, init, pair_sums, scale, block_sum, values;
};

size_t round_up(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

Sizes sizes(Format format, int64_t k, int n) {
    const FormatInfo & f = format_info(format);
    const size_t cells = (size_t) k * (size_t) n;
    Sizes s = {};
    if (f.scale_k == 0) {
        s.values = round_up(cells * sizeof(float));
        return s;
    }
    s.q = round_up(cells);
    s.scale = round_up(cells / f.scale_k * sizeof(float));
    if (f.offset != 0) {
        s.init = round_up(cells / f.sum_k * sizeof(int32_t));
    }
    if (f.mins) {
        s.pair_sums = round_up(cells / 64 * sizeof(int32_t));
    }
    if (f.float_mins) {
        s.block_sum = round_up(cells / 32 * sizeof(float));
    }
    return s;
}

}  // namespace

const FormatInfo & format_info(Format format) {
    return infos[(int) format];
}

int64_t padded_k(Format, int64_t k) {
    return (k + chunk_k - 1) / chunk_k * chunk_k;
}

size_t group_bytes(Format format, int64_t k) {
    const FormatInfo & f = format_info(format);
    const size_t chunks = (size_t) (padded_k(format, k) / chunk_k);
    return chunks * f.chunk_bytes + (f.prefix_bytes ? chunks / 4 * f.prefix_bytes : 0);
}

size_t activation_bytes(Format format, int64_t k, int n) {
    const Sizes s = sizes(format, k, n);
    return s.q + s.init + s.pair_sums + s.scale + s.block_sum + s.values;
}

Activations activations_at(Format format, int64_t k, int n, void * memory) {
    const Sizes s = sizes(format, k, n);
    uint8_t * p = (uint8_t *) memory;
    Activations a = {};
    a.n = n;
    a.k = (int) k;
    a.q = (int8_t *) p;
    a.init = (int32_t *) (p += s.q);
    a.pair_sums = (int32_t *) (p += s.init);
    a.scale = (float *) (p += s.pair_sums);
    a.block_sum = (float *) (p += s.scale);
    a.values = (float *) (p += s.block_sum);
    return a;
}

}  // namespace ecl
