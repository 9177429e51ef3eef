#include "logits/most_likely.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

// The passes over a row are compiled once more for each of these instruction sets; the best that the CPU
// has is chosen as the library is loaded, which halves their time or better.
#if defined(__x86_64__) && defined(__GNUC__)
#define ECL_X86_TARGETS 1
#define ECL_INLINE      inline __attribute__((always_inline))
#else
#define ECL_INLINE inline
#endif

namespace ecl {

namespace {

constexpr int32_t block   = 256;
constexpr float   nothing = -std::numeric_limits<float>::infinity();

// A token this far below the best adds less than 1e-9 to the softmax's sum.
constexpr float negligible_logit_gap = 21.0f;

// Where a row is only added up as far as it takes: logits so much less likely are taken together.
constexpr float gap_step = 1.5f;

// e^x of this is nothing in a sum that has a 1 in it.
constexpr float least_exponent = -80.0f;

// e^x for -80 <= x <= 0 to seven digits: 2^n times a polynomial for 2^f. In a form that compilers
// vectorise; std::exp for every token takes a tenth of a small model's step.
ECL_INLINE float exp_below_zero(float x) {
    const float   t = x * 1.44269504f;
    const int32_t n = static_cast<int32_t>(t - 0.5f);  // to the nearest
    const float   f = t - static_cast<float>(n);
    const float   high = 0.05550411f + f * (0.00961813f + f * (0.00133336f + f * 0.00015404f));
    const float   p    = 1.0f + f * (0.69314718f + f * (0.24022651f + f * high));
    const int32_t bits = (n + 127) << 23;
    float         power;
    std::memcpy(&power, &bits, sizeof(power));
    return p * power;
}

// The sum of e^(logit - top) over at most a block. NaN counts nothing.
ECL_INLINE double sum_of_exp(const float * logits, int32_t n, float top) {
    constexpr int32_t lanes = 16;
    float             terms[block];
    for (int32_t i = 0; i < n; ++i) {
        const float x = logits[i] - top;
        terms[i]      = x > least_exponent ? x : least_exponent;
    }
    for (int32_t i = 0; i < n; ++i) {
        terms[i] = exp_below_zero(terms[i]);
    }
    float   sums[lanes] = {};
    int32_t i           = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int32_t j = 0; j < lanes; ++j) {
            sums[j] += terms[i + j];
        }
    }
    for (; i < n; ++i) {
        sums[0] += terms[i];
    }
    return std::accumulate(sums, sums + lanes, 0.0);
}

ECL_INLINE float largest_of(const float * logits, int32_t n) {
    constexpr int32_t lanes = 32;  // compilers take the lanes of an inner loop of 16 or less one by one
    float             best[lanes];
    std::fill_n(best, lanes, nothing);
    int32_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int32_t j = 0; j < lanes; ++j) {
            best[j] = logits[i + j] > best[j] ? logits[i + j] : best[j];
        }
    }
    for (; i < n; ++i) {
        best[0] = logits[i] > best[0] ? logits[i] : best[0];
    }
    for (int32_t half = lanes / 2; half > 0; half /= 2) {
        for (int32_t j = 0; j < half; ++j) {
            best[j] = best[j + half] > best[j] ? best[j + half] : best[j];
        }
    }
    return best[0];
}

// The two passes over at most a block.
struct passes {
    float (*largest_of)(const float * logits, int32_t n);
    double (*sum_of_exp)(const float * logits, int32_t n, float top);
};

#define ECL_PASSES(name, target)                                                                          \
    struct name {                                                                                         \
        target static float  largest(const float * logits, int32_t n) { return largest_of(logits, n); }    \
        target static double sum(const float * logits, int32_t n, float top) {                             \
            return sum_of_exp(logits, n, top);                                                            \
        }                                                                                                 \
    };

ECL_PASSES(passes_any, /* any CPU */)
#ifdef ECL_X86_TARGETS
ECL_PASSES(passes_avx2, __attribute__((target("avx2,fma"))))
ECL_PASSES(passes_avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))))
#endif

passes best_passes() {
#ifdef ECL_X86_TARGETS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return { passes_avx512::largest, passes_avx512::sum };
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return { passes_avx2::largest, passes_avx2::sum };
    }
#endif
    return { passes_any::largest, passes_any::sum };
}

const passes here = best_passes();

// Of one row: the largest logit of every block.
class blocks {
  public:
    blocks(const float * logits, int32_t n) : logits(logits), n(n) {
        largest.reserve((n + block - 1) / block);
        for (int32_t begin = 0; begin < n; begin += block) {
            largest.push_back(here.largest_of(logits + begin, std::min(block, n - begin)));
        }
    }

    // Calls visit(i) for every i of the blocks that wanted(the block's largest logit) picks, in order.
    template <class Wanted, class Visit> void each(const Wanted & wanted, const Visit & visit) const {
        for (size_t b = 0; b < largest.size(); ++b) {
            if (wanted(largest[b])) {
                const int32_t begin = static_cast<int32_t>(b) * block;
                for (int32_t i = begin; i < std::min(begin + block, n); ++i) {
                    visit(i);
                }
            }
        }
    }

