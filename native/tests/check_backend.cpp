// Matrix products as a model's graph asks for them, in ggml's CPU backend: with the weights in our buffer
// type, against float64 and against ggml's own kernels; and what the marks of a graph do.
#include "check.h"
#include "ecl_kernels.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml_marks.h"
#include "mark_graph.h"

#include <thread>

namespace ecl_check {

using namespace ecl;

namespace {

ggml_backend_buffer_type_t our_buffer_type() {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    auto get = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(dev), "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t * b = get(dev); *b; ++b) {
        if (std::string(ggml_backend_buft_name(*b)) == "CPU_ECL") {
            return *b;
        }
    }
    return nullptr;
}

using Context = std::unique_ptr<ggml_context, void (*)(ggml_context *)>;
using Buffer = std::unique_ptr<ggml_backend_buffer, void (*)(ggml_backend_buffer_t)>;

Context make_context(int n_graphs = 1) {
    return { ggml_init({ 64 * ggml_tensor_overhead() + n_graphs * ggml_graph_overhead(), nullptr, true }), ggml_free };
}

// A weight matrix in a buffer type.
struct Weights {
    Context context = make_context();
    ggml_tensor * tensor;
    Buffer buffer{ nullptr, ggml_backend_buffer_free };

    Weights(ggml_backend_buffer_type_t buft, Format f, int64_t rows, int64_t k, const std::vector<uint8_t> & data) {
        tensor = ggml_new_tensor_2d(context.get(), type_of(f), k, rows);
        buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(context.get(), buft));
        ggml_backend_tensor_set(tensor, data.data(), 0, data.size());
    }
};

struct Shape {
    int64_t n, n2, n3;
};

// The product of weights (or a view of them) and x, which has k * n * n2 * n3 values.
std::vector<float> product(ggml_tensor * w, const std::vector<float> & x, Shape s, int n_threads,
                           int64_t padding = 0) {
    Context c = make_context();
    const int64_t k = w->ne[0];
    // padding: the columns lie further apart than they are long
    ggml_tensor * whole = ggml_new_tensor_4d(c.get(), GGML_TYPE_F32, k + padding, s.n, s.n2, s.n3);
    ggml_tensor * b = padding ? ggml_view_4d(c.get(), whole, k, s.n, s.n2, s.n3, whole->nb[1], whole->nb[2],
                                             whole->nb[3], 0)
                              : whole;
    ggml_tensor * y = ggml_mul_mat(c.get(), w, b);
    ggml_cgraph * graph = ggml_new_graph(c.get());
    ggml_build_forward_expand(graph, y);
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, n_threads);
    Buffer buffer(ggml_backend_alloc_ctx_tensors(c.get(), backend), ggml_backend_buffer_free);
    for (int64_t i = 0; i < s.n * s.n2 * s.n3; ++i) {
        ggml_backend_tensor_set(whole, x.data() + i * k, i * whole->nb[1], k * sizeof(float));
    }
    expect(ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS, "graph computes");
    std::vector<float> out((size_t) ggml_nelements(y));
    ggml_backend_tensor_get(y, out.data(), 0, ggml_nbytes(y));
    ggml_backend_free(backend);
    return out;
}

std::vector<float> random_columns(int64_t k, int64_t n, Random & r) {
    std::vector<float> x((size_t) (k * n));
    for (size_t i = 0; i < x.size(); ++i) {
        x[i] = (uniform(r) + uniform(r) + uniform(r)) * (i / (size_t) k % 3 == 1 ? 20.0f : 1.0f);
    }
    return x;
}

std::string label(Format f, int64_t rows, int64_t k) {
    return std::string(format_info(f).name) + " " + std::to_string(rows) + "x" + std::to_string(k);
}

