// Attention over few tokens, as a model's graph asks for it: against float64; and a token's bits against
// its bits in other batches, on other thread counts, with more masked cells behind it, and in a tree
// against its bits where its branch is a row.
#include "attention/attention.h"
#include "check.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml_marks.h"
#include "team.h"

#include <numeric>

namespace ecl_check {

namespace {

struct Shape {
    int       n_heads, n_kv_heads, dk, dv, n_cells;
    ggml_type type;
    float     softcap, max_bias;
    bool      sinks;
};

// One problem: up to 32 query tokens, of which token t sees the cells up to first + t, or in a window.
struct Problem {
    Shape              s;
    int                first, window;
    std::vector<float> q, k, v, sinks;

    Problem(const Shape & s, int first, int window, unsigned seed) : s(s), first(first), window(window) {
        std::mt19937                    random(seed);
        std::normal_distribution<float> normal;
        auto fill = [&](std::vector<float> & x, size_t n, float scale) {
            x.resize(n);
            for (float & value : x) {
                value = ggml_fp16_to_fp32(ggml_fp32_to_fp16(scale * normal(random)));
            }
        };
        fill(q, 32u * s.n_heads * s.dk, 1.5f);
        fill(k, static_cast<size_t>(s.n_cells) * s.n_kv_heads * s.dk, 1.0f);
        fill(v, static_cast<size_t>(s.n_cells) * s.n_kv_heads * s.dv, 1.0f);
        fill(sinks, s.n_heads, 1.0f);
    }
    bool sees(int token, int cell) const {
        return cell <= first + token && (window == 0 || cell > first + token - window);
    }
    // What the mask holds: with ALiBi, minus the distance, which the head's slope multiplies.
    float mask(int token, int cell) const {
        if (cell >= s.n_cells || !sees(token, cell)) {
            return -INFINITY;
        }
        return s.max_bias == 0.0f ? 0.0f : static_cast<float>(cell - first - token);
    }
    float scale() const { return 1.0f / std::sqrt(static_cast<float>(s.dk)); }
};

// The first tokens of a problem as a tree: token t is stored in cell first + t.
struct Tree {
    std::vector<int>     depth;
    std::vector<int32_t> paths;  // [token][token]

