// ggml's side of the attention kernels: which operations they take, and how threads share one.
#include "attention/attention.h"

#include "attention/ggml_attention.h"
#include "cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml.h"
#include "ggml_marks.h"
#include "product/product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace ecl {

namespace {

constexpr size_t partials_budget_bytes = 4u << 20;  // not tuned
constexpr size_t align_floats          = 16;

size_t aligned(size_t floats) {
    return (floats + align_floats - 1) / align_floats * align_floats;
}

bool is_tree(const ggml_tensor * dst) {
    return dst->src[ECL_ATTENTION_CELLS] != nullptr;
}

Attention describe(const ggml_tensor * dst) {
    const ggml_tensor * q     = dst->src[0];
    const ggml_tensor * k     = dst->src[1];
    const ggml_tensor * v     = dst->src[2];
    const ggml_tensor * mask  = dst->src[3];
    const ggml_tensor * sinks = dst->src[4];

    Attention a;
    a.n_tokens   = static_cast<int>(q->ne[1]);
    a.n_heads    = static_cast<int>(q->ne[2]);
    a.n_kv_heads = static_cast<int>(k->ne[2]);
    a.dk         = static_cast<int>(k->ne[0]);
    a.dv         = static_cast<int>(v->ne[0]);
    a.n_cells    = static_cast<int>(k->ne[1]);
    a.half       = k->type == GGML_TYPE_F16;
    a.q          = static_cast<const char *>(q->data);
    a.q_token    = q->nb[1];
    a.q_head     = q->nb[2];
    a.k          = static_cast<const char *>(k->data);
    a.k_cell     = k->nb[1];
    a.k_head     = k->nb[2];
    a.v          = static_cast<const char *>(v->data);
    a.v_cell     = v->nb[1];
    a.v_head     = v->nb[2];
    a.mask       = mask != nullptr ? static_cast<const uint16_t *>(mask->data) : nullptr;
    a.mask_token = mask != nullptr ? mask->nb[1] : 0;
    a.sinks      = sinks != nullptr ? static_cast<const float *>(sinks->data) : nullptr;
    a.cells      = is_tree(dst) ? static_cast<const int64_t *>(dst->src[ECL_ATTENTION_CELLS]->data) : nullptr;
    a.paths      = is_tree(dst) ? static_cast<const int32_t *>(dst->src[ECL_ATTENTION_PATHS]->data) : nullptr;
    a.from       = nullptr;
    a.out        = static_cast<char *>(dst->data);
    a.out_head   = dst->nb[1];
    a.out_token  = dst->nb[2];
    std::memcpy(&a.scale, reinterpret_cast<const float *>(dst->op_params) + 0, sizeof(float));
    std::memcpy(&a.max_bias, reinterpret_cast<const float *>(dst->op_params) + 1, sizeof(float));
    std::memcpy(&a.softcap, reinterpret_cast<const float *>(dst->op_params) + 2, sizeof(float));
    if (a.softcap != 0.0f) {
        a.scale /= a.softcap;
    }
    return a;
}

// Tokens begin .. end - 1 of a batch, as a batch of their own.
Attention part_of(const Attention & a, int begin, int end) {
    Attention part = a;
    part.n_tokens  = end - begin;
    part.q += begin * a.q_token;
    part.out += begin * a.out_token;
    if (a.mask != nullptr) {
        part.mask = reinterpret_cast<const uint16_t *>(reinterpret_cast<const char *>(a.mask) + begin * a.mask_token);
    }
    return part;
}

// Whether a token of a tree reads other cells than a chunk's own.
bool reads_elsewhere(const Attention & a, int token, int chunk) {
    for (int d = 0; d < a.n_tokens; ++d) {
        if (a.cells[d] / attention_chunk == chunk && a.paths[token * a.n_tokens + d] != d) {
            return true;
        }
    }
    return false;
}

// Attends to one chunk of one KV head. Tokens of a tree that read other cells than the chunk's own go one
// by one, all others together.
void attend(const AttentionKernel & kernel, const Attention & a, int kv_head, int chunk, float * partials,
            float * scratch) {
    const bool stored_here = a.cells != nullptr && std::any_of(a.cells, a.cells + a.n_tokens, [&](int64_t cell) {
        return cell / attention_chunk == chunk;
    });
    if (!stored_here) {
        kernel.attend(a, kv_head, chunk, partials, scratch);
        return;
    }
    int32_t from[attention_chunk];
    for (int begin = 0, end = 1; begin < a.n_tokens; begin = end++) {
        Attention part = part_of(a, begin, end);
        if (reads_elsewhere(a, begin, chunk)) {
            std::iota(from, from + attention_chunk, chunk * attention_chunk);
            for (int d = 0; d < a.n_tokens; ++d) {
                if (a.cells[d] / attention_chunk == chunk) {
                    const int32_t source = a.paths[begin * a.n_tokens + d];
                    from[a.cells[d] % attention_chunk] = static_cast<int32_t>(a.cells[source]);
                }
            }
            part.from = from;
        } else {
            while (end < a.n_tokens && !reads_elsewhere(a, end, chunk)) {
                ++end;
            }
            part = part_of(a, begin, end);
        }
        float * rows = partials + static_cast<size_t>(begin) * a.n_heads * a.row_floats();
        kernel.attend(part, kv_head, chunk, rows, scratch);
    }
}

}  // namespace

