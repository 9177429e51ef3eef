// The C API of the candidate sources.
#include "ecl_sources.h"

#include "ecl_candidates.h"
#include "ecl_lookup.h"
#include "ecl_recycling.h"
#include "ecl_source.h"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

static_assert(ecl::recycling_source::width == ECL_RECYCLING_WIDTH);
static_assert(ecl::recycling_source::n_kinds == ECL_RECYCLING_KINDS);

namespace {

// The handle is the source itself.
ecl_source * handle(std::unique_ptr<ecl::source> source) {
    return reinterpret_cast<ecl_source *>(source.release());
}

ecl::source * source_of(ecl_source * source) {
    return reinterpret_cast<ecl::source *>(source);
}

const ecl::source * source_of(const ecl_source * source) {
    return reinterpret_cast<const ecl::source *>(source);
}

// Null for a table that does not exist or a source of another kind.
const ecl::successor_table * table_of(const ecl_source * source, ecl_recycling_table table) {
    const auto * found = dynamic_cast<const ecl::recycling_source *>(source_of(source));
    if (found == nullptr || (table != ECL_BY_ONE && table != ECL_BY_TWO)) {
        return nullptr;
    }
    return table == ECL_BY_ONE ? &found->by_one : &found->by_two;
}

ecl::successor_table * table_of(ecl_source * source, ecl_recycling_table table) {
    return const_cast<ecl::successor_table *>(table_of(static_cast<const ecl_source *>(source), table));
}

// What call() returns; `failed` if it throws.
template <class Call, class Result> Result guarded(const Call & call, Result failed) {
    try {
        return call();
    } catch (const std::exception &) {
        return failed;
    }
}

bool is_tree(const double * probabilities, const int32_t * parents, int32_t n) {
    for (int32_t i = 0; i < n; ++i) {
        if (parents[i] < ecl::no_parent || parents[i] >= i || !(probabilities[i] > 0.0 && probabilities[i] <= 1.0)) {
            return false;
        }
    }
    return n >= 0;
}

ecl::proposal tree_of(const llama_token * tokens, const double * probabilities, const int32_t * parents, int32_t n) {
    ecl::proposal tree;
    for (int32_t i = 0; i < n; ++i) {
        tree.add(tokens[i], probabilities[i], parents[i]);
    }
    return tree;
}

// Whether these are different tokens of a vocabulary, of kinds that there are.
bool is_entry(const llama_token * tokens, const uint8_t * kinds, int32_t n_vocab) {
    for (int32_t i = 0; i < ECL_RECYCLING_WIDTH; ++i) {
        const bool again = std::find(tokens, tokens + i, tokens[i]) != tokens + i;
        if (again || tokens[i] < 0 || tokens[i] >= n_vocab || kinds[i] >= ECL_RECYCLING_KINDS) {
            return false;
        }
    }
    return true;
}

bool are_possible(const ecl_terms & terms) {
    const bool any_size_too_large =
        std::any_of(terms.sizes, terms.sizes + terms.n_sizes, [](int32_t size) { return size > ECL_MAX_TREE; });
    return terms.n_pending >= 0 && terms.n_bins > 0 && terms.n_v >= 0 && !any_size_too_large;
}

}  // namespace

ecl_source * ecl_lookup_new(int32_t n_max) {
    return guarded([&] { return handle(std::make_unique<ecl::lookup_source>(n_max)); },
                   static_cast<ecl_source *>(nullptr));
}

ecl_source * ecl_recycling_new(int32_t capacity) {
    if (capacity <= 0) {
        return nullptr;
    }
    return guarded([&] { return handle(std::make_unique<ecl::recycling_source>(capacity)); },
                   static_cast<ecl_source *>(nullptr));
}

ecl_source * ecl_given_new(const llama_token * tokens, const double * probabilities, const int32_t * parents,
                           int32_t n) {
    if (!is_tree(probabilities, parents, n)) {
        return nullptr;
    }
    return guarded(
        [&] { return handle(std::make_unique<ecl::given_source>(tree_of(tokens, probabilities, parents, n))); },
        static_cast<ecl_source *>(nullptr));
}

int32_t ecl_given_set(ecl_source * source, const llama_token * tokens, const double * probabilities,
                      const int32_t * parents, int32_t n) {
    auto * given = dynamic_cast<ecl::given_source *>(source_of(source));
    if (given == nullptr || !is_tree(probabilities, parents, n)) {
        return -1;
    }
    return guarded([&] { return given->set(tree_of(tokens, probabilities, parents, n)), 0; }, -1);
}

void ecl_source_free(ecl_source * source) {
    delete source_of(source);
}

int32_t ecl_source_candidates(const ecl_source * source, int32_t limit, double least, bool chain, llama_token * tokens,
                              double * probabilities, int32_t * parents) {
    return guarded(
        [&] {
            const ecl::proposal found = source_of(source)->candidates(limit, least, chain);
            std::copy(found.tokens.begin(), found.tokens.end(), tokens);
            std::copy(found.probabilities.begin(), found.probabilities.end(), probabilities);
            std::copy(found.parents.begin(), found.parents.end(), parents);
            return found.size();
        },
        -1);
}

