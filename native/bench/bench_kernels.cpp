// Micro-benchmark of the small-batch kernels: weights that no cache holds, times 1 to 16 columns.
//
// The floor of a product is the larger of bytes of weights / bandwidth of a raw read of the same
// memory and multiply-adds / peak of the instruction set's dot product, both measured in the same
// run on the same threads. Formats, batches and the raw read alternate, medians are printed.
//
// Usage: bench_kernels [--threads N] [--mb M] [--reps R] [--formats Q4_K,Q8_0] [--isa avx2,...]
#include "kernels.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace ecl;

namespace {

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v.empty() ? 0 : v[v.size() / 2];
}

// Threads that start a job together, as ggml's do: spinning, so that waking up costs nothing.
class Team {
  public:
    explicit Team(int n) : n_(n) {
        for (int i = 1; i < n; ++i) {
            threads_.emplace_back([this, i] { work(i); });
        }
    }
    ~Team() {
        stop_ = true;
        for (std::thread & t : threads_) {
            t.join();
        }
    }
    int size() const { return n_; }

    // Seconds until every thread has finished job(thread).
    double run(const std::function<void(int)> & job) {
        job_ = &job;
        done_ = 0;
        const double start = now();
        ++round_;
        job(0);
        while (done_ != n_ - 1) {
        }
        return now() - start;
    }

  private:
    void work(int i) {
        for (int seen = 0; !stop_;) {
            if (round_ != seen) {
                ++seen;
                (*job_)(i);
                ++done_;
            } else {
                std::this_thread::yield();
            }
        }
    }

    int n_;
    const std::function<void(int)> * job_ = nullptr;
    std::atomic<int> round_{ 0 }, done_{ 0 };
    std::atomic<bool> stop_{ false };
    std::vector<std::thread> threads_;
};

struct Free {
    void operator()(uint8_t * p) const { std::free(p); }
};

std::unique_ptr<uint8_t, Free> aligned(size_t bytes) {
    return std::unique_ptr<uint8_t, Free>((uint8_t *) std::aligned_alloc(64, (bytes + 63) / 64 * 64));
}

// The fastest that memory gives: every line once, nothing computed.
void raw_read(const uint8_t * p, size_t bytes) {
    uint64_t sum[8] = {};
    for (size_t i = 0; i + 64 <= bytes; i += 64) {
        __builtin_prefetch(p + i + prefetch_far, 0, 2);
        __builtin_prefetch(p + i + prefetch_near, 0, 3);
        for (int j = 0; j < 8; ++j) {
            uint64_t v;
            std::memcpy(&v, p + i + 8 * j, 8);
            sum[j] ^= v;
        }
    }
    for (uint64_t & s : sum) {
        asm volatile("" : "+r"(s));
    }
}

struct Options {
    int threads = 0, mb = 400, reps = 7;
    std::string formats, isa;
};

bool listed(const std::string & list, const std::string & name) {
    return list.empty() || ("," + list + ",").find("," + name + ",") != std::string::npos;
}

Options parse(int argc, char ** argv) {
    Options o;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string key = argv[i], value = argv[i + 1];
        if (key == "--threads") {
            o.threads = std::atoi(value.c_str());
        } else if (key == "--mb") {
            o.mb = std::max(1, std::atoi(value.c_str()));
        } else if (key == "--reps") {
            o.reps = std::max(1, std::atoi(value.c_str()));
        } else if (key == "--formats") {
            o.formats = value;
        } else if (key == "--isa") {
            o.isa = value;
        } else {
            std::fprintf(stderr, "unknown option %s; see the head of bench_kernels.cpp\n", key.c_str());
            std::exit(2);
        }
    }
    if (o.threads <= 0) {
        o.threads = (int) std::max(1u, std::thread::hardware_concurrency());
    }
    return o;
}

constexpr int k = 1536;  // a multiple of 256, and of typical models
constexpr int batches[] = { 1, 2, 4, 8, 16 };

// Multiply-adds a second of all threads with the weights in the first-level cache: what the best
// format reaches with 8 columns is taken as the peak of the instruction set.
double peak(Team & team, const KernelSet & set) {
    const Format f = Format::q8_0;
    const size_t bytes = group_bytes(f, k);
    auto group = aligned(bytes);
    std::memset(group.get(), 0x81, bytes);
    auto memory = aligned(activation_bytes(f, k, max_columns));
    std::memset(memory.get(), 0, activation_bytes(f, k, max_columns));
    const Activations a = activations_at(f, k, max_columns, memory.get());
    double best = 0;
    for (int rep = 0; rep < 5; ++rep) {
        const int rounds = 4000;
        const double t = team.run([&](int) {
            float y[max_columns * group_rows];
            for (int i = 0; i < rounds; ++i) {
                set.multiply[(int) f][max_columns - 1](group.get(), a, y, group_rows);
            }
        });
        best = std::max(best, (double) rounds * team.size() * group_rows * k * max_columns / t);
    }
    return best;
}

