// Matrix products: every instruction set, format and number of columns, against the plain product of
// reference.h, bit for bit. A bench's weights are larger than any cache.
//
// The floor of a product is the larger of bytes of weights / bandwidth of a raw read of the same memory
// and multiply-adds / peak of the instruction set, both measured in the same run on the same threads.
#include "reference.h"
#include "team.h"

#include <cinttypes>

namespace ecl_check {

namespace {

constexpr int most_columns = 32;

// The product of packed weights and n columns, as ggml's thread team computes it.
class Product {
  public:
    Product(const KernelSet & set, Format f, const uint8_t * packed, int64_t k) :
        set(set), f(f), packed(packed), k(k), group_size(group_bytes(f, k)) {}

    void quantize(const std::vector<const float *> & x) {
        const ColumnBlocks columns(static_cast<int64_t>(x.size()));
        const int64_t      kp = padded_k(f, k);
        memory.clear();
        blocks.clear();
        for (int64_t b = 0; b < columns.blocks; ++b) {
            const int n = columns.count(b);
            memory.push_back(std::make_unique<Guarded>(activation_bytes(f, kp, n)));
            blocks.push_back(activations_at(f, kp, n, memory.back()->data));
            for (int c = 0; c < n; ++c) {
                for (int64_t begin = 0; begin < kp; begin += super_k) {
                    set.quantize(f, x[columns.begin(b) + c], (int) begin, (int) std::min(kp, begin + super_k), (int) k,
                                 c, blocks.back());
                }
            }
        }
    }

    // y[c * ldy + row - begin * group_rows] for the rows of groups begin to end - 1.
    void multiply(int64_t begin, int64_t end, float * y, size_t ldy) const {
        for (int64_t g = begin; g < end; ++g) {
            float * out = y + (g - begin) * group_rows;
            for (const Activations & a : blocks) {
                set.multiply[(int) f][a.n - 1](packed + g * group_size, a, out, ldy);
                out += a.n * ldy;
            }
        }
    }

    bool intact() const {
        return std::all_of(memory.begin(), memory.end(), [](const auto & m) { return m->intact(); });
    }

  private:
    const KernelSet &                     set;
    Format                                f;
    const uint8_t *                       packed;
    int64_t                               k;
    size_t                                group_size;
    std::vector<std::unique_ptr<Guarded>> memory;
    std::vector<Activations>              blocks;
};

// The sign of zero and of NaN is the only thing that may differ from the reference.
bool same(float a, float b) {
    return same_bits(&a, &b, 1) || (a == 0 && b == 0) || (std::isnan(a) && std::isnan(b));
}

// The sets of this CPU, and the other way to broadcast of its AVX-512.
std::vector<const KernelSet *> all_sets() {
    const KernelSet *              sets[max_sets];
    std::vector<const KernelSet *> all(sets, sets + available_kernels(sets));
    if (!all.empty() && std::string(all[0]->name) == "avx512vnni") {
        all.push_back(all[0] == kernels_avx512vnni(true) ? kernels_avx512vnni(false) : kernels_avx512vnni(true));
    }
    return all;
}

struct Case {
    Format  f;
    Blocks  kind;
    int64_t rows, k;

