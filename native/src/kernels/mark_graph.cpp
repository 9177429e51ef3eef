#include "mark_graph.h"

#include "ggml-backend.h"
#include "ggml-impl.h"
#include "ggml.h"
#include "ggml_marks.h"

#include <algorithm>
#include <unordered_map>

namespace ecl {

namespace {

// Where a tensor's tokens lie: token i has the entries i * width to (i + 1) * width - 1 of an axis.
struct TokenAxis {
    int     axis  = -1;  // negative: the tensor has no tokens, or not along one axis
    int64_t width = 0, n = 0;

    explicit operator bool() const { return axis >= 0; }
};

// The axis of t along which n tokens lie `stride` bytes apart.
TokenAxis axis_of_stride(const ggml_tensor & t, size_t stride, int64_t n) {
    for (int axis = 0; axis < GGML_MAX_DIMS; ++axis) {
        const int64_t width = static_cast<int64_t>(stride / t.nb[axis]);
        if (stride % t.nb[axis] == 0 && t.ne[axis] == n * width) {
            return { axis, width, n };
        }
    }
    return {};
}

// Follows the tokens from the graph's inputs through its operations.
class TokenAxes {
  public:
    explicit TokenAxes(int64_t n_tokens) : n_tokens(n_tokens) {}

    TokenAxis of(const ggml_tensor * t) {
        if (t == nullptr) {
            return {};
        }
        const auto known = axes.find(t);
        return known != axes.end() ? known->second : axes.emplace(t, find(*t)).first->second;
    }

  private:
    const int64_t                                      n_tokens;
    std::unordered_map<const ggml_tensor *, TokenAxis> axes;

    TokenAxis find(const ggml_tensor & t) {
        switch (t.op) {
            case GGML_OP_NONE:
                return of_input(t);
            case GGML_OP_VIEW:
            case GGML_OP_RESHAPE:
            case GGML_OP_PERMUTE:
            case GGML_OP_TRANSPOSE:
                return of_view(t);
            case GGML_OP_CONT:
                return of_copy(t);
            case GGML_OP_CPY:  // a cast, or a copy into a cache
                return t.view_src == nullptr ? of_copy(t) : TokenAxis{};
            case GGML_OP_GET_ROWS:
                return of_rows(t);
            case GGML_OP_MUL_MAT:
                return of_product(t);
            case GGML_OP_MUL_MAT_ID:
                return of(t.src[1]).axis == 2 || of(t.src[2]).axis == 1 ? TokenAxis{ 2, 1, t.ne[2] } : TokenAxis{};
            case GGML_OP_FLASH_ATTN_EXT:
                return of(t.src[0]).axis == 1 ? TokenAxis{ 2, 1, t.ne[2] } : TokenAxis{};
            case GGML_OP_SET_ROWS:  // into a cache
                return {};
            default:
                return of_elements(t);
        }
    }

    // Inputs that go by token (ids, embeddings, positions, masks) have one entry a token on their last axis.
    TokenAxis of_input(const ggml_tensor & t) const {
        const int last = ggml_n_dims(&t) - 1;
        return (t.flags & GGML_TENSOR_FLAG_INPUT) != 0 && t.ne[last] == n_tokens ? TokenAxis{ last, 1, n_tokens }
                                                                                 : TokenAxis{};
    }

    // Over the same memory: the distance from one token to the next stays.
    TokenAxis of_view(const ggml_tensor & t) {
        const ggml_tensor * src  = t.src[0];
        const TokenAxis     from = of(src);
        return from ? axis_of_stride(t, src->nb[from.axis] * from.width, from.n) : from;
    }

    // The same elements, laid out one after the other.
    TokenAxis of_copy(const ggml_tensor & t) {
        const TokenAxis from = of(t.src[0]);
        if (!from || ggml_are_same_shape(&t, t.src[0])) {
            return from;
        }
        size_t stride = t.nb[0] * from.width;
        for (int axis = 0; axis < from.axis; ++axis) {
            stride *= t.src[0]->ne[axis];
        }
        return axis_of_stride(t, stride, from.n);
    }