    Tree(int n, std::mt19937 & random) : depth(n), paths(static_cast<size_t>(n) * n) {
        for (int t = 0; t < n; ++t) {
            int32_t * path   = &paths[static_cast<size_t>(t) * n];
            const int parent = std::uniform_int_distribution<int>(-1, t - 1)(random);
            std::iota(path, path + n, 0);
            if (parent >= 0) {
                depth[t] = depth[parent] + 1;
                std::copy_n(&paths[static_cast<size_t>(parent) * n], depth[t], path);
            }
            path[depth[t]] = t;
        }
    }
    int size() const { return static_cast<int>(depth.size()); }
};

// [tokens][heads][dv] for tokens begin .. begin + n - 1, or for a tree of n tokens.
// With times, computes it again and adds the seconds that it took.
std::vector<float> run(const Problem & p, int begin, int n, int n_threads, int n_cells, const Tree * tree = nullptr,
                       std::vector<double> * times = nullptr) {
    const Shape &    s = p.s;
    ggml_init_params params = { 64 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true };
    ggml_context *   ctx    = ggml_init(params);
    ggml_tensor *    q      = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, s.dk, s.n_heads, n);
    ggml_tensor *    k      = ggml_new_tensor_3d(ctx, s.type, s.dk, s.n_kv_heads, n_cells);
    ggml_tensor *    v      = ggml_new_tensor_3d(ctx, s.type, s.dv, s.n_kv_heads, n_cells);
    ggml_tensor *    mask   = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, n_cells, n);
    ggml_tensor *    out =
        ggml_flash_attn_ext(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), ggml_permute(ctx, k, 0, 2, 1, 3),
                            ggml_permute(ctx, v, 0, 2, 1, 3), mask, p.scale(), s.max_bias, s.softcap);
    ggml_tensor * sinks = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, s.n_heads);
    if (s.sinks) {
        ggml_flash_attn_ext_add_sinks(out, sinks);
    }
    out->op_params[ECL_MARK_KERNELS] = 1;
    ggml_tensor * stored = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, n);
    ggml_tensor * paths  = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, n, n);
    if (tree != nullptr) {
        out->src[ECL_ATTENTION_CELLS] = stored;
        out->src[ECL_ATTENTION_PATHS] = paths;
    }
    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, sinks);
    ggml_build_forward_expand(graph, out);

    ggml_backend_t        backend = ggml_backend_cpu_init();
    ggml_backend_buffer_t buffer  = ggml_backend_alloc_ctx_tensors(ctx, backend);
    ggml_backend_cpu_set_n_threads(backend, n_threads);

    auto set = [](ggml_tensor * t, const float * values, size_t count) {
        if (t->type == GGML_TYPE_F16) {
            std::vector<ggml_fp16_t> half(count);
            ggml_fp32_to_fp16_row(values, half.data(), static_cast<int64_t>(count));
            ggml_backend_tensor_set(t, half.data(), 0, count * sizeof(ggml_fp16_t));
        } else {
            ggml_backend_tensor_set(t, values, 0, count * sizeof(float));
        }
    };
    set(q, p.q.data() + static_cast<size_t>(begin) * s.n_heads * s.dk, static_cast<size_t>(n) * s.n_heads * s.dk);
    // Cells beyond the problem's hold what a cache holds there: something finite.
    std::vector<float> cells(p.k);
    cells.resize(static_cast<size_t>(n_cells) * s.n_kv_heads * s.dk, 3.0f);
    set(k, cells.data(), cells.size());
    cells = p.v;
    cells.resize(static_cast<size_t>(n_cells) * s.n_kv_heads * s.dv, 3.0f);
    set(v, cells.data(), cells.size());
    set(sinks, p.sinks.data(), p.sinks.size());
    std::vector<float> seen(static_cast<size_t>(n) * n_cells);
    for (int t = 0; t < n; ++t) {
        for (int c = 0; c < n_cells; ++c) {
            seen[static_cast<size_t>(t) * n_cells + c] = p.mask(tree != nullptr ? tree->depth[t] : begin + t, c);
        }
    }
    set(mask, seen.data(), seen.size());
    if (tree != nullptr) {
        std::vector<int64_t> at(n);
        std::iota(at.begin(), at.end(), p.first);
        ggml_backend_tensor_set(stored, at.data(), 0, ggml_nbytes(stored));
        ggml_backend_tensor_set(paths, tree->paths.data(), 0, ggml_nbytes(paths));
    }

    ggml_backend_graph_compute(backend, graph);
    if (times != nullptr) {
        const double start = now();
        ggml_backend_graph_compute(backend, graph);
        times->push_back(now() - start);
    }
    std::vector<float> result(static_cast<size_t>(n) * s.n_heads * s.dv);
    ggml_backend_tensor_get(out, result.data(), 0, result.size() * sizeof(float));
    ggml_backend_buffer_free(buffer);
    ggml_backend_free(backend);
    ggml_free(ctx);
    return result;
}

double slope(const Shape & s, int head) {
    if (s.max_bias == 0.0f) {
        return 1.0;
    }
    const int n_log2 = 1 << static_cast<int>(std::floor(std::log2(s.n_heads)));
    return head < n_log2 ? std::pow(std::pow(2.0, -s.max_bias / n_log2), head + 1)
                         : std::pow(std::pow(2.0, -s.max_bias / 2.0 / n_log2), 2 * (head - n_log2) + 1);
}

