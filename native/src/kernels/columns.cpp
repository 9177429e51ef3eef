#include "ecl_kernels.h"
#include "ggml-backend.h"
#include "ggml-cpu-impl.h"
#include "ggml.h"
#include "ggml_attention.h"
#include "ggml_buffer_type.h"
#include "ggml_columns.h"

#include <algorithm>
#include <cstdint>

namespace {

using Forward = void (*)(ggml_compute_params *, ggml_tensor *);

constexpr uint16_t half_minus_infinity = 0xfc00;

// How the tokens lie in a matrix product's columns: token i has `width` of them along an axis.
struct Layout {
    int     axis;  // 0: they do not
    int64_t width, n;
};

Layout layout_of(const ggml_tensor * op) {
    const ggml_tensor * x        = op->src[1];
    const int64_t       n_tokens = op->op_params[ECL_PARAM_TOKENS];
    for (int axis = 1; axis < GGML_MAX_DIMS; ++axis) {
        if (x->ne[axis] == n_tokens && (axis == 1 || op->src[0]->ne[axis] == 1)) {
            return { axis, 1, n_tokens };
        }
    }
    if (x->ne[1] % n_tokens == 0) {  // several columns a token, such as its heads
        return { 1, x->ne[1] / n_tokens, n_tokens };
    }
    return { x->ne[1] <= ECL_SMALL_BATCH ? 1 : 0, 1, x->ne[1] };  // some of the tokens, those with logits
}

ggml_tensor part(const ggml_tensor & whole, int axis, int64_t begin, int64_t n) {
    ggml_tensor t = whole;
    t.data        = static_cast<char *>(t.data) + begin * t.nb[axis];
    t.ne[axis]    = n;
    return t;
}

ggml_tensor unmarked(ggml_tensor op) {
    op.op_params[ECL_PARAM_TOKENS] = 0;
    return op;
}

void multiply(ggml_compute_params * params, const ggml_tensor & op, const Layout & layout, int64_t i, Forward forward) {
    ggml_tensor x = part(*op.src[1], layout.axis, i * layout.width, layout.width);
    ggml_tensor y = unmarked(part(op, layout.axis, i * layout.width, layout.width));
    y.src[1]      = &x;
    forward(params, &y);
}

// Cells that a step over this token alone would read.
int64_t cells_of(const ggml_tensor & mask, int64_t token, int64_t n_cells) {
    const ggml_tensor * input = &mask;
    while (input->src[0] != nullptr) {
        input = input->src[0];
    }
    const int64_t used = input->op_params[ECL_PARAM_USED_CELLS], pad = input->op_params[ECL_PARAM_CELLS_PAD];
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

void attend(ggml_compute_params * params, const ggml_tensor & op, int64_t i, Forward forward) {
    ggml_tensor q = part(*op.src[0], 1, i, 1);
    ggml_tensor y = unmarked(part(op, 2, i, 1));
    y.src[0]      = &q;
    ggml_tensor k = *op.src[1], v = *op.src[2], mask;
    if (op.src[3] != nullptr) {
        const int64_t n_cells = cells_of(*op.src[3], i, k.ne[1]);
        mask                  = part(*op.src[3], 1, i, 1);
        mask.ne[0] = k.ne[1] = v.ne[1] = n_cells;
        y.src[1] = &k;
        y.src[2] = &v;
        y.src[3] = &mask;
    }
    forward(params, &y);
}

}  // namespace

bool ecl_follows_one_token(const ggml_tensor * op) {
    return op->op_params[ECL_PARAM_TOKENS] > 0 && ecl_kernels_exact();
}

bool ecl_goes_by_columns(const ggml_tensor * op) {
    if (op->op == GGML_OP_MUL_MAT) {
        const ggml_tensor * weight = op->src[0];
        return ecl_follows_one_token(op) && layout_of(op).axis > 0 &&
               (weight->buffer == nullptr || ggml_backend_buffer_get_type(weight->buffer) != ecl_kernels_buffer_type());
    }
    if (op->op == GGML_OP_FLASH_ATTN_EXT) {
        return ecl_follows_one_token(op) && op->src[0]->ne[1] > 1 && !ecl_attention_takes(op);
    }
    return false;
}

void ecl_by_columns(ggml_compute_params * params, ggml_tensor * op, Forward forward) {
    const bool    product = op->op == GGML_OP_MUL_MAT;
    const Layout  layout  = product ? layout_of(op) : Layout{ 1, 1, op->src[0]->ne[1] };
    for (int64_t i = 0; i < layout.n; ++i) {
        if (i > 0) {
            ggml_barrier(params->threadpool);  // the work buffer is used again
        }
        if (product) {
            multiply(params, *op, layout, i, forward);
        } else {
            attend(params, *op, i, forward);
        }
    }
}