// A column's bits depend neither on the batch, nor on the threads, nor on how src1 lies in memory.
void check_bits(ggml_backend_buffer_type_t buft, Format f, int64_t rows, int64_t k) {
    Random r((unsigned) (rows * 31 + k));
    const Weights w(buft, f, rows, k, make_weights(f, Blocks::quantized, rows, k, r));
    const int64_t most = 33;
    const std::vector<float> x = random_columns(k, most, r);
    std::vector<float> alone;
    for (int64_t c = 0; c < most; ++c) {
        const std::vector<float> one(x.begin() + c * k, x.begin() + (c + 1) * k);
        const std::vector<float> y = product(w.tensor, one, { 1, 1, 1 }, 1);
        alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const int threads : { 1, 2, 3 }) {
        for (const int64_t n : { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33 }) {
            if (threads == 3 && n % 4 != 1) {
                continue;
            }
            const std::vector<float> some(x.begin(), x.begin() + n * k);
            const std::vector<float> y = product(w.tensor, some, { n, 1, 1 }, threads, n % 3 ? 0 : 4);
            expect(same_bits(y.data(), alone.data(), n * rows),
                   label(f, rows, k) + ": bits of n=" + std::to_string(n) + ", " + std::to_string(threads) + " threads");
        }
    }
    // 32 columns as 2 x 4 x 4
    const std::vector<float> some(x.begin(), x.begin() + 32 * k);
    const std::vector<float> y = product(w.tensor, some, { 2, 4, 4 }, 2);
    expect(same_bits(y.data(), alone.data(), 32 * rows), label(f, rows, k) + ": bits of a 4D batch");
}

struct Error {
    double rms, worst;  // over the sum of absolute terms of each result
};

Error error_of(const std::vector<float> & y, const std::vector<double> & want, const std::vector<double> & size) {
    double sum = 0, worst = 0;
    for (size_t i = 0; i < y.size(); ++i) {
        const double e = size[i] > 0 ? std::fabs(y[i] - want[i]) / size[i] : std::fabs((double) y[i]);
        sum += e * e;
        worst = std::max(worst, e);
    }
    return { std::sqrt(sum / (double) y.size()), worst };
}

// The original bytes, whole and from the middle of a row to the middle of another.
void check_read_back(ggml_backend_buffer_type_t buft, Format f, int64_t rows, int64_t k) {
    Random r((unsigned) (rows * 41 + k));
    const std::vector<uint8_t> data = make_weights(f, Blocks::random, rows, k, r);
    const Weights w(buft, f, rows, k, data);
    std::vector<uint8_t> found(data.size());
    ggml_backend_tensor_get(w.tensor, found.data(), 0, found.size());
    expect(found == data, label(f, rows, k) + " is read back");
    const size_t row_bytes = w.tensor->nb[1], begin = row_bytes / 2, end = data.size() - row_bytes / 3;
    found.resize(end - begin);
    ggml_backend_tensor_get(w.tensor, found.data(), begin, end - begin);
    expect(std::equal(found.begin(), found.end(), data.begin() + begin), label(f, rows, k) + " is read back in part");
}

// Against float64 products of the dequantized weights and the unquantized activations.
void check_error(ggml_backend_buffer_type_t buft, Format f, Blocks kind, int64_t rows, int64_t k) {
    Random r((unsigned) (rows * 37 + k + (int) kind));
    const std::vector<uint8_t> data = make_weights(f, kind, rows, k, r);
    const Weights ours(buft, f, rows, k, data), upstream(ggml_backend_cpu_buffer_type(), f, rows, k, data);
    const int64_t n = 9;
    const std::vector<float> x = random_columns(k, n, r);

    std::vector<double> want, size;
    std::vector<float> row((size_t) k);
    want.resize((size_t) (rows * n));
    size.resize(want.size());
    for (int64_t i = 0; i < rows; ++i) {
        ggml_get_type_traits(type_of(f))->to_float(data.data() + i * ggml_row_size(type_of(f), k), row.data(), k);
        for (int64_t c = 0; c < n; ++c) {
            for (int64_t j = 0; j < k; ++j) {
                const double term = (double) row[j] * x[c * k + j];
                want[c * rows + i] += term;
                size[c * rows + i] += std::fabs(term);
            }
        }
    }
    // As one batch and column by column, where upstream takes another path.
    for (const bool batch : { true, false }) {
        std::vector<float> y[2];
        for (int64_t c = 0; c < n; c += batch ? n : 1) {
            const int64_t count = batch ? n : 1;
            const std::vector<float> some(x.begin() + c * k, x.begin() + (c + count) * k);
            for (int i = 0; i < 2; ++i) {
                const std::vector<float> part = product((i ? upstream : ours).tensor, some, { count, 1, 1 }, 2);
                y[i].insert(y[i].end(), part.begin(), part.end());
            }
        }
        const Error a = error_of(y[0], want, size), b = error_of(y[1], want, size);
        const std::string what = label(f, rows, k) + " " + name(kind) + (batch ? " batch" : " columns");
        std::printf("%-36s rms error %.3e (upstream %.3e), worst %.3e (%.3e)\n", what.c_str(), a.rms, b.rms, a.worst,
                    b.worst);
        // The quantized activations are the same and upstream's rounded scales move both errors a
        // little either way; 1e-7 is float's own.
        expect(a.rms <= 1.01 * b.rms + 1e-7, what + ": rms error larger than upstream's");
        expect(a.worst <= 1.05 * b.worst + 1e-6, what + ": worst error larger than upstream's");
    }
}

