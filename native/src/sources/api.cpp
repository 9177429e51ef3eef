// The C API of the candidate sources.
#include "ecl_sources.h"
#include "sources/choose.h"
#include "sources/lookup.h"
#include "sources/recycling.h"
#include "sources/source.h"
#include "status.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

static_assert(ecl::recycling_source::width == ECL_RECYCLING_WIDTH);
static_assert(ecl::recycling_source::n_kinds == ECL_RECYCLING_KINDS);
static_assert(ecl::no_parent == -1);  // as ecl_sources.h has it

namespace {

// What call() returns, or the code of what it throws. There is no context to remember the reason in.
template <class Result = int32_t, class Call> Result guarded(const Call & call) noexcept {
    return ecl::guarded<Result>(call, [](ecl_status status, const char *) { return status; });
}

// The source that make() gives, as a handle; null if it throws.
template <class Make> ecl_source * made(const Make & make) noexcept {
    std::unique_ptr<ecl::source> source;
    guarded([&] { return source = make(), ECL_OK; });
    return reinterpret_cast<ecl_source *>(source.release());
}

// A handle is the source itself.
ecl::source * source_of(ecl_source * source) {
    return reinterpret_cast<ecl::source *>(source);
}

const ecl::source * source_of(const ecl_source * source) {
    return reinterpret_cast<const ecl::source *>(source);
}

// The source as one of this kind; throws if it is of another.
template <class Kind> Kind & as(ecl_source * source) {
    auto * found = dynamic_cast<Kind *>(source_of(source));
    ecl::require(found != nullptr, "the source is null or of another kind");
    return *found;
}

const ecl::successor_table & table_of(const ecl_source * source, ecl_recycling_table table) {
    const auto * found = dynamic_cast<const ecl::recycling_source *>(source_of(source));
    ecl::require(found != nullptr, "the source is null or of another kind");
    ecl::require(table == ECL_BY_ONE || table == ECL_BY_TWO, "there is no such table");
    return table == ECL_BY_ONE ? found->by_one : found->by_two;
}

ecl::successor_table & table_of(ecl_source * source, ecl_recycling_table table) {
    return const_cast<ecl::successor_table &>(table_of(static_cast<const ecl_source *>(source), table));
}

// n elements that can be read or written.
template <class T> void require_array(const T * array, int64_t n) {
    ecl::require(n >= 0 && (n == 0 || array != nullptr), "an array is a null pointer or has a negative size");
}

bool is_tree(const double * probabilities, const int32_t * parents, int32_t n) {
    for (int32_t i = 0; i < n; ++i) {
        if (parents[i] < ecl::no_parent || parents[i] >= i || !(probabilities[i] > 0.0 && probabilities[i] <= 1.0)) {
            return false;
        }
    }
    return true;
}

ecl::proposal tree_of(const llama_token * tokens, const double * probabilities, const int32_t * parents, int32_t n) {
    require_array(tokens, n);
    require_array(probabilities, n);
    require_array(parents, n);
    ecl::require(is_tree(probabilities, parents, n), "this is no tree");
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

void check(const ecl_terms & terms) {
    require_array(terms.sizes, terms.n_sizes);
    require_array(terms.v, terms.n_v);
    ecl::require(terms.n_pending >= 0 && terms.n_bins > 0, "a number is out of range");
    ecl::require(std::all_of(terms.sizes, terms.sizes + terms.n_sizes,
                             [](int32_t size) { return size <= ECL_MAX_TREE; }),
                 "more tokens than a tree has cannot be verified together");
}

int32_t load(ecl::successor_table & into, int32_t n_vocab, int32_t n, const int64_t * keys, const llama_token * tokens,
             const uint8_t * kinds, const double * came_true, const double * seen) {
    require_array(keys, n);
    require_array(tokens, n);
    require_array(kinds, n);
    ecl::require(came_true != nullptr && seen != nullptr, "an array is a null pointer");
    ecl::require(n <= into.capacity() && into.came_true.can_be(came_true, seen), "this is no copy of a table");
    const auto first_of = [](int32_t entry) { return static_cast<ptrdiff_t>(entry) * ECL_RECYCLING_WIDTH; };

    std::unordered_set<int64_t> known;
    for (int32_t i = 0; i < n; ++i) {
        ecl::require(known.insert(keys[i]).second && is_entry(tokens + first_of(i), kinds + first_of(i), n_vocab),
                     "this is no copy of a table of this vocabulary");
    }
    into.clear();
    into.came_true.read(came_true, seen);
    for (int32_t i = 0; i < n; ++i) {
        ecl::successor_table::entry entry;
        std::copy_n(tokens + first_of(i), ECL_RECYCLING_WIDTH, entry.tokens.begin());
        std::copy_n(kinds + first_of(i), ECL_RECYCLING_WIDTH, entry.kinds.begin());
        into.update(keys[i], entry);
    }
    return ECL_OK;
}

}  // namespace

ecl_source * ecl_lookup_new(int32_t max_tokens) {
    return made([&] {
        ecl::require(max_tokens >= 0, "the number of tokens is negative");
        return std::make_unique<ecl::lookup_source>(max_tokens);
    });
}

ecl_source * ecl_recycling_new(int32_t capacity) {
    return made([&] {
        ecl::require(capacity > 0, "a table has room for at least one key");
        return std::make_unique<ecl::recycling_source>(capacity);
    });
}

ecl_source * ecl_given_new(const llama_token * tokens, const double * probabilities, const int32_t * parents,
                           int32_t n) {
    return made([&] { return std::make_unique<ecl::given_source>(tree_of(tokens, probabilities, parents, n)); });
}

int32_t ecl_given_set(ecl_source * source, const llama_token * tokens, const double * probabilities,
                      const int32_t * parents, int32_t n) {
    return guarded([&] {
        as<ecl::given_source>(source).set(tree_of(tokens, probabilities, parents, n));
        return ECL_OK;
    });
}

void ecl_source_free(ecl_source * source) {
    delete source_of(source);
}

int32_t ecl_source_candidates(const ecl_source * source, int32_t max_draft, double min_probability, bool chain_only,
                              llama_token * tokens, double * probabilities, int32_t * parents) {
    return guarded([&] {
        ecl::require(source != nullptr, "the source is null");
        require_array(tokens, max_draft);
        require_array(probabilities, max_draft);
        require_array(parents, max_draft);
        const ecl::proposal found = source_of(source)->candidates(max_draft, min_probability, chain_only);
        std::copy(found.tokens.begin(), found.tokens.end(), tokens);
        std::copy(found.probabilities.begin(), found.probabilities.end(), probabilities);
        std::copy(found.parents.begin(), found.parents.end(), parents);
        return found.size();
    });
}

int32_t ecl_lookup_restart(ecl_source * source, const llama_token * tokens, int32_t n) {
    return guarded([&] {
        auto & lookup = as<ecl::lookup_source>(source);
        require_array(tokens, n);
        return lookup.restart(tokens, n), lookup.size();
    });
}

int32_t ecl_lookup_extend(ecl_source * source, const llama_token * tokens, int32_t n) {
    return guarded([&] {
        auto & lookup = as<ecl::lookup_source>(source);
        require_array(tokens, n);
        return lookup.extend(tokens, n), lookup.size();
    });
}

double ecl_lookup_follow(ecl_source * source, llama_token token) {
    return guarded<double>([&] {
        auto & lookup = as<ecl::lookup_source>(source);
        return lookup.extend(&token, 1), lookup.likeliest();
    });
}

int32_t ecl_recycling_observe(ecl_source * source, llama_token before, llama_token last) {
    return guarded([&] { return as<ecl::recycling_source>(source).observe(before, last), ECL_OK; });
}

int32_t ecl_recycling_learn(ecl_source * source, const llama_token * text, int32_t n, const float * const * logits,
                            int32_t n_vocab) {
    return guarded([&] {
        auto & recycling = as<ecl::recycling_source>(source);
        require_array(text, n);
        require_array(logits, n);
        ecl::require(n_vocab >= 0 && std::count(logits, logits + n, nullptr) == 0, "a token has no logits");
        return recycling.learn(text, n, logits, n_vocab), ECL_OK;
    });
}

int32_t ecl_recycling_size(const ecl_source * source, ecl_recycling_table table) {
    return guarded([&] { return table_of(source, table).size(); });
}

int32_t ecl_recycling_save(const ecl_source * source, ecl_recycling_table table, int64_t * keys, llama_token * tokens,
                           uint8_t * kinds, double * came_true, double * seen) {
    return guarded([&] {
        const ecl::successor_table & found = table_of(source, table);
        require_array(keys, found.size());
        require_array(tokens, found.size());
        require_array(kinds, found.size());
        ecl::require(came_true != nullptr && seen != nullptr, "an array is a null pointer");
        found.each([&](int64_t key, const ecl::successor_table::entry & entry) {
            *keys++ = key;
            tokens  = std::copy(entry.tokens.begin(), entry.tokens.end(), tokens);
            kinds   = std::copy(entry.kinds.begin(), entry.kinds.end(), kinds);
        });
        found.came_true.write(came_true, seen);
        return found.size();
    });
}

int32_t ecl_recycling_load(ecl_source * source, ecl_recycling_table table, int32_t n_vocab, int32_t n,
                           const int64_t * keys, const llama_token * tokens, const uint8_t * kinds,
                           const double * came_true, const double * seen) {
    return guarded(
        [&] { return load(table_of(source, table), n_vocab, n, keys, tokens, kinds, came_true, seen); });
}

int32_t ecl_choose(const ecl_source * const * sources, const double * const * chances, int32_t n_sources,
                   const ecl_terms * terms, ecl_choice * choice) {
    return guarded([&] {
        ecl::require(terms != nullptr && choice != nullptr, "the terms or the choice are a null pointer");
        check(*terms);
        require_array(sources, n_sources);
        require_array(chances, n_sources);
        std::vector<const ecl::source *> known;
        for (int32_t s = 0; s < n_sources; ++s) {
            ecl::require(sources[s] != nullptr && chances[s] != nullptr, "a source or its chances are null");
            known.push_back(source_of(sources[s]));
        }
        return ecl::choose(known.data(), chances, n_sources, *terms, *choice);
    });
}