const AttentionKernel * attention_kernel(int64_t dk, int64_t dv) {
    static const AttentionKernel * const widest_first[] = {
        cpu().avx512 ? attention_avx512() : nullptr,
        cpu().avx2 ? attention_avx2() : nullptr,
        cpu().neon ? attention_neon() : nullptr,
    };
    for (const AttentionKernel * kernel : widest_first) {
        if (kernel != nullptr && dk % kernel->width == 0 && dv % kernel->width == 0) {
            return kernel;
        }
    }
    return nullptr;
}

size_t attention_scratch_floats(const Attention & a) {
    const size_t scores = static_cast<size_t>(a.n_tokens) * a.group() * attention_chunk;
    return aligned(scores + static_cast<size_t>(a.dk) * 16);
}

int attention_segment(const Attention & a) {
    const size_t chunk_bytes = sizeof(float) * a.row_floats() * a.n_rows();
    return static_cast<int>(std::clamp<size_t>(partials_budget_bytes / chunk_bytes, 1, a.n_chunks()));
}

}  // namespace ecl

bool ecl_attention_takes(const ggml_tensor * dst) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    return dst->op_params[ECL_MARK_KERNELS] != 0 && ecl::active_kernels() != nullptr &&
           ecl::attention_kernel(k->ne[0], v->ne[0]) != nullptr && q->type == GGML_TYPE_F32 &&
           (k->type == GGML_TYPE_F16 || k->type == GGML_TYPE_F32) && v->type == k->type &&
           q->ne[1] <= ecl::attention_max_tokens && q->ne[3] == 1 && k->ne[3] == 1 && v->ne[3] == 1 &&
           v->ne[2] == k->ne[2] && q->ne[2] % k->ne[2] == 0 && q->nb[0] == sizeof(float) &&
           k->nb[0] == ggml_type_size(k->type) && v->nb[0] == ggml_type_size(v->type) &&
           (mask == nullptr || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 && mask->ne[3] == 1));
}

size_t ecl_attention_work_size(const ggml_tensor * dst, int n_threads) {
    const ecl::Attention a        = ecl::describe(dst);
    const size_t         partials = static_cast<size_t>(ecl::attention_segment(a) + 1) * a.n_rows() * a.row_floats();
    return sizeof(float) * (ecl::aligned(partials) + n_threads * ecl::attention_scratch_floats(a) + ecl::align_floats);
}

void ecl_attention_compute(const ggml_compute_params * params, ggml_tensor * dst) {
    using namespace ecl;

    const Attention         a      = describe(dst);
    const AttentionKernel & kernel = *attention_kernel(a.dk, a.dv);
    const int               ith = params->ith, nth = params->nth;
    const int               n_rows = a.n_rows(), row_floats = a.row_floats(), segment = attention_segment(a);
    const size_t            rows_floats = static_cast<size_t>(n_rows) * row_floats;

    const auto start   = (reinterpret_cast<uintptr_t>(params->wdata) + 63) / 64 * 64;
    float *    running = reinterpret_cast<float *>(start);
    float *    partials = running + rows_floats;
    float *    scratch  = running + aligned((segment + 1) * rows_floats) + ith * attention_scratch_floats(a);

    for (int begin = 0; begin < a.n_chunks(); begin += segment) {
        const int n_chunks = std::min(segment, a.n_chunks() - begin);
        const int n_items  = n_chunks * a.n_kv_heads;
        for (int item = ith; item < n_items; item += nth) {
            attend(kernel, a, item % a.n_kv_heads, begin + item / a.n_kv_heads,
                   partials + item / a.n_kv_heads * rows_floats, scratch);
        }
        ggml_barrier(params->threadpool);
        for (int row = ith; row < n_rows; row += nth) {
            float * sum = running + static_cast<size_t>(row) * row_floats;
            if (begin == 0) {
                std::fill_n(sum, row_floats, 0.0f);
                sum[0] = -INFINITY;
            }
            for (int chunk = 0; chunk < n_chunks; ++chunk) {
                kernel.combine(a.dv, partials + chunk * rows_floats + static_cast<size_t>(row) * row_floats, sum);
            }
        }
        if (begin + segment < a.n_chunks()) {
            ggml_barrier(params->threadpool);
        }
    }

    for (int row = ith; row < n_rows; row += nth) {
        const float * sum   = running + static_cast<size_t>(row) * row_floats;
        const int     token = row / a.n_heads, head = row % a.n_heads;
        float         total = sum[1], keep = 1.0f;
        if (a.sinks != nullptr) {  // one more score, with no value
            const float maximum = std::max(sum[0], a.sinks[head]);
            keep                = std::exp(sum[0] - maximum);
            total               = std::fma(total, keep, std::exp(a.sinks[head] - maximum));
        }
        const float factor = total == 0.0f ? 0.0f : keep / total;
        float *     out    = reinterpret_cast<float *>(a.out + token * a.out_token + head * a.out_head);
        for (int d = 0; d < a.dv; ++d) {
            out[d] = sum[16 + d] * factor;
        }
    }
}