struct Blocks {
    std::unique_ptr<uint8_t, Free> memory[2];
    Activations a[2];
    int count;

    Blocks(const KernelSet & set, Format f, int n) : count(n > max_columns ? 2 : 1) {
        std::vector<float> x(k);
        for (int i = 0; i < k; ++i) {
            x[i] = (float) ((i * 7919) % 1000) / 500.0f - 1.0f;
        }
        for (int b = 0; b < count; ++b) {
            const int width = n / count;
            memory[b] = aligned(activation_bytes(f, k, width));
            a[b] = activations_at(f, k, width, memory[b].get());
            for (int c = 0; c < width; ++c) {
                set.quantize(f, x.data(), 0, k, k, c, a[b]);
            }
        }
    }
};

void bench(Team & team, const KernelSet & set, Format f, const Options & o, const uint8_t * weights, double peak_macs) {
    const size_t bytes = group_bytes(f, k);
    const int64_t groups = (int64_t) o.mb * 1000000 / (int64_t) bytes;
    std::vector<std::unique_ptr<Blocks>> x;
    for (const int n : batches) {
        x.push_back(std::make_unique<Blocks>(set, f, n));
    }
    std::vector<double> raw, times[std::size(batches)];
    for (int rep = 0; rep < o.reps; ++rep) {
        raw.push_back(team.run([&](int t) {
            const int64_t begin = groups * t / team.size(), end = groups * (t + 1) / team.size();
            raw_read(weights + begin * bytes, (size_t) (end - begin) * bytes);
        }));
        for (size_t i = 0; i < std::size(batches); ++i) {
            times[i].push_back(team.run([&](int t) {
                float y[max_columns * group_rows];
                const Blocks & blocks = *x[i];
                for (int64_t g = groups * t / team.size(); g < groups * (t + 1) / team.size(); ++g) {
                    for (int b = 0; b < blocks.count; ++b) {
                        set.multiply[(int) f][blocks.a[b].n - 1](weights + g * bytes, blocks.a[b], y, group_rows);
                    }
                }
            }));
        }
    }
    const double size = (double) groups * (double) bytes, bandwidth = size / median(raw);
    std::printf("%-5s %-11s raw read %6.1f GB/s, peak %6.0f GMAC/s\n", format_info(f).name, set.name, bandwidth / 1e9,
                peak_macs / 1e9);
    const double one = median(times[0]);
    for (size_t i = 0; i < std::size(batches); ++i) {
        const double t = median(times[i]), macs = (double) groups * group_rows * k * batches[i];
        const double floor = std::max(size / bandwidth, macs / peak_macs);
        std::printf("  n=%-2d %8.2f ms  %6.1f GB/s  %7.1f GMAC/s  V %4.2f  share of floor %3.0f %%\n", batches[i], t * 1e3,
                    size / t / 1e9, macs / t / 1e9, t / one, 100 * floor / t);
    }
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char ** argv) {
    const Options o = parse(argc, argv);
    const KernelSet * sets[max_sets];
    const int n = available_kernels(sets);
    if (n == 0) {
        std::fprintf(stderr, "this CPU has none of the instruction sets that the kernels need\n");
        return 1;
    }
    Team team(o.threads);
    const size_t bytes = (size_t) o.mb * 1000000 + 65536;
    auto weights = aligned(bytes);
    // Any bytes are weights; small exponents keep f16 scales finite.
    team.run([&](int t) {
        for (size_t i = bytes * t / team.size(); i < bytes * (t + 1) / team.size(); ++i) {
            weights.get()[i] = (uint8_t) ((i * 2654435761u >> 11) & 0x3f);
        }
    });
    for (int s = 0; s < n; ++s) {
        if (!listed(o.isa, sets[s]->name)) {
            continue;
        }
        const double peak_macs = peak(team, *sets[s]);
        for (int f = 0; f < n_formats; ++f) {
            if (listed(o.formats, format_info((Format) f).name)) {
                bench(team, *sets[s], (Format) f, o, weights.get(), peak_macs);
            }
        }
    }
    return 0;
}