double largest_error(const Problem & p, const std::vector<float> & got, int n) {
    const Shape & s     = p.s;
    double        worst = 0.0;
    for (int t = 0; t < n; ++t) {
        for (int h = 0; h < s.n_heads; ++h) {
            const int           hk = h / (s.n_heads / s.n_kv_heads);
            std::vector<double> score(s.n_cells, -INFINITY);
            double              top = s.sinks ? p.sinks[h] : -INFINITY;
            for (int c = 0; c < s.n_cells; ++c) {
                if (!p.sees(t, c)) {
                    continue;
                }
                double dot = 0.0;
                for (int d = 0; d < s.dk; ++d) {
                    dot += static_cast<double>(p.q[(static_cast<size_t>(t) * s.n_heads + h) * s.dk + d]) *
                           p.k[(static_cast<size_t>(c) * s.n_kv_heads + hk) * s.dk + d];
                }
                dot *= p.scale();
                score[c] = s.softcap == 0.0f ? dot : s.softcap * std::tanh(dot / s.softcap);
                score[c] += slope(s, h) * p.mask(t, c);
                top      = std::max(top, score[c]);
            }
            double              sum = s.sinks ? std::exp(p.sinks[h] - top) : 0.0;
            std::vector<double> value(s.dv);
            for (int c = 0; c < s.n_cells; ++c) {
                const double w = std::exp(score[c] - top);
                sum += w;
                for (int d = 0; d < s.dv && w > 0.0; ++d) {
                    value[d] += w * p.v[(static_cast<size_t>(c) * s.n_kv_heads + hk) * s.dv + d];
                }
            }
            for (int d = 0; d < s.dv; ++d) {
                const float y = got[(static_cast<size_t>(t) * s.n_heads + h) * s.dv + d];
                worst         = std::max(worst, std::isfinite(y) ? std::fabs(y - value[d] / sum) : INFINITY);
            }
        }
    }
    return worst;
}

void check(const Shape & s, int first, int window) {
    const Problem     p(s, first, window, 1234u + s.n_cells + s.dk);
    const std::string name = std::string(ggml_type_name(s.type)) + " heads " + std::to_string(s.n_heads) + "/" +
                             std::to_string(s.n_kv_heads) + " size " + std::to_string(s.dk) + "/" +
                             std::to_string(s.dv) + " cells " + std::to_string(s.n_cells) + " first " +
                             std::to_string(first) + " window " + std::to_string(window);
    const int                n_tokens = std::min(32, s.n_cells - first);
    const size_t             row      = static_cast<size_t>(s.n_heads) * s.dv;
    const std::vector<float> all      = run(p, 0, n_tokens, 2, s.n_cells);

    const double error = largest_error(p, all, n_tokens);
    expect(error < 2e-5, name + ": error " + std::to_string(error));

    for (int n : { 1, 2, 3, 5, 8, 16 }) {
        for (int begin = 0; begin + n <= n_tokens; begin += n * 3) {
            const int threads = 1 + (begin + n) % 3;
            const int cells   = s.n_cells + (begin % 2) * 256;
            const auto part   = run(p, begin, n, threads, cells);
            expect(same_bits(part.data(), all.data() + begin * row, part.size()),
                   name + ": tokens " + std::to_string(begin) + " to " + std::to_string(begin + n - 1) + " on " +
                       std::to_string(threads) + " threads have other bits");
        }
    }
}

// Each token of random trees against the row that its branch is.
void check_tree(const Shape & s, int first, int window) {
    const Problem     p(s, first, window, 77u + s.n_cells + s.dk);
    const std::string name = std::string(ggml_type_name(s.type)) + " size " + std::to_string(s.dk) + " cells " +
                             std::to_string(s.n_cells) + " first " + std::to_string(first) + " window " +
                             std::to_string(window);
    const size_t k_cell = static_cast<size_t>(s.n_kv_heads) * s.dk, v_cell = static_cast<size_t>(s.n_kv_heads) * s.dv;
    const size_t q_token = static_cast<size_t>(s.n_heads) * s.dk, row = static_cast<size_t>(s.n_heads) * s.dv;
    std::mt19937 random(5);
    for (int n : { 2, 7, 32 }) {
        const Tree tree(n, random);
        const auto all = run(p, 0, n, 1 + n % 3, s.n_cells, &tree);
        for (int t = 0; t < n; ++t) {
            Problem branch = p;
            for (int d = 0; d <= tree.depth[t]; ++d) {
                const int from = first + tree.paths[static_cast<size_t>(t) * n + d];
                std::copy_n(&p.k[from * k_cell], k_cell, &branch.k[(first + d) * k_cell]);
                std::copy_n(&p.v[from * v_cell], v_cell, &branch.v[(first + d) * v_cell]);
            }
            std::copy_n(&p.q[t * q_token], q_token, &branch.q[tree.depth[t] * q_token]);
            const auto alone = run(branch, tree.depth[t], 1, 1, s.n_cells);
            expect(same_bits(alone.data(), all.data() + t * row, row),
                   name + ": token " + std::to_string(t) + " of a tree of " + std::to_string(n) + " has other bits");
        }
    }
}