void check_views(ggml_backend_buffer_type_t buft, Format f) {
    const int64_t rows = 70, k = 512;
    Random r(5);
    const Weights w(buft, f, rows, k, make_weights(f, Blocks::quantized, rows, k, r));
    const std::vector<float> x = random_columns(k, 11, r);
    const std::vector<float> all = product(w.tensor, x, { 11, 1, 1 }, 2);
    for (const int64_t first : { 0, 16, 21 }) {
        for (const int64_t count : { 3, 16, 40 }) {
            Context c = make_context();
            ggml_tensor * v = ggml_view_2d(c.get(), w.tensor, k, count, w.tensor->nb[1], first * w.tensor->nb[1]);
            ggml_backend_view_init(v);
            const std::vector<float> y = product(v, x, { 11, 1, 1 }, 2);
            bool ok = true;
            for (int64_t i = 0; i < 11; ++i) {
                ok = ok && same_bits(y.data() + i * count, all.data() + i * rows + first, count);
            }
            expect(ok, std::string(format_info(f).name) + ": a view of rows " + std::to_string(first) + " + " +
                           std::to_string(count));
        }
    }
}

// What a model loader asks: may this op have its weight in our buffer type?
bool offered(ggml_backend_buffer_type_t buft, const std::function<ggml_tensor *(ggml_context *)> & make) {
    Context c = make_context();
    ggml_tensor * op = make(c.get());
    ggml_backend_buffer_t empty = ggml_backend_buft_alloc_buffer(buft, 0);
    ggml_tensor * w = op->src[0];
    while (w->view_src) {
        w->buffer = empty;
        w = w->view_src;
    }
    w->buffer = empty;
    const bool ok = ggml_backend_dev_supports_op(ggml_backend_buft_get_device(buft), op);
    ggml_backend_buffer_free(empty);
    return ok;
}

ggml_tensor * matrix(ggml_context * c, ggml_type t, int64_t k, int64_t rows, int64_t n2 = 1) {
    return ggml_new_tensor_3d(c, t, k, rows, n2);
}

std::string kernel_of(const char * format, ecl_kernels_choice choice) {
    const std::string described = ecl_kernels_describe(choice), key = std::string("\"") + format + "\": \"";
    const size_t      begin = described.find(key) + key.size();
    return described.substr(begin, described.find('"', begin) - begin);
}

