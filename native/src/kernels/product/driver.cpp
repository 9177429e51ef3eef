// The matrix product on one of ggml's thread teams: quantizes the activations once, shared by all
// threads, then hands row groups to the threads as they become free.
#include "product/driver.h"

#include "product/product.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"

#include <algorithm>
#include <cstring>

namespace ecl {

namespace {

// Weights of this size stay in the cache for the next block of columns; not tuned.
constexpr size_t cached_bytes = 256 * 1024;

// What a thread takes at a time: small enough to balance, large enough for the hardware to stream; not
// tuned.
constexpr size_t piece_bytes = 96 * 1024;
constexpr int pieces_per_thread = 6;

int64_t groups_per_piece(int64_t groups, size_t bytes, int n_threads) {
    const int64_t wanted = groups / ((int64_t) n_threads * pieces_per_thread);
    const int64_t least = (int64_t) ((piece_bytes + bytes - 1) / bytes);
    const int64_t most = (groups + n_threads - 1) / n_threads;
    return std::max<int64_t>(1, std::min(std::max(wanted, least), most));
}

struct Product {
    const KernelSet & kernels;
    Format format;
    const uint8_t * weights;
    int64_t k, first_row, rows;  // the rows of the matrix that the result holds
    const ggml_tensor * x;
    ggml_tensor * y;
    ColumnBlocks columns;
    uint8_t * scratch;
    size_t block_bytes, group_size;
    bool contiguous;

    const float * column(int64_t i) const {
        const int64_t i1 = i % x->ne[1], i2 = i / x->ne[1] % x->ne[2], i3 = i / (x->ne[1] * x->ne[2]);
        return (const float *) ((const char *) x->data + i1 * x->nb[1] + i2 * x->nb[2] + i3 * x->nb[3]);
    }
    float * result(int64_t i) const {
        const int64_t i1 = i % y->ne[1], i2 = i / y->ne[1] % y->ne[2], i3 = i / (y->ne[1] * y->ne[2]);
        return (float *) ((char *) y->data + i1 * y->nb[1] + i2 * y->nb[2] + i3 * y->nb[3]);
    }
    Activations block(int64_t b) const {
        return activations_at(format, padded_k(format, k), columns.count(b), scratch + b * block_bytes);
    }

    void quantize(int ith, int nth) const {
        const int64_t kp = padded_k(format, k);
        const int64_t pieces = (kp + super_k - 1) / super_k, all = pieces * columns.n;
        // Columns are interleaved, so threads that shared a piece would write to the same cache lines.
        for (int64_t u = all * ith / nth; u < all * (ith + 1) / nth; ++u) {
            const int64_t i = u % columns.n, piece = u / columns.n, b = i / columns.width;
            const int end = (int) std::min<int64_t>(kp, (piece + 1) * super_k);
            kernels.quantize(format, column(i), (int) (piece * super_k), end, (int) k,
                             (int) (i - columns.begin(b)), block(b));
        }
    }

    // Groups are counted from the matrix's first row; the first and last may stick out of the result.
    void multiply(int64_t group, const Activations & a, int64_t first_column) const {
        const Multiply kernel = kernels.multiply[(int) format][a.n - 1];
        const int64_t row = group * group_rows - first_row;
        const uint8_t * w = weights + group * group_size;
        if (row >= 0 && row + group_rows <= rows && contiguous) {
            kernel(w, a, result(first_column) + row, (size_t) rows);
            return;
        }
        float out[max_columns * group_rows];
        kernel(w, a, out, group_rows);
        const int64_t begin = std::max<int64_t>(0, row), end = std::min(rows, row + group_rows);
        for (int c = 0; c < a.n; ++c) {
            std::memcpy(result(first_column + c) + begin, out + c * group_rows + (begin - row),
                        (end - begin) * sizeof(float));
        }
    }

    void multiply_groups(int64_t begin, int64_t end) const {
        if (columns.blocks <= 2) {  // a group stays in the first-level cache for the second block
            const Activations a[2] = { block(0), block(1) };
            for (int64_t g = begin; g < end; ++g) {
                for (int64_t b = 0; b < columns.blocks; ++b) {
                    multiply(g, a[b], columns.begin(b));
                }
            }
            return;
        }
        const int64_t step = std::max<int64_t>(1, (int64_t) (cached_bytes / group_size));
        for (int64_t first = begin; first < end; first += step) {
            for (int64_t b = 0; b < columns.blocks; ++b) {
                const Activations a = block(b);
                for (int64_t g = first; g < std::min(end, first + step); ++g) {
                    multiply(g, a, columns.begin(b));
                }
            }
        }
    }
};

size_t block_stride(Format format, int64_t k, const ColumnBlocks & columns) {
    return activation_bytes(format, padded_k(format, k), (int) columns.width);
}

}  // namespace

bool format_of(ggml_type type, Format & format) {
    switch (type) {
        case GGML_TYPE_Q4_0: format = Format::q4_0; return true;
        case GGML_TYPE_Q4_1: format = Format::q4_1; return true;
        case GGML_TYPE_Q5_0: format = Format::q5_0; return true;
        case GGML_TYPE_Q8_0: format = Format::q8_0; return true;
        case GGML_TYPE_Q4_K: format = Format::q4_k; return true;
        case GGML_TYPE_Q5_K: format = Format::q5_k; return true;
        case GGML_TYPE_Q6_K: format = Format::q6_k; return true;
        case GGML_TYPE_F16: format = Format::f16; return true;
        default: return false;
    }
}

size_t product_scratch_bytes(Format format, const ggml_tensor * op) {
    const ColumnBlocks columns(ggml_nrows(op->src[1]));
    return 64 + (size_t) columns.blocks * block_stride(format, op->src[1]->ne[0], columns);
}

void compute_product(const ggml_compute_params * params, Format format, ggml_tensor * op,
                     const uint8_t * weights, int64_t first_row) {
    const ggml_tensor * x = op->src[1];
    const ColumnBlocks columns(ggml_nrows(x));
    uint8_t * scratch = (uint8_t *) (((uintptr_t) params->wdata + 63) & ~(uintptr_t) 63);
    const size_t group_size = group_bytes(format, x->ne[0]);
    const Product product = { *active_kernels(), format, weights, x->ne[0], first_row, op->ne[0], x, op, columns,
                              scratch, block_stride(format, x->ne[0], columns), group_size, ggml_is_contiguous(op) };
    GGML_ASSERT(params->wsize >= product_scratch_bytes(format, op));

    product.quantize(params->ith, params->nth);
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);  // the first nth pieces are given out
    }
    ggml_barrier(params->threadpool);

    const int64_t first = first_row / group_rows;
    const int64_t groups = (first_row + op->ne[0] + group_rows - 1) / group_rows - first;
    const int64_t piece = groups_per_piece(groups, group_size, params->nth);
    for (int64_t i = params->ith; i * piece < groups; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        product.multiply_groups(first + i * piece, first + std::min(groups, (i + 1) * piece));
    }
}

}  // namespace ecl