    std::string label() const {
        return std::string(format_info(f).name) + " " + name(kind) + " " + std::to_string(rows) + "x" + std::to_string(k);
    }
};

void check_case(const std::vector<const KernelSet *> & sets, const Case & c) {
    Random r(1234u + 7u * (unsigned) c.rows + 13u * (unsigned) c.k + 17u * (unsigned) c.f + 19u * (unsigned) c.kind);
    const std::vector<uint8_t> w         = make_weights(c.f, c.kind, c.rows, c.k, r);
    const size_t               row_bytes = ggml_row_size(type_of(c.f), c.k);
    const int64_t              groups = (c.rows + group_rows - 1) / group_rows, kp = padded_k(c.f, c.k);
    Guarded                    packed(groups * group_bytes(c.f, c.k));
    repack(c.f, w.data(), row_bytes, c.rows, c.k, 0, groups, packed.data);
    expect(packed.intact(), c.label() + ": packing writes outside");

    for (int64_t i = 0; i < c.rows; ++i) {
        std::vector<uint8_t> row(row_bytes);
        unpack(c.f, packed.data, row_bytes, c.k, i, row.data());
        expect(std::memcmp(row.data(), w.data() + i * row_bytes, row_bytes) == 0,
               c.label() + ": row " + std::to_string(i) + " is not unpacked as it was");
    }

    std::vector<std::vector<float>> x, want;
    for (int kind = 0; kind < column_kinds; ++kind) {
        x.push_back(make_column(c.k, kind, r));
        const Column column = quantize(c.f, x.back(), kp);
        want.emplace_back();
        for (int64_t row = 0; row < c.rows; ++row) {
            want.back().push_back(scalar_dot(c.f, w.data() + row * row_bytes, c.k, column));
        }
    }
    for (const KernelSet * set : sets) {
        Product product(*set, c.f, packed.data, c.k);
        for (int n = 1; n <= most_columns; ++n) {
            std::vector<const float *> columns;
            for (int i = 0; i < n; ++i) {
                columns.push_back(x[(i + n) % column_kinds].data());  // a kind in other places of other batches
            }
            const size_t ldy = groups * group_rows + 5;
            Guarded      y(n * ldy * sizeof(float));
            const float  untouched = 12345.0f;
            float *      out       = reinterpret_cast<float *>(y.data);
            std::fill_n(out, n * ldy, untouched);
            product.quantize(columns);
            product.multiply(0, groups, out, ldy);
            bool kept = y.intact() && product.intact();
            for (int i = 0; i < n; ++i) {
                kept = kept && std::all_of(out + i * ldy + groups * group_rows, out + (i + 1) * ldy,
                                           [&](float v) { return v == untouched; });
            }
            expect(kept, c.label() + ": " + set->name + " writes outside, n=" + std::to_string(n));
            for (int i = 0; i < n; ++i) {
                for (int64_t row = 0; row < c.rows; ++row) {
                    const float got = out[i * ldy + row], expected = want[(i + n) % column_kinds][row];
                    if (!same(got, expected)) {
                        char text[200];
                        std::snprintf(text, sizeof text, "%s: %s n=%d column %d row %" PRId64 ": %.9g, not %.9g",
                                      c.label().c_str(), set->name, n, i, row, got, expected);
                        expect(false, text);
                        return;
                    }
                }
            }
        }
    }
}

constexpr int bench_k         = 1536;  // a multiple of 256, and of typical models
constexpr int bench_columns[] = { 1, 2, 4, 8, 16, 32 };

// Multiply-adds a second of all threads with the weights in the first-level cache: what Q8_0 reaches with
// 8 columns is taken as the peak of the instruction set.
double peak(Team & team, const KernelSet & set) {
    const Format             f = Format::q8_0;
    Guarded                  group(group_bytes(f, bench_k));
    const std::vector<float> x(bench_k, 1.0f);
    Product                  product(set, f, group.data, bench_k);
    product.quantize(std::vector<const float *>(max_columns, x.data()));
    double best = 0;
    for (int rep = 0; rep < 5; ++rep) {
        const int    rounds = 4000;
        const double t      = team.run([&](int) {
            float y[max_columns * group_rows];
            for (int i = 0; i < rounds; ++i) {
                product.multiply(0, 1, y, group_rows);
            }
        });
        best = std::max(best, (double) rounds * team.size() * group_rows * bench_k * max_columns / t);
    }
    return best;
}

void bench(Team & team, const KernelSet & set, Format f, const Options & o, const uint8_t * weights, double peak_macs) {
    const size_t         bytes  = group_bytes(f, bench_k);
    const int64_t        groups = (int64_t) o.mb * 1000000 / (int64_t) bytes;
    std::vector<float>   x(bench_k);
    std::vector<Product> products;
    for (int i = 0; i < bench_k; ++i) {
        x[i] = (float) ((i * 7919) % 1000) / 500.0f - 1.0f;
    }
    for (const int n : bench_columns) {
        products.emplace_back(set, f, weights, bench_k);
        products.back().quantize(std::vector<const float *>(n, x.data()));
    }
    std::vector<double> raw, times[std::size(bench_columns)];
    const auto          share = [&](int t) { return groups * t / team.size(); };
    for (int rep = 0; rep < o.reps; ++rep) {
        raw.push_back(team.run([&](int t) {
            raw_read(weights + share(t) * bytes, (size_t) (share(t + 1) - share(t)) * bytes);
        }));
        for (size_t i = 0; i < std::size(bench_columns); ++i) {
            times[i].push_back(team.run([&](int t) {
                float y[most_columns * group_rows];
                for (int64_t g = share(t); g < share(t + 1); ++g) {
                    products[i].multiply(g, g + 1, y, group_rows);
                }
            }));
        }
    }
    const double size = (double) groups * (double) bytes, bandwidth = size / median(raw), one = median(times[0]);
    std::printf("%-5s %-11s raw read %6.1f GB/s, peak %6.0f GMAC/s\n", format_info(f).name, set.name, bandwidth / 1e9,
                peak_macs / 1e9);
    for (size_t i = 0; i < std::size(bench_columns); ++i) {
        const int    n = bench_columns[i];
        const double t = median(times[i]), macs = (double) groups * group_rows * bench_k * n;
        const double floor = std::max(size / bandwidth, macs / peak_macs);
        std::printf("  n=%-2d %8.2f ms  %6.1f GB/s  %7.1f GMAC/s  V %4.2f  share of floor %3.0f %%\n", n, t * 1e3,
                    size / t / 1e9, macs / t / 1e9, t / one, 100 * floor / t);
    }
    std::fflush(stdout);
}

void bench_all(const Options & o) {
    const KernelSet * sets[max_sets];
    const int         n = available_kernels(sets);
    Team              team(o.threads);
    const size_t      bytes = (size_t) o.mb * 1000000 + 65536;
    const auto        weights = Team::aligned(bytes);
    team.run([&](int t) {  // any bytes are weights; small exponents keep f16 scales finite
        for (size_t i = bytes * t / team.size(); i < bytes * (t + 1) / team.size(); ++i) {
            weights.get()[i] = (uint8_t) ((i * 2654435761u >> 11) & 0x3f);
        }
    });
    for (int s = 0; s < n; ++s) {
        const double peak_macs = o.wants(*sets[s]) ? peak(team, *sets[s]) : 0;
        for (int f = 0; f < n_formats; ++f) {
            if (o.wants(*sets[s]) && o.wants((Format) f)) {
                bench(team, *sets[s], (Format) f, o, weights.get(), peak_macs);
            }
        }
    }
}

}  // namespace

void check_products(const Options & o) {
    if (o.bench) {
        bench_all(o);
        return;
    }
    std::vector<const KernelSet *> sets = all_sets();
    sets.erase(std::remove_if(sets.begin(), sets.end(), [&](const KernelSet * s) { return !o.wants(*s); }), sets.end());
    int cases = 0;
    for (int i = 0; i < n_formats; ++i) {
        const Format  f     = (Format) i;
        const int64_t block = ggml_blck_size(type_of(f));
        for (int kind = 0; kind < block_kinds && o.wants(f); ++kind) {
            for (const int64_t rows : { 16, 1, 23 }) {
                // 32-block formats also with a k that is not a multiple of 64, F16 with odd ones
                for (const int64_t k : { (int64_t) 256, (int64_t) 1536, block, 3 * block, 21 * block }) {
                    check_case(sets, { f, (Blocks) kind, rows, k });
                    ++cases;
                }
            }
        }
    }
    for (const KernelSet * set : sets) {
        std::printf("products: %s, %d cases of 1 to %d columns\n", set->name, cases, most_columns);
    }
    expect(cases > 0 && (!sets.empty() || all_sets().empty()), "no format or no instruction set was checked");
}

}  // namespace ecl_check