void check_claims(ggml_backend_buffer_type_t buft) {
    const auto plain = [](ggml_context * c) {
        return ggml_mul_mat(c, matrix(c, GGML_TYPE_Q4_K, 512, 40), matrix(c, GGML_TYPE_F32, 512, 7));
    };
    expect(offered(buft, plain), "a Q4_K matrix is claimed");
    expect(kernel_of("Q4_K", ECL_KERNELS_OURS) == active_kernels()->name, "our kernel is in the table");
    expect(kernel_of("Q4_K", ECL_KERNELS_UPSTREAM) == "upstream", "with upstream's kernels, the table says so");
    std::thread([&] {
        ecl_kernels_choose(ECL_KERNELS_UPSTREAM);
        expect(!offered(buft, plain), "a thread that chose upstream's kernels is offered none of ours");
    }).join();
    expect(offered(buft, plain), "another thread's choice is its own");
    Random r(3);
    const Weights w(buft, Format::q4_k, 40, 512, make_weights(Format::q4_k, Blocks::quantized, 40, 512, r));
    const std::vector<float> x = random_columns(512, 3, r), before = product(w.tensor, x, { 3, 1, 1 }, 2);
    ecl_kernels_choose(ECL_KERNELS_UPSTREAM);
    expect(same_bits(before.data(), product(w.tensor, x, { 3, 1, 1 }, 2).data(), 120), "a loaded weight keeps its kernel");
    ecl_kernels_choose(ECL_KERNELS_OURS);

    expect(!offered(buft, [](ggml_context * c) {
        return ggml_mul_mat(c, matrix(c, GGML_TYPE_Q4_K, 512, 40, 2), matrix(c, GGML_TYPE_F32, 512, 7, 2));
    }), "3D weights are refused");
    expect(!offered(buft, [](ggml_context * c) {
        return ggml_mul_mat_id(c, matrix(c, GGML_TYPE_Q4_K, 512, 40, 4), matrix(c, GGML_TYPE_F32, 512, 2, 3),
                               ggml_new_tensor_2d(c, GGML_TYPE_I32, 2, 3));
    }), "experts are refused");
    expect(!offered(buft, [](ggml_context * c) {
        return ggml_get_rows(c, matrix(c, GGML_TYPE_Q8_0, 512, 40), ggml_new_tensor_1d(c, GGML_TYPE_I32, 3));
    }), "embedding look-ups are refused");
    expect(!offered(buft, [](ggml_context * c) {
        return ggml_mul_mat(c, matrix(c, GGML_TYPE_F16, 512, 40), matrix(c, GGML_TYPE_F16, 512, 7));
    }), "f16 activations are refused");
    expect(!offered(buft, [](ggml_context * c) {
        return ggml_mul_mat(c, matrix(c, GGML_TYPE_Q2_K, 512, 40), matrix(c, GGML_TYPE_F32, 512, 7));
    }), "a format without a kernel is refused");
    expect(!offered(buft, [](ggml_context * c) {
        ggml_tensor * w = matrix(c, GGML_TYPE_Q8_0, 512, 40);
        return ggml_mul_mat(c, ggml_view_2d(c, w, 256, 40, w->nb[1], w->nb[0] * 8), matrix(c, GGML_TYPE_F32, 256, 7));
    }), "a view of columns is refused");
}

// A graph's operations over n tokens, marked as a small batch.
struct Marked {
    Context       context = make_context(3);
    ggml_tensor * tokens;

    explicit Marked(int64_t n) : tokens(ggml_new_tensor_1d(context.get(), GGML_TYPE_I32, n)) { ggml_set_input(tokens); }

    // Activations of d values a token.
    ggml_tensor * stream(int64_t d) {
        return ggml_get_rows(context.get(), ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, d, 50), tokens);
    }
    void expect_marks(ggml_tensor * op, int n, int axis, int width, const std::string & what) {
        ggml_cgraph * graph = ggml_new_graph(context.get());
        ggml_build_forward_expand(graph, op);
        mark_small_batch(graph, tokens->ne[0]);
        const int32_t * p = op->op_params;
        expect(p[ECL_MARK_TOKENS] == n && p[ECL_MARK_AXIS] == axis && p[ECL_MARK_WIDTH] == width,
               what + ": marked " + std::to_string(p[ECL_MARK_TOKENS]) + ", " + std::to_string(p[ECL_MARK_AXIS]) + ", " +
                   std::to_string(p[ECL_MARK_WIDTH]));
    }
};