    // The k-th largest of the blocks' largest logits: the k best are in blocks that have as much. k > 0.
    float least_best(int32_t k) const {
        if (static_cast<size_t>(k) >= largest.size()) {
            return nothing;
        }
        std::vector<float> sorted = largest;
        std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<float>());
        return sorted[k - 1];
    }

    float best() const { return largest.empty() ? nothing : *std::max_element(largest.begin(), largest.end()); }

    // The softmax's denominator over exp(best).
    double sum() const {
        const float top   = best();
        double      total = 0.0;
        if (!std::isfinite(top)) {
            return total;
        }
        for (size_t b = 0; b < largest.size(); ++b) {
            if (largest[b] >= top - negligible_logit_gap) {
                total += sum_of(b, top);
            }
        }
        return total;
    }

    // Calls settled(least, most) with bounds of that denominator, closer each time and at last equal, until
    // it returns true; not at all if the best logit is not finite.
    template <class Settled> void bound_sum(const Settled & settled) const {
        const float top = best();
        if (!std::isfinite(top)) {
            return;
        }
        // A block's sum is at most as many times the exponential of its largest logit.
        double rest = 0.0;
        for (size_t b = 0; b < largest.size(); b += block) {
            const auto n_here = static_cast<int32_t>(std::min<size_t>(block, largest.size() - b));
            rest += block * here.sum_of_exp(largest.data() + b, n_here, top);
        }
        const double rounding = 1e-5 * rest;
        double       summed   = 0.0;
        for (float gap = 0.0f; gap < negligible_logit_gap; gap += gap_step) {
            for (size_t b = 0; b < largest.size(); ++b) {
                const float below = top - largest[b];
                if (below >= gap && below < gap + gap_step) {
                    summed += sum_of(b, top);
                    rest -= block * static_cast<double>(exp_below_zero(-below));
                }
            }
            if (settled(summed, summed + std::max(rest, 0.0) + rounding)) {
                return;
            }
        }
        settled(summed, summed);
    }

  private:
    // What a block adds to it.
    double sum_of(size_t b, float top) const {
        const int32_t begin = static_cast<int32_t>(b) * block;
        return here.sum_of_exp(logits + begin, std::min(block, n - begin), top);
    }

    const float *      logits;
    int32_t            n;
    std::vector<float> largest;
};

// The indices of the k largest of a row's logits, in descending order; NaN is left out.
std::vector<int32_t> best_of(const blocks & row, const float * logits, int32_t n, int32_t k) {
    k                 = std::clamp(k, 0, n);
    const auto before = [&](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    std::vector<int32_t> heap;  // the k best so far, the last of them in front
    heap.reserve(k);
    const auto  full  = [&] { return static_cast<int32_t>(heap.size()) == k; };
    const float least = k > 0 ? row.least_best(k) : nothing;
    row.each([&](float largest) { return largest >= least && (!full() || (k > 0 && largest > logits[heap.front()])); },
             [&](int32_t i) {
                 if (std::isnan(logits[i])) {
                     return;
                 }
                 if (!full()) {
                     heap.push_back(i);
                     std::push_heap(heap.begin(), heap.end(), before);
                 } else if (logits[i] > logits[heap.front()]) {
                     std::pop_heap(heap.begin(), heap.end(), before);
                     heap.back() = i;
                     std::push_heap(heap.begin(), heap.end(), before);
                 }
             });
    std::sort_heap(heap.begin(), heap.end(), before);
    return heap;
}

}  // namespace

int32_t most_likely(const float * logits, int32_t n, float * probability) {
    const blocks  row(logits, n);
    const float   best  = row.best();
    const float * found = nullptr;
    row.each([&](float largest) { return found == nullptr && largest == best; },
             [&](int32_t i) {
                 if (found == nullptr && logits[i] == best) {
                     found = logits + i;
                 }
             });
    if (probability != nullptr) {
        const double sum = best == nothing ? 0.0 : row.sum();
        *probability     = sum > 0.0 ? static_cast<float>(1.0 / sum) : 0.0f;
    }
    return found == nullptr ? 0 : static_cast<int32_t>(found - logits);
}

int32_t most_likely_k(const float * logits, int32_t n, int32_t k, int32_t * indices, float * probabilities) {
    const blocks               row(logits, n);
    const std::vector<int32_t> found = best_of(row, logits, n, k);
    const float                best  = row.best();
    const double               sum   = best == nothing ? 0.0 : row.sum();
    for (size_t j = 0; j < found.size(); ++j) {
        const double part = sum > 0.0 ? std::exp(static_cast<double>(logits[found[j]]) - best) / sum : 0.0;
        indices[j]        = found[j];
        probabilities[j]  = static_cast<float>(part);
    }
    return static_cast<int32_t>(found.size());
}

int32_t most_likely_k_ranges(const float * logits, int32_t n, int32_t k, const double * bounds, int32_t n_bounds,
                             int32_t * indices, int32_t * ranges) {
    const blocks               row(logits, n);
    const std::vector<int32_t> found = best_of(row, logits, n, k);
    std::copy(found.begin(), found.end(), indices);
    std::fill_n(ranges, found.size(), 0);
    const float         best = row.best();
    std::vector<double> parts;
    for (const int32_t index : found) {
        parts.push_back(std::exp(static_cast<double>(logits[index]) - best));
    }
    const auto range = [&](double probability) {
        return static_cast<int32_t>(std::upper_bound(bounds, bounds + n_bounds, probability) - bounds);
    };
    row.bound_sum([&](double least, double most) {
        bool settled = true;
        for (size_t j = 0; j < found.size() && settled; ++j) {
            ranges[j] = range(parts[j] / most);
            settled   = ranges[j] == range(parts[j] / least);
        }
        return settled;
    });
    return static_cast<int32_t>(found.size());
}

}  // namespace ecl
