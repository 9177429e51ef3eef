// Matrix products for small batches: quantized weights times 1 to 8 columns of activations in one pass.
//
// Weights lie in groups of 16 rows. One 64-byte line holds 4 consecutive k of each of the 16 rows
// (dword r belongs to row r), so an instruction set with w bits takes a line in 512/w registers,
// the activations are broadcast, every lane sums its own row and no horizontal sum is ever needed.
//
// What must always hold: a kernel does the same float operations in the same order for a column
// whatever the number of columns, and every instruction set does the same ones (a dot product is
// exact in int32; then convert, fused multiply-add, no contraction). So the result of a column has
// the same bits for every batch size, thread count and instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ecl {

enum class Format : int { q4_0, q4_1, q5_0, q8_0, q4_k, q5_k, q6_k, f16 };

constexpr int n_formats = 8;
constexpr int group_rows = 16;
constexpr int chunk_k = 64;    // the stream of a group is cut in chunks of 64 k
constexpr int super_k = 256;   // and, for K-quants, in super-blocks of 4 chunks
constexpr int line_bytes = 64;
constexpr int max_columns = 8;
// Bytes ahead of its use that a line is prefetched, into the second and the first level of the cache.
// Without prefetching, Q4_K times 4 columns took 3.2 times as long (Zen 5, 441 MB of weights); the two
// distances are not tuned.
constexpr size_t prefetch_far = 4096;
constexpr size_t prefetch_near = 1024;

// How a format is laid out in a group and which activations it multiplies.
struct FormatInfo {
    const char * name;
    int chunk_bytes;   // bytes of 64 k of a group: header lines, then data lines in order of use
    int prefix_bytes;  // bytes in front of the four chunks of a super-block
    int scale_k;       // activations that share one float scale: 32, 256, or 0 for float columns
    int sum_k;         // activations that share one integer weight scale: 32 or 16
    int offset;        // what was added to a weight to make it unsigned
    int shift;         // the last sub-block of each period comes out times 1 << shift
    int period;        // sub-blocks of a chunk: 2 of 32 k, or 4 of 16 k
    bool mins;         // K-quants with a minimum per sub-block: pairs of activation sums are kept
    bool float_mins;   // Q4_1: the float sum of each activation block is kept
};

const FormatInfo & format_info(Format format);

// Bytes of one group of 16 rows with k columns (k a multiple of 64, of 256 for K-quants).
size_t group_bytes(Format format, int64_t k);

// k rounded up to what the layout holds; the rest is zeros.
int64_t padded_k(Format format, int64_t k);

// Quantized activations of one block of n columns, interleaved over the columns.
struct Activations {
    int n;
    int k;                // padded
    int8_t * q;           // [k/16][n][16]
    int32_t * init;       // [k/sum_k][n]: -offset * sum of q, times 1 << shift of the sub-block
    int32_t * pair_sums;  // [k/64][n]: sums of two 32-blocks as int16 pairs, in the order of the mins
    float * scale;        // [k/scale_k][n]
    float * block_sum;    // [k/32][n]: scale * sum of q
    float * values;       // [k][n]: formats without integer activations
};

// How a product over n columns is cut into blocks of nearly equal width, each one kernel call.
struct ColumnBlocks {
    int64_t n, blocks, width;

    explicit ColumnBlocks(int64_t n) : n(n), blocks((n + max_columns - 1) / max_columns) {
        width = blocks > 0 ? (n + blocks - 1) / blocks : 0;
    }
    int64_t begin(int64_t block) const { return block * width; }
    int     count(int64_t block) const {
        const int64_t left = n - block * width;
        return static_cast<int>(left < 0 ? 0 : left < width ? left : width);
    }
};

// Bytes of a block, and the block at a 64-byte aligned address of that many bytes.
size_t activation_bytes(Format format, int64_t k, int n);
Activations activations_at(Format format, int64_t k, int n, void * memory);

// Quantizes k_begin..k_end of column c of a block: x has k_valid floats, the rest counts as zero.
// k_begin and k_end are multiples of 256 or the padded k.
using Quantize = void (*)(Format format, const float * x, int k_begin, int k_end, int k_valid,
                          int c, const Activations & block);

// y[c*ldy + r] = the dot product of row r of the group and column c, for 16 rows and x.n columns.
using Multiply = void (*)(const uint8_t * group, const Activations & x, float * y, size_t ldy);

// What one instruction set offers. multiply[f][n - 1] is null where it has no kernel.
struct KernelSet {
    const char * name;
    Quantize quantize;
    Multiply multiply[n_formats][max_columns];
};

// Null where the file was built for another CPU family or the compiler lacks the flags.
const KernelSet * kernels_avx2();
const KernelSet * kernels_avxvnni();
// few_load_slots: for cores that cannot load one broadcast operand a product (AMD's).
const KernelSet * kernels_avx512vnni(bool few_load_slots);
const KernelSet * kernels_neon();
const KernelSet * kernels_i8mm();

// The sets that this CPU can run, best first; returns how many.
constexpr int max_sets = 3;
int available_kernels(const KernelSet * (&sets)[max_sets]);

// The best set of this CPU (or the one that ECL_KERNELS_ISA asks for), null if there is none.
const KernelSet * active_kernels();

// Writes the groups [group_begin, group_end) of a matrix of rows x k, given in ggml's own layout
// with row_bytes from row to row, to out (the whole matrix's memory, 64-byte aligned). Rows and k
// beyond the matrix become zeros.
void repack(Format format, const void * weights, size_t row_bytes, int64_t rows, int64_t k,
            int64_t group_begin, int64_t group_end, uint8_t * out);

// Writes one row of a matrix of k columns, back in ggml's own layout, to out (row_bytes).
void unpack(Format format, const uint8_t * packed, size_t row_bytes, int64_t k, int64_t row, uint8_t * out);

}  // namespace ecl