// As many heads as tokens: shapes alone do not tell which axis is which.
void check_marks() {
    for (const int n : { 2, 4, 32 }) {
        const std::string of = " of " + std::to_string(n) + " tokens";
        {
            Marked g(n);
            auto   c = g.context.get();
            g.expect_marks(ggml_mul_mat(c, matrix(c, GGML_TYPE_F32, 16 * n, 7), g.stream(16 * n)), n, 1, 1, "a product" + of);
        }
        {
            Marked g(n);
            auto   c = g.context.get();
            auto   heads = ggml_reshape_3d(c, g.stream(16 * n), 16, n, n);
            g.expect_marks(ggml_mul_mat(c, matrix(c, GGML_TYPE_F32, 16, 7), heads), n, 2, 1, "a product by head" + of);
        }
        {
            Marked g(n);
            auto   c = g.context.get();
            auto   q = ggml_permute(c, ggml_reshape_3d(c, g.stream(16 * n), 16, n, n), 0, 2, 1, 3);
            auto   kq = ggml_mul_mat(c, matrix(c, GGML_TYPE_F16, 16, 256, n), q);
            g.expect_marks(kq, n, 1, 1, "attention scores" + of);
            auto kqv = ggml_mul_mat(c, matrix(c, GGML_TYPE_F16, 256, 16, n), ggml_soft_max(c, kq));
            g.expect_marks(kqv, n, 1, 1, "weighted values" + of);
            auto out = ggml_cont_2d(c, ggml_permute(c, kqv, 0, 2, 1, 3), 16 * n, n);
            g.expect_marks(ggml_mul_mat(c, matrix(c, GGML_TYPE_F32, 16 * n, 8), out), n, 1, 1, "their projection" + of);
        }
        {
            Marked g(n);
            auto   c = g.context.get();
            auto   parts = ggml_reshape_2d(c, ggml_reshape_3d(c, g.stream(64 * n), 64, n, n), 16, 4 * n * n);
            g.expect_marks(ggml_mul_mat(c, matrix(c, GGML_TYPE_F32, 16, 16), parts), n, 1, 4 * n, "a rotation" + of);
        }
        {
            Marked g(n);
            auto   c = g.context.get();
            auto   ids = ggml_new_tensor_1d(c, GGML_TYPE_I32, 2);
            ggml_set_input(ids);
            auto some = ggml_get_rows(c, g.stream(64), ids);
            g.expect_marks(ggml_mul_mat(c, matrix(c, GGML_TYPE_F32, 64, 9), some), 2, 1, 1, "logits of two" + of);
        }
        {
            Marked g(n);
            auto   c = g.context.get();
            auto   x = ggml_cont(c, ggml_transpose(c, g.stream(16)));
            g.expect_marks(ggml_mul_mat(c, x, x), 0, 0, 0, "a sum over tokens" + of);
        }
    }
}

}  // namespace

void check_backend(const Options & o) {
    if (o.bench) {
        return;
    }
    check_marks();
    ggml_backend_buffer_type_t buft = our_buffer_type();
    if (!buft) {
        expect(active_kernels() == nullptr, "kernels exist but the backend does not offer the buffer type");
        std::printf("backend: this CPU has none of our kernels\n");
        return;
    }
    check_claims(buft);
    for (int i = 0; i < n_formats; ++i) {
        const Format f = (Format) i;
        if (!o.wants(f)) {
            continue;
        }
        const bool blocks256 = ggml_blck_size(type_of(f)) == 256;
        check_bits(buft, f, 77, blocks256 ? 768 : 608);
        check_bits(buft, f, 1200, blocks256 ? 512 : 576);
        check_bits(buft, f, 5, 256);
        check_views(buft, f);
        for (const int64_t rows : { 5, 77 }) {
            check_read_back(buft, f, rows, blocks256 ? 768 : 608);
        }
        for (int kind = 0; kind < block_kinds; ++kind) {
            check_error(buft, f, (Blocks) kind, 333, blocks256 ? 1024 : 1056);
        }
    }
}

}  // namespace ecl_check
