#include "token_by_token.h"

#include "attention/ggml_attention.h"
#include "ggml-backend.h"
#include "ggml-cpu-impl.h"
#include "ggml.h"
#include "product/ggml_buffer_type.h"

#include <algorithm>
#include <cstdint>

namespace {

using Forward = void (*)(ggml_compute_params *, ggml_tensor *);

constexpr uint16_t half_minus_infinity = 0xfc00;

ggml_tensor part(const ggml_tensor & whole, int axis, int64_t begin, int64_t n) {
    ggml_tensor t = whole;
    t.data        = static_cast<char *>(t.data) + begin * t.nb[axis];
    t.ne[axis]    = n;
    return t;
}

ggml_tensor unmarked(ggml_tensor op) {
    op.op_params[ECL_MARK_TOKENS] = 0;
    return op;
}

void multiply(ggml_compute_params * params, const ggml_tensor & op, int64_t token, Forward forward) {
    const int     axis  = op.op_params[ECL_MARK_AXIS];
    const int64_t width = op.op_params[ECL_MARK_WIDTH];
    ggml_tensor   x     = part(*op.src[1], axis, token * width, width);
    ggml_tensor   y     = unmarked(part(op, axis, token * width, width));
    y.src[1]            = &x;
    forward(params, &y);
}

// Cells that a step over this token alone would read.
int64_t cells_of(const ggml_tensor & mask, int64_t token, int64_t n_cells) {
    const ggml_tensor * input = &mask;
    while (input->src[0] != nullptr) {
        input = input->src[0];
    }
    const int64_t used = input->op_params[ECL_MASK_USED_CELLS], pad = input->op_params[ECL_MASK_CELLS_PAD];
    if (used == 0 || pad == 0) {
        return n_cells;
    }
    const auto * row = reinterpret_cast<const uint16_t *>(static_cast<const char *>(mask.data) + token * mask.nb[1]);
    int64_t      end = n_cells;
    while (end > used && row[end - 1] == half_minus_infinity) {
        --end;
    }
    return std::min(n_cells, (end + pad - 1) / pad * pad);
}

void attend(ggml_compute_params * params, const ggml_tensor & op, int64_t token, Forward forward) {
    ggml_tensor q = part(*op.src[0], 1, token, 1);
    ggml_tensor y = unmarked(part(op, 2, token, 1));
    y.src[0]      = &q;
    ggml_tensor k = *op.src[1], v = *op.src[2], mask;
    if (op.src[3] != nullptr) {
        const int64_t n_cells = cells_of(*op.src[3], token, k.ne[1]);
        mask                  = part(*op.src[3], 1, token, 1);
        mask.ne[0] = k.ne[1] = v.ne[1] = n_cells;
        y.src[1] = &k;
        y.src[2] = &v;
        y.src[3] = &mask;
    }
    forward(params, &y);
}

}  // namespace

bool ecl_goes_token_by_token(const ggml_tensor * op) {
    if (!ecl_in_small_batch(op)) {
        return false;
    }
    if (op->op == GGML_OP_FLASH_ATTN_EXT) {
        return !ecl_attention_takes(op);
    }
    const ggml_backend_buffer_t weights = op->src[0]->buffer;
    return op->op == GGML_OP_MUL_MAT &&
           (weights == nullptr || ggml_backend_buffer_get_type(weights) != ecl_kernels_buffer_type());
}

void ecl_compute_token_by_token(ggml_compute_params * params, ggml_tensor * op, Forward forward) {
    for (int64_t i = 0; i < op->op_params[ECL_MARK_TOKENS]; ++i) {
        if (i > 0) {
            ggml_barrier(params->threadpool);  // the work buffer is used again
        }
        (op->op == GGML_OP_MUL_MAT ? multiply : attend)(params, *op, i, forward);
    }
}
