// Candidates recycled from the full model's own runners-up (Token Recycling, arXiv 2408.08696).
//
// Each step of the full model says, for every token of the text, which tokens were likeliest to come next.
// A table keeps them by that token, and a draft is a walk through it. Two additions to the paper: a second
// table keeps them by the last two tokens and is asked first, and a candidate's probability is how often
// candidates of its kind came true.
#pragma once

#include "sources/calibration.h"
#include "sources/source.h"

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace ecl {

// The likeliest successors of the keys that were seen last.
class successor_table {
  public:
    static constexpr int32_t width = 8;  // successors of a key

    struct entry {
        std::array<int32_t, width> tokens;  // likeliest first
        std::array<uint8_t, width> kinds;   // of came_true
    };

    // prior: the expected frequency of each kind of successor; capacity: most keys, at least one.
    template <size_t n>
    successor_table(const double (&prior)[n], double weight, int32_t capacity)
        : came_true(prior, weight), n_max(capacity) {}

    calibration came_true;

    int32_t capacity() const { return n_max; }
    int32_t size() const { return static_cast<int32_t>(entries.size()); }

    // A key's successors; null for an unknown key.
    const entry * find(int64_t key) const;

    // Replaces a key's successors and makes it the key seen last. A full table loses the one seen longest ago.
    void update(int64_t key, const entry & successors);

    // Calls visit(key, entry) for every key, the one seen longest ago first.
    template <class Visit> void each(const Visit & visit) const {
        for (int32_t slot = oldest; slot >= 0; slot = slots[slot].newer) {
            visit(slots[slot].key, entries[slot]);
        }
    }

    void clear();

  private:
    struct slot_data {
        int64_t key;
        int32_t older;
        int32_t newer;
    };

    void unlink(int32_t slot);
    void append(int32_t slot);

    int32_t                              n_max;
    std::unordered_map<int64_t, int32_t> slot_of;
    std::vector<slot_data>               slots;
    std::vector<entry>                   entries;
    int32_t                              oldest = -1;
    int32_t                              newest = -1;
};

class recycling_source : public source {
  public:
    static constexpr int32_t width   = successor_table::width;
    static constexpr int32_t n_kinds = 30;

    explicit recycling_source(int32_t capacity);

    // The last two tokens of the text; -1 where there is none.
    void observe(int32_t before, int32_t last) { text_end = { before, last }; }

    // Learns from a stretch of the text: logits[i], n_vocab of them, are the full model's after token i + 1 of
    // its n + 2 tokens. The first of them may be -1: none.
    void learn(const int32_t * text, int32_t n, const float * const * logits, int32_t n_vocab);

    successor_table by_one;  // by the last token
    successor_table by_two;  // by the last two

  protected:
    // A place: the last two tokens.
    place end() const override { return text_end; }
    void  successors(place from, double min_probability, std::vector<successor> & found) const override;

  private:
    // Of the table to ask after two tokens: whether it is by_two, and what it has; null: nothing.
    struct knowledge {
        bool                           of_two;
        const successor_table::entry * entry;
    };
    knowledge known_after(int32_t before, int32_t last) const;

    place text_end = { -1, -1 };
};

}  // namespace ecl
