// The suffix index against a search of the texts, and the time it takes.
#include "sources/suffix_index.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

int failures = 0;

void expect(bool ok, const std::string & what) {
    if (!ok) {
        ++failures;
        std::fprintf(stderr, "FAIL %s\n", what.c_str());
    }
}

using text   = std::vector<int32_t>;
using places = std::set<std::pair<size_t, size_t>>;  // text, and position right after an occurrence

places occurrences(const std::vector<text> & texts, const text & part) {
    places found;
    for (size_t number = 0; number < texts.size(); ++number) {
        const text & whole = texts[number];
        for (size_t end = part.size(); end <= whole.size(); ++end) {
            if (std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(end - part.size()))) {
                found.insert({ number, end });
            }
        }
    }
    return found;
}

std::map<int32_t, int32_t> followers(const std::vector<text> & texts, const text & part) {
    std::map<int32_t, int32_t> counts;
    for (const auto & [number, end] : occurrences(texts, part)) {
        if (end < texts[number].size()) {
            ++counts[texts[number][end]];
        }
    }
    return counts;
}

ecl::suffix_index index_of(const std::vector<text> & texts) {
    ecl::suffix_index index;
    for (const text & each : texts) {
        index.begin();
        for (const int32_t token : each) {
            index.append(token);
        }
    }
    return index;
}

std::map<int32_t, int32_t> followers(const ecl::suffix_index & index, int32_t state) {
    std::map<int32_t, int32_t> counts;
    int32_t                    n = 0;
    for (const auto * each = index.first_follower(state); each != nullptr; each = index.next_follower(*each)) {
        counts[each->token] = index.count(each->to);
        expect(index.follow(state, each->token) == each->to, "a transition is found by its token");
        ++n;
    }
    expect(n == index.n_followers(state) && n == static_cast<int32_t>(counts.size()), "each token follows once");
    expect(index.follow(state, 999) == -1, "what never followed");
    return counts;
}

// The states that are given are those of the suffixes that something followed. Suffixes that end at the same
// places share a state, named by the longest of them.
void check_matches(const std::vector<text> & texts) {
    const ecl::suffix_index index = index_of(texts);
    const text &            whole = texts.back();
    int32_t                 state = index.match();
    places                  named;
    for (size_t n = whole.size(); n > 0; --n) {
        const text   suffix(whole.end() - static_cast<std::ptrdiff_t>(n), whole.end());
        const places here     = occurrences(texts, suffix);
        const auto   expected = followers(texts, suffix);
        if (expected.empty() || here == named) {
            continue;
        }
        named = here;
        expect(index.length(state) == static_cast<int32_t>(n), "the length of a match");
        expect(index.count(state) == static_cast<int32_t>(here.size()), "the occurrences of a match");
        expect(followers(index, state) == expected, "what followed a match");
        state = index.shorter_match(state);
    }
    expect(state == ecl::suffix_index::root, "no other matches");
}

// Walks from the root are the parts of the texts.
void check_walk(const std::vector<text> & texts, std::mt19937 & random) {
    const ecl::suffix_index index = index_of(texts);
    int32_t                 state = ecl::suffix_index::root;
    text                    part;
    while (true) {
        const auto           expected = followers(texts, part);
        const auto           found    = followers(index, state);
        std::vector<int32_t> tokens;
        for (const auto & [token, count] : expected) {
            tokens.push_back(token);
            expect(found.count(token) == 1, "a walk can go on as a text does");
        }
        expect(found.size() == expected.size(), "and not otherwise");
        if (tokens.empty()) {
            return;
        }
        part.push_back(tokens[random() % tokens.size()]);
        state = index.follow(state, part.back());
        expect(index.count(state) == static_cast<int32_t>(occurrences(texts, part).size()), "occurrences of a part");
    }
}

// Texts over few tokens repeat themselves in all ways; so do copies of a part. Over many tokens, states have
// many transitions.
std::vector<text> random_texts(std::mt19937 & random) {
    std::vector<text> texts(1 + random() % 4);
    const int32_t     n_tokens = random() % 2 == 0 ? 3 : 40;
    for (text & each : texts) {
        for (size_t n = random() % (n_tokens == 3 ? 30 : 120); n > 0; --n) {
            each.push_back(static_cast<int32_t>(random() % n_tokens) * (random() % 3 > 0));
        }
        if (random() % 2 == 0) {
            const text copy = each;
            each.insert(each.end(), copy.begin(), copy.end());
        }
    }
    return texts;
}

// A token takes a fraction of a microsecond, whatever the text; on a machine at work on other things more.
void check_time(const char * name, int32_t n_tokens, std::mt19937 & random) {
    constexpr int32_t n = 65536;
    text              whole;
    for (int32_t i = 0; i < n; ++i) {
        whole.push_back(static_cast<int32_t>(random() % n_tokens));
    }
    const auto began = std::chrono::steady_clock::now();
    const auto index = index_of({ whole });
    const auto spent = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count();
    std::printf("%-16s %.2f us a token\n", name, spent / n);
    expect(index.size() == n, "tokens are counted");
    expect(spent / n < 10.0, std::string("time for texts of ") + name);
}

}  // namespace

int main() {
    std::mt19937 random(1);
    for (int i = 0; i < 400; ++i) {
        const std::vector<text> texts = random_texts(random);
        check_matches(texts);
        check_walk(texts, random);
    }
    check_time("one token", 1, random);
    check_time("two tokens", 2, random);
    check_time("200 tokens", 200, random);
    check_time("50,000 tokens", 50000, random);
    if (failures == 0) {
        std::printf("all ok\n");
    }
    return failures == 0 ? 0 : 1;
}