    // Rows of a table by token, some tokens' rows, or some rows of each token.
    TokenAxis of_rows(const ggml_tensor & t) {
        const TokenAxis table = of(t.src[0]), ids = of(t.src[1]);
        if (table.axis == 1 && table.width == 1) {
            return { 1, 1, t.ne[1] };
        }
        return table.axis > 1 ? table : !table && ids ? TokenAxis{ ids.axis + 1, ids.width, ids.n } : TokenAxis{};
    }

    TokenAxis of_product(const ggml_tensor & t) {
        const TokenAxis w = of(t.src[0]), x = of(t.src[1]);
        if (x) {
            return x.axis > 0 ? x : TokenAxis{};  // else a sum over tokens
        }
        return w.axis == 1 ? TokenAxis{ 0, w.width, w.n } : w.axis > 1 ? w : TokenAxis{};
    }

    TokenAxis of_elements(const ggml_tensor & t) {
        for (const ggml_tensor * src : t.src) {
            const TokenAxis from = of(src);
            if (from && t.ne[from.axis] == src->ne[from.axis] && (from.axis > 0 || ggml_are_same_shape(&t, src))) {
                return from;
            }
        }
        return {};
    }
};

void mark(ggml_tensor & op, ecl_mark slot, int32_t value) {
    GGML_ASSERT(op.op_params[slot] == 0 || op.op_params[slot] == value);  // upstream does not use it
    op.op_params[slot] = value;
}

}  // namespace

ecl_kernels_choice chosen_kernels() {
    static const auto chosen = [] {
        ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        return cpu == nullptr ? nullptr
                              : reinterpret_cast<decltype(&ecl_kernels_chosen)>(ggml_backend_reg_get_proc_address(
                                    ggml_backend_dev_backend_reg(cpu), "ecl_kernels_chosen"));
    }();
    return chosen != nullptr ? chosen() : ECL_KERNELS_UPSTREAM_AS_IS;
}

void mark_attention(ggml_cgraph * graph, ecl_kernels_choice kernels) {
    for (int i = 0; i < graph->n_nodes && kernels == ECL_KERNELS_OURS; ++i) {
        if (graph->nodes[i]->op == GGML_OP_FLASH_ATTN_EXT) {
            mark(*graph->nodes[i], ECL_MARK_KERNELS, 1);
        }
    }
}

void mark_small_batch(ggml_cgraph * graph, int64_t n_tokens) {
    TokenAxes axes(n_tokens);
    for (int i = 0; i < graph->n_nodes; ++i) {
        ggml_tensor & op = *graph->nodes[i];
        // Follows every node in order, so that no look-up goes deep.
        const TokenAxis result = axes.of(&op);
        TokenAxis       from;
        if (op.op == GGML_OP_MUL_MAT) {
            from = axes.of(op.src[1]);
            if (from && op.src[0]->ne[from.axis] != 1 && from.axis > 1) {
                from = {};  // each token has a matrix of its own
            }
        } else if (op.op == GGML_OP_MUL_MAT_ID) {
            from = result;
        } else if (op.op == GGML_OP_FLASH_ATTN_EXT) {
            from = axes.of(op.src[0]);
        }
        if (from.axis > 0 && from.n > 1) {
            mark(op, ECL_MARK_TOKENS, static_cast<int32_t>(from.n));
            mark(op, ECL_MARK_AXIS, from.axis);
            mark(op, ECL_MARK_WIDTH, static_cast<int32_t>(from.width));
        }
    }
}

void note_cells(ggml_tensor & mask, uint32_t used, uint32_t pad) {
    mask.op_params[ECL_MASK_USED_CELLS] = static_cast<int32_t>(used);
    mask.op_params[ECL_MASK_CELLS_PAD]  = static_cast<int32_t>(pad);
}

}  // namespace ecl
