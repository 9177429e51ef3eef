#include "sources/recycling.h"

#include "logits/most_likely.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace ecl {

namespace {

// Successors are of one kind if they have the same place (first, second, later) and the full model, when it was
// seen, gave them a probability between the same two of these bounds.
constexpr double  thresholds[] = { 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97 };
constexpr int32_t n_places     = 3;
constexpr auto    kinds_of_one = static_cast<int32_t>(std::size(thresholds)) + 1;  // place
static_assert(n_places * kinds_of_one == recycling_source::n_kinds);

// How often successors of each kind came true where this table was asked (lines: places; columns: ranges of
// probability), counted over texts of SmolLM2-135M and Qwen2.5-Coder-0.5B.
constexpr double prior_by_one[] = {
    0.05, 0.05, 0.07, 0.09, 0.13, 0.14, 0.20, 0.20, 0.20, 0.24,  //
    0.05, 0.05, 0.06, 0.08, 0.11, 0.12, 0.12, 0.12, 0.12, 0.12,  //
    0.02, 0.02, 0.03, 0.06, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10,
};
constexpr double prior_by_two[] = {
    0.20, 0.20, 0.20, 0.30, 0.43, 0.48, 0.60, 0.64, 0.64, 0.70,  //
    0.03, 0.07, 0.06, 0.09, 0.15, 0.30, 0.30, 0.30, 0.30, 0.30,  //
    0.01, 0.01, 0.03, 0.09, 0.20, 0.20, 0.20, 0.20, 0.20, 0.20,
};
constexpr double prior_weight = 24.0;
static_assert(std::size(prior_by_one) == recycling_source::n_kinds);
static_assert(std::size(prior_by_two) == recycling_source::n_kinds);

// One key for two tokens.
int64_t pair(int32_t before, int32_t last) {
    return (static_cast<int64_t>(before) + 1) << 32 | static_cast<uint32_t>(last);
}

}  // namespace

const successor_table::entry * successor_table::find(int64_t key) const {
    const auto found = slot_of.find(key);
    return found == slot_of.end() ? nullptr : &entries[found->second];
}

void successor_table::update(int64_t key, const entry & successors) {
    const auto found = slot_of.find(key);
    int32_t    slot   = size();
    if (found != slot_of.end()) {
        slot = found->second;
        unlink(slot);
    } else if (slot == n_max) {
        slot = oldest;
        unlink(slot);
        slot_of.erase(slots[slot].key);
    } else {
        slots.push_back({});
        entries.push_back({});
    }
    slot_of[key]   = slot;
    slots[slot].key = key;
    entries[slot]  = successors;
    append(slot);
}

void successor_table::clear() {
    slot_of.clear();
    slots.clear();
    entries.clear();
    oldest = newest = -1;
}

void successor_table::unlink(int32_t slot) {
    const slot_data & data                                = slots[slot];
    (data.older < 0 ? oldest : slots[data.older].newer) = data.newer;
    (data.newer < 0 ? newest : slots[data.newer].older) = data.older;
}

void successor_table::append(int32_t slot) {
    slots[slot].older                               = newest;
    slots[slot].newer                               = -1;
    (newest < 0 ? oldest : slots[newest].newer) = slot;
    newest                                        = slot;
}

recycling_source::recycling_source(int32_t capacity)
    : by_one(prior_by_one, prior_weight, capacity), by_two(prior_by_two, prior_weight, capacity) {}

recycling_source::knowledge recycling_source::known_after(int32_t before, int32_t last) const {
    const successor_table::entry * known = by_two.find(pair(before, last));
    return known != nullptr ? knowledge{ true, known } : knowledge{ false, by_one.find(last) };
}

void recycling_source::learn(const int32_t * text, int32_t n, const float * const * logits, int32_t n_vocab) {
    for (int32_t i = 0; i < n; ++i) {
        const knowledge known     = known_after(text[i], text[i + 1]);
        calibration &   came_true = known.of_two ? by_two.came_true : by_one.came_true;
        for (int32_t j = 0; known.entry != nullptr && j < width; ++j) {
            came_true.observe(known.entry->kinds[j], known.entry->tokens[j] == text[i + 2]);
        }
    }
    for (int32_t i = 0; i < n; ++i) {
        successor_table::entry seen;
        int32_t                ranges[width];
        if (most_likely_k_ranges(logits[i], n_vocab, width, thresholds, static_cast<int32_t>(std::size(thresholds)),
                                 seen.tokens.data(), ranges) < width) {
            continue;  // a vocabulary of fewer tokens
        }
        for (int32_t j = 0; j < width; ++j) {
            seen.kinds[j] = static_cast<uint8_t>(std::min(j, n_places - 1) * kinds_of_one + ranges[j]);
        }
        by_one.update(text[i + 1], seen);
        by_two.update(pair(text[i], text[i + 1]), seen);
    }
}

void recycling_source::successors(place from, double /*min_probability*/, std::vector<successor> & found) const {
    const auto          begin     = static_cast<std::ptrdiff_t>(found.size());
    const knowledge     known     = known_after(from.first, from.second);
    const calibration & came_true = known.of_two ? by_two.came_true : by_one.came_true;
    for (int32_t i = 0; known.entry != nullptr && i < width; ++i) {
        const int32_t token = known.entry->tokens[i];
        found.push_back({ token, came_true.probability(known.entry->kinds[i]), { from.second, token } });
    }
    std::stable_sort(found.begin() + begin, found.end(),
                     [](const successor & a, const successor & b) { return a.probability > b.probability; });
}

}  // namespace ecl