void bench(const Options & o) {
    for (const int size : { 64, 128 }) {
        for (const int cells : { 256, 2048 }) {
            const Problem p({ 12, 2, size, size, cells, GGML_TYPE_F16, 0, 0, false }, cells - 32, 0, 1);
            std::printf("attention of %s, heads of %d, %d cells, ms:", ecl::attention_kernel(size, size)->name, size, cells);
            for (const int n : { 1, 2, 4, 8, 16, 32 }) {
                std::vector<double> times;
                for (int rep = 0; rep < 5 * o.reps; ++rep) {
                    run(p, 0, n, o.threads, cells, nullptr, &times);
                }
                std::printf("  n=%d %.3f", n, median(times) * 1e3);
            }
            std::printf("\n");
        }
    }
}

}  // namespace

void check_attention(const Options & o) {
    if (ecl::active_kernels() == nullptr) {
        std::printf("attention: this CPU has none of our kernels\n");
        return;
    }
    if (o.bench) {
        bench(o);
        return;
    }
    const ggml_type f16 = GGML_TYPE_F16, f32 = GGML_TYPE_F32;
    check({ 12, 2, 128, 128, 256, f16, 0, 0, false }, 0, 0);
    check({ 12, 2, 128, 128, 256, f16, 0, 0, false }, 200, 0);
    check({ 12, 2, 128, 128, 1280, f16, 0, 0, false }, 1240, 0);
    check({ 9, 3, 64, 64, 768, f16, 0, 0, false }, 511, 0);
    check({ 4, 1, 256, 256, 1024, f16, 0, 0, false }, 900, 512);
    check({ 4, 4, 64, 64, 256, f32, 0, 0, false }, 60, 0);
    check({ 8, 2, 64, 128, 512, f16, 50.0f, 0, false }, 300, 0);
    check({ 12, 4, 80, 80, 512, f16, 0, 8.0f, false }, 100, 0);
    check({ 8, 1, 64, 64, 512, f16, 0, 0, true }, 250, 128);
    check({ 2, 1, 24, 40, 256, f16, 0, 0, false }, 120, 0);

    // Of the widest instruction set and of the next, within a chunk of cells and over its end.
    check_tree({ 12, 2, 128, 128, 256, f16, 0, 0, false }, 0, 0);
    check_tree({ 9, 3, 64, 64, 512, f16, 0, 0, false }, 240, 0);
    check_tree({ 4, 1, 256, 256, 768, f16, 0, 0, false }, 630, 128);
    check_tree({ 2, 1, 24, 40, 256, f16, 0, 0, false }, 120, 0);
    check_tree({ 4, 4, 72, 72, 256, f32, 0, 0, false }, 110, 4);
    check_tree({ 8, 2, 64, 128, 512, f16, 50.0f, 0, false }, 370, 0);
    check_tree({ 12, 4, 80, 80, 512, f16, 0, 8.0f, false }, 100, 0);
    check_tree({ 8, 1, 64, 64, 512, f16, 0, 0, true }, 250, 128);
    std::printf("attention: %s\n", ecl::attention_kernel(128, 128)->name);
}

}  // namespace ecl_check
