#include "graph/taught_matrix.h"

#include "ggml-backend.h"
#include "ggml-cpu.h"

#include <vector>

namespace ecl {

ggml_type taught_type(int64_t width) {
    return width % ggml_blck_size(GGML_TYPE_Q8_0) == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
}

void store_rows(ggml_tensor * matrix, const float * rows, int64_t stride) {
    const ggml_from_float_t store = ggml_get_type_traits_cpu(matrix->type)->from_float;
    std::vector<char>       bytes(ggml_nbytes(matrix));
    for (int64_t row = 0; row < matrix->ne[1]; ++row) {
        store(rows + row * stride, bytes.data() + row * matrix->nb[1], matrix->ne[0]);
    }
    ggml_backend_tensor_set(matrix, bytes.data(), 0, bytes.size());
}

}  // namespace ecl
