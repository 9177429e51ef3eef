// The kernels as an extra buffer type of ggml's CPU backend: model loaders place a 2D weight in it
// if supports_op takes its product; the weight is repacked when its data are set.
#include "product/ggml_buffer_type.h"

#include "product/driver.h"
#include "ecl_kernels.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

namespace ecl {

namespace {

// The matrix that holds a weight or a view of whole rows of it, and the row it starts at.
struct Rows {
    const ggml_tensor * matrix;
    int64_t first;
};

bool whole_rows(const ggml_tensor * t, Rows & rows) {
    rows = { t, 0 };
    if (!t->view_src) {
        return true;
    }
    const ggml_tensor * matrix = t->view_src;
    if (t->type != matrix->type || t->ne[0] != matrix->ne[0] || t->nb[1] != matrix->nb[1] ||
        t->view_offs % matrix->nb[1] != 0) {
        return false;
    }
    rows = { matrix, (int64_t) (t->view_offs / matrix->nb[1]) };
    return rows.first + t->ne[1] <= matrix->ne[1];
}

bool servable(const ggml_tensor * t, Format & format) {
    Rows rows;
    return format_of(t->type, format) && active_kernels()->multiply[(int) format][0] && ggml_n_dims(t) <= 2 &&
           t->nb[0] == ggml_type_size(t->type) && t->nb[1] == ggml_row_size(t->type, t->ne[0]) &&
           whole_rows(t, rows) && ggml_n_dims(rows.matrix) <= 2;
}

class Traits : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        Format format;
        if (op->op != GGML_OP_MUL_MAT || !format_of(op->src[0]->type, format)) {
            return false;
        }
        size = product_scratch_bytes(format, op);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        Format format;
        Rows rows;
        if (op->op != GGML_OP_MUL_MAT || !format_of(op->src[0]->type, format)) {
            return false;
        }
        GGML_ASSERT(whole_rows(op->src[0], rows));
        compute_product(params, format, op, (const uint8_t *) rows.matrix->data, rows.first);
        return true;
    }
};

Traits & traits() {
    static Traits instance;
    return instance;
}

bool in_our_buffer(const ggml_tensor * op) {
    return op->src[0] && op->src[0]->buffer && op->src[0]->buffer->buft == ecl_kernels_buffer_type();
}

class ExtraBufferType : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        Format format;
        if (op->op != GGML_OP_MUL_MAT || !in_our_buffer(op) || !servable(op->src[0], format)) {
            return false;
        }
        // Model loaders ask with an empty buffer, and get what their thread chose. A weight that is
        // already here can be multiplied by nothing else.
        if (op->src[0]->buffer->size == 0 && ecl_kernels_chosen() != ECL_KERNELS_OURS) {
            return false;
        }
        const ggml_tensor * x = op->src[1];
        if (x->buffer && !ggml_backend_buft_is_host(x->buffer->buft)) {
            return false;
        }
        return x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && op->type == GGML_TYPE_F32 &&
               x->ne[0] <= INT32_MAX / max_columns;
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        return op->op == GGML_OP_MUL_MAT && in_our_buffer(op) ? &traits() : nullptr;
    }
};

// Each thread that repacks gets at least so much; not tuned.
constexpr size_t bytes_per_thread = 1 << 20;

void set_tensor(ggml_backend_buffer_t, ggml_tensor * t, const void * data, size_t offset, size_t size) {
    Format format;
    GGML_ASSERT(servable(t, format) && !t->view_src && offset == 0 && size == ggml_nbytes(t));
    GGML_ASSERT((uintptr_t) t->data % line_bytes == 0);
    const int64_t groups = (t->ne[1] + group_rows - 1) / group_rows;
    const auto work = [&](int64_t begin, int64_t end) {
        repack(format, data, t->nb[1], t->ne[1], t->ne[0], begin, end, (uint8_t *) t->data);
    };
    const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    const int64_t n = std::min<int64_t>({ cores, groups, (int64_t) (size / bytes_per_thread) + 1, 16 });
    std::vector<std::thread> helpers;
    for (int64_t i = 1; i < n; ++i) {
        helpers.emplace_back(work, groups * i / n, groups * (i + 1) / n);
    }
    work(0, groups / n);
    for (std::thread & helper : helpers) {
        helper.join();
    }
}

// Any range of the original bytes, row by row.
void get_tensor(ggml_backend_buffer_t, const ggml_tensor * t, void * data, size_t offset, size_t size) {
    Format format;
    GGML_ASSERT(servable(t, format) && !t->view_src);
    const size_t row_bytes = t->nb[1];
    std::vector<uint8_t> row(row_bytes);
    auto * out = (uint8_t *) data;
    while (size > 0) {
        unpack(format, (const uint8_t *) t->data, row_bytes, t->ne[0], (int64_t) (offset / row_bytes), row.data());
        const size_t begin = offset % row_bytes;
        const size_t n = std::min(row_bytes - begin, size);
        std::memcpy(out, row.data() + begin, n);
        out += n;
        offset += n;
        size -= n;
    }
}

const char * buffer_type_name(ggml_backend_buffer_type_t) {
    return "CPU_ECL";
}

size_t alignment(ggml_backend_buffer_type_t) {
    return line_bytes;
}

size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * t) {
    Format format;
    if (t->view_src || !servable(t, format)) {
        return ggml_nbytes(t);
    }
    const size_t groups = (size_t) ((t->ne[1] + group_rows - 1) / group_rows);
    return std::max(ggml_nbytes(t), groups * group_bytes(format, t->ne[0]));
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (!buffer) {
        return nullptr;
    }
    buffer->buft = buft;
    buffer->iface.set_tensor = set_tensor;
    buffer->iface.get_tensor = get_tensor;
    buffer->iface.cpy_tensor = nullptr;
    return buffer;
}

}  // namespace

}  // namespace ecl

ggml_backend_buffer_type_t ecl_kernels_buffer_type(void) {
    static ggml_backend_buffer_type type = {
        /* .iface   = */ { ecl::buffer_type_name, ecl::alloc_buffer, ecl::alignment, nullptr, ecl::alloc_size, nullptr },
        /* .device  = */ ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        /* .context = */ new ecl::ExtraBufferType(),
    };
    return ecl::active_kernels() ? &type : nullptr;
}