int32_t ecl_lookup_restart(ecl_source * source, const llama_token * tokens, int32_t n) {
    auto * lookup = dynamic_cast<ecl::lookup_source *>(source_of(source));
    if (lookup == nullptr || n < 0) {
        return -1;
    }
    return guarded([&] { return lookup->restart(tokens, n), lookup->size(); }, -1);
}

int32_t ecl_lookup_extend(ecl_source * source, const llama_token * tokens, int32_t n) {
    auto * lookup = dynamic_cast<ecl::lookup_source *>(source_of(source));
    if (lookup == nullptr || n < 0) {
        return -1;
    }
    return guarded([&] { return lookup->extend(tokens, n), lookup->size(); }, -1);
}

double ecl_lookup_follow(ecl_source * source, llama_token token) {
    auto * lookup = dynamic_cast<ecl::lookup_source *>(source_of(source));
    if (lookup == nullptr) {
        return -1.0;
    }
    return guarded([&] { return lookup->extend(&token, 1), lookup->likeliest(); }, -1.0);
}

int32_t ecl_recycling_observe(ecl_source * source, llama_token before, llama_token last) {
    auto * recycling = dynamic_cast<ecl::recycling_source *>(source_of(source));
    if (recycling == nullptr) {
        return -1;
    }
    recycling->observe(before, last);
    return 0;
}

int32_t ecl_recycling_learn(ecl_source * source, const llama_token * text, int32_t n, const float * const * logits,
                            int32_t n_vocab) {
    auto * recycling = dynamic_cast<ecl::recycling_source *>(source_of(source));
    if (recycling == nullptr || n < 0 || n_vocab < 0 || std::count(logits, logits + n, nullptr) > 0) {
        return -1;
    }
    return guarded([&] { return recycling->learn(text, n, logits, n_vocab), 0; }, -1);
}

int32_t ecl_recycling_size(const ecl_source * source, ecl_recycling_table table) {
    const ecl::successor_table * found = table_of(source, table);
    return found == nullptr ? -1 : found->size();
}

int32_t ecl_recycling_save(const ecl_source * source, ecl_recycling_table table, int64_t * keys, llama_token * tokens,
                           uint8_t * kinds, double * came_true, double * seen) {
    const ecl::successor_table * found = table_of(source, table);
    if (found == nullptr) {
        return -1;
    }
    found->each([&](int64_t key, const ecl::successor_table::entry & entry) {
        *keys++ = key;
        tokens  = std::copy(entry.tokens.begin(), entry.tokens.end(), tokens);
        kinds   = std::copy(entry.kinds.begin(), entry.kinds.end(), kinds);
    });
    found->came_true.write(came_true, seen);
    return found->size();
}

int32_t ecl_recycling_load(ecl_source * source, ecl_recycling_table table, int32_t n_vocab, int32_t n,
                           const int64_t * keys, const llama_token * tokens, const uint8_t * kinds,
                           const double * came_true, const double * seen) {
    ecl::successor_table * into = table_of(source, table);
    if (into == nullptr || n < 0 || n > into->capacity() || !into->came_true.can_be(came_true, seen)) {
        return -1;
    }
    return guarded(
        [&] {
            std::unordered_set<int64_t> known;
            for (int32_t i = 0; i < n; ++i) {
                const ptrdiff_t at = static_cast<ptrdiff_t>(i) * ECL_RECYCLING_WIDTH;
                if (!known.insert(keys[i]).second || !is_entry(tokens + at, kinds + at, n_vocab)) {
                    return -1;
                }
            }
            into->clear();
            into->came_true.read(came_true, seen);
            for (int32_t i = 0; i < n; ++i) {
                const ptrdiff_t             at = static_cast<ptrdiff_t>(i) * ECL_RECYCLING_WIDTH;
                ecl::successor_table::entry entry;
                std::copy_n(tokens + at, ECL_RECYCLING_WIDTH, entry.tokens.begin());
                std::copy_n(kinds + at, ECL_RECYCLING_WIDTH, entry.kinds.begin());
                into->update(keys[i], entry);
            }
            return 0;
        },
        -1);
}

int32_t ecl_choose(const ecl_source * const * sources, const double * const * chances, int32_t n_sources,
                   const ecl_terms * terms, ecl_choice * choice) {
    if (!are_possible(*terms)) {
        return -1;
    }
    return guarded(
        [&] {
            std::vector<const ecl::source *> known;
            for (int32_t s = 0; s < n_sources; ++s) {
                known.push_back(source_of(sources[s]));
            }
            return ecl::choose(known.data(), chances, n_sources, *terms, *choice);
        },
        -1);
}
