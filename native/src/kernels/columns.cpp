#include "ecl_kernels.h"
#include "ggml-backend.h"
#include "ggml-cpu-impl.h"
#include "ggml.h"
#include "ggml_buffer_type.h"
#include "ggml_columns.h"

bool ecl_goes_by_columns(const ggml_tensor * op) {
    if (op->op != GGML_OP_MUL_MAT || op->src[1]->ne[1] < 2 || op->src[1]->ne[1] > ECL_SMALL_BATCH ||
        !ecl_kernels_enabled()) {
        return false;
    }
    const ggml_tensor * weight = op->src[0];
    return weight->buffer == nullptr || ggml_backend_buffer_get_type(weight->buffer) != ecl_kernels_buffer_type();
}

void ecl_by_columns(ggml_compute_params * params, ggml_tensor * op,
                    void (*forward)(ggml_compute_params *, ggml_tensor *)) {
    for (int64_t column = 0; column < op->src[1]->ne[1]; ++column) {
        ggml_tensor x = *op->src[1];
        x.data        = static_cast<char *>(x.data) + column * x.nb[1];
        x.ne[1]       = 1;
        ggml_tensor y = *op;
        y.data        = static_cast<char *>(y.data) + column * y.nb[1];
        y.ne[1]       = 1;
        y.src[1]      = &x;
        if (column > 0) {
            ggml_barrier(params->threadpool);  // the work buffer is used again
        }
        forward(params, &y);
    }
}
