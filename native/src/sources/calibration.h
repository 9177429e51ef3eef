// How often what a source proposes comes true, learned while the text is generated.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ecl {

// A frequency for each of a fixed number of kinds of proposals.
class calibration {
  public:
    // prior: the expected frequency of each kind, in (0, 1); weight: how many observations it counts as.
    template <size_t n> calibration(const double (&prior)[n], double weight) : seen(n, weight) {
        for (const double frequency : prior) {
            hits.push_back(frequency * weight);
        }
    }

    int32_t size() const { return static_cast<int32_t>(hits.size()); }

    // In (0, 1).
    double probability(int32_t kind) const { return hits[kind] / seen[kind]; }

    void observe(int32_t kind, bool hit) {
        hits[kind] += hit ? 1.0 : 0.0;
        seen[kind] += 1.0;
        if (seen[kind] > max_evidence) {
            hits[kind] /= 2;
            seen[kind] /= 2;
        }
    }

    // Everything observed, kind by kind.
    void write(double * hits_out, double * seen_out) const {
        std::copy(hits.begin(), hits.end(), hits_out);
        std::copy(seen.begin(), seen.end(), seen_out);
    }

    // Whether these can have been observed.
    bool can_be(const double * hits_in, const double * seen_in) const {
        for (int32_t kind = 0; kind < size(); ++kind) {
            if (!(hits_in[kind] > 0.0 && hits_in[kind] < seen_in[kind] && std::isfinite(seen_in[kind]))) {
                return false;
            }
        }
        return true;
    }

    // Takes over what `write` gave.
    void read(const double * hits_in, const double * seen_in) {
        hits.assign(hits_in, hits_in + size());
        seen.assign(seen_in, seen_in + size());
    }

  private:
    // Beyond this many observations all are halved, so that later ones count more. Not tuned.
    static constexpr double max_evidence = 512.0;

    std::vector<double> hits;
    std::vector<double> seen;
};

}  // namespace ecl
