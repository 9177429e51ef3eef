#include "ecl_logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace ecl {

namespace {

constexpr int32_t block   = 256;
constexpr int32_t lanes   = 16;
constexpr float   nothing = -std::numeric_limits<float>::infinity();

// A token this far below the best adds less than 1e-9 to the softmax's sum.
constexpr float negligible_logit_gap = 21.0f;

float largest_of(const float * logits, int32_t n) {
    float best[lanes];  // independent of each other, so that compilers vectorise
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
    return *std::max_element(best, best + lanes);
}

// Of one row: the largest logit of every block.
class blocks {
  public:
    blocks(const float * logits, int32_t n) : logits(logits), n(n) {
        largest.reserve((n + block - 1) / block);
        for (int32_t begin = 0; begin < n; begin += block) {
            largest.push_back(largest_of(logits + begin, std::min(block, n - begin)));
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

    float best() const { return largest.empty() ? nothing : *std::max_element(largest.begin(), largest.end()); }

    // The softmax's denominator over exp(best).
    double sum() const {
        const float top   = best();
        double      total = 0.0;
        each([&](float here) { return here >= top - negligible_logit_gap; },
             [&](int32_t i) {
                 if (logits[i] >= top - negligible_logit_gap) {
                     total += std::exp(static_cast<double>(logits[i]) - top);
                 }
             });
        return total;
    }

  private:
    const float *      logits;
    int32_t            n;
    std::vector<float> largest;
};

}  // namespace

int32_t most_likely(const float * logits, int32_t n, float * probability) {
    const blocks  row(logits, n);
    const float   best  = row.best();
    const float * found = nullptr;
    row.each([&](float here) { return found == nullptr && here == best; },
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
    k = std::clamp(k, 0, n);
    const blocks row(logits, n);
    const auto   before = [&](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    std::vector<int32_t> heap;  // the k best so far, the last of them in front
    heap.reserve(k);
    const auto full = [&] { return static_cast<int32_t>(heap.size()) == k; };
    row.each([&](float here) { return !full() || (k > 0 && here > logits[heap.front()]); },
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
    const float  best = row.best();
    const double sum  = best == nothing ? 0.0 : row.sum();
    for (size_t j = 0; j < heap.size(); ++j) {
        const double part = sum > 0.0 ? std::exp(static_cast<double>(logits[heap[j]]) - best) / sum : 0.0;
        indices[j]        = heap[j];
        probabilities[j]  = static_cast<float>(part);
    }
    return static_cast<int32_t>(heap.size());
}

}  // namespace ecl
