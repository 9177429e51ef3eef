#include "sources/lookup.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace ecl {

namespace {

constexpr int32_t lengths[] = { 2, 3, 4, 5, 8, 16 };  // matches this long and longer are of another kind

// How often a token that followed the match before follows it again, by the match's length (lines: 1, 2, 3, 4,
// 5 to 7, 8 to 15, longer) and by what followed it: one token once, one token several times, several tokens.
// Counted over texts of SmolLM2-135M and Qwen2.5-Coder-0.5B, which hardly differ.
constexpr double prior[] = {
    0.31, 0.47, 0.34,  //
    0.51, 0.60, 0.42,  //
    0.68, 0.80, 0.46,  //
    0.70, 0.80, 0.48,  //
    0.78, 0.88, 0.60,  //
    0.87, 0.90, 0.60,  //
    0.96, 0.97, 0.70,
};
constexpr double prior_weight = 24.0;

constexpr int32_t n_matches      = 3;   // matches that propose tokens, from the longest on
constexpr int32_t width          = 4;   // tokens that one match proposes
constexpr int32_t max_followers = 48;  // a match that more tokens have followed proposes none

}  // namespace

lookup_source::lookup_source(int32_t n_max) : n_max(n_max), follows(prior, prior_weight) {}

void lookup_source::restart(const int32_t * tokens, int32_t n) {
    if (index.size() > n_max - n) {
        index = suffix_index();
    }
    index.begin();
    for (int32_t i = 0; i < n; ++i) {
        index.append(tokens[i]);
    }
}

void lookup_source::extend(const int32_t * tokens, int32_t n) {
    for (int32_t i = 0; i < n; ++i) {
        int32_t state = index.match();
        for (int32_t match = 0; match < n_matches && state != suffix_index::root; ++match) {
            const bool followed = index.follow(state, tokens[i]) >= 0;
            follows.observe(kind(state, index.length(state)), followed);
            if (followed) {
                break;
            }
            state = index.shorter_match(state);
        }
        index.append(tokens[i]);
    }
}

double lookup_source::likeliest() const {
    std::vector<successor> found;
    successors(end(), 0.0, found);
    return found.empty() ? 0.0 : found.front().probability;
}

// The calibration's kind of a match of this length.
int32_t lookup_source::kind(int32_t state, int32_t length) const {
    const bool several = index.n_followers(state) > 1;
    const bool again   = index.count(index.first_follower(state)->to) > 1;
    const auto longer  = std::upper_bound(std::begin(lengths), std::end(lengths), length) - std::begin(lengths);
    return 3 * static_cast<int32_t>(longer) + (several ? 2 : static_cast<int32_t>(again));
}

source::place lookup_source::end() const {
    const int32_t state = index.match();
    return { state, index.length(state) };
}

void lookup_source::successors(place from, double min_probability, std::vector<successor> & found) const {
    using transition = suffix_index::transition;
    const auto begin = static_cast<std::ptrdiff_t>(found.size());
    double     left  = 1.0;  // probability of what did not follow the longer matches

    // The state itself is a match if something has followed it.
    int32_t state = index.n_followers(from.first) > 0 ? from.first : index.shorter_match(from.first);
    for (int32_t match = 0; match < n_matches && state != suffix_index::root && left >= min_probability; ++match) {
        if (index.n_followers(state) > max_followers) {
            break;
        }
        const int32_t length  = state == from.first ? from.second : index.length(state);
        const double  follows = this->follows.probability(kind(state, length));

        const transition * likeliest[max_followers];
        int32_t            n = 0, total = 0;
        for (const transition * each = index.first_follower(state); each != nullptr;
             each                    = index.next_follower(*each)) {
            likeliest[n++] = each;
            total += index.count(each->to);
        }
        if (n > width) {
            std::stable_sort(likeliest, likeliest + n, [&](const transition * a, const transition * b) {
                return index.count(a->to) > index.count(b->to);
            });
            n = width;
        }
        const double scale = left * follows / total;
        for (int32_t i = 0; i < n; ++i) {
            const double probability = scale * index.count(likeliest[i]->to);
            const bool   known       = std::any_of(found.begin() + begin, found.end(), [&](const successor & each) {
                return each.token == likeliest[i]->token;
            });
            if (probability >= min_probability && !known) {
                found.push_back({ likeliest[i]->token, probability, { likeliest[i]->to, length + 1 } });
            }
        }
        left *= 1.0 - follows;
        state = index.shorter_match(state);
    }
    std::stable_sort(found.begin() + begin, found.end(),
                     [](const successor & a, const successor & b) { return a.probability > b.probability; });
}

}  // namespace ecl
