// Lets a binding check that it was written for this library.
#include "ecl.h"
#include "ecl_sources.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace {

template <size_t n> int32_t write(const int32_t (&layout)[n], int32_t * out, int32_t n_out) {
    if (out != nullptr && n_out > 0) {
        std::copy_n(layout, std::min<size_t>(n, n_out), out);
    }
    return n;
}

#define ECL_AT(type, field) static_cast<int32_t>(offsetof(type, field))

}  // namespace

int32_t ecl_abi_version(void) {
    return ECL_ABI_VERSION;
}

int32_t ecl_struct_layout(ecl_struct which, int32_t * layout, int32_t n) {
    switch (which) {
        case ECL_STRUCT_SAMPLER: {
            const int32_t found[] = { sizeof(ecl_sampler), ECL_AT(ecl_sampler, chain), ECL_AT(ecl_sampler, grammar) };
            return write(found, layout, n);
        }
        case ECL_STRUCT_STRETCH: {
            const int32_t found[] = {
                sizeof(ecl_stretch),
                ECL_AT(ecl_stretch, max_tokens),
                ECL_AT(ecl_stretch, max_seconds),
                ECL_AT(ecl_stretch, lookups),
                ECL_AT(ecl_stretch, n_lookups),
                ECL_AT(ecl_stretch, stop_probability),
                ECL_AT(ecl_stretch, tokens),
                ECL_AT(ecl_stretch, seconds),
                ECL_AT(ecl_stretch, n_drawn),
                ECL_AT(ecl_stretch, found_match),
            };
            return write(found, layout, n);
        }
        case ECL_STRUCT_DRAFT_OPTIONS: {
            const int32_t found[] = {
                sizeof(ecl_draft_options),
                ECL_AT(ecl_draft_options, max_draft),
                ECL_AT(ecl_draft_options, stop_probability),
                ECL_AT(ecl_draft_options, stop_path),
                ECL_AT(ecl_draft_options, min_path),
                ECL_AT(ecl_draft_options, acceptance),
                ECL_AT(ecl_draft_options, n_acceptance),
                ECL_AT(ecl_draft_options, full_vocabulary),
                ECL_AT(ecl_draft_options, keep_cells),
                ECL_AT(ecl_draft_options, n_runners_up),
                ECL_AT(ecl_draft_options, before),
            };
            return write(found, layout, n);
        }
        case ECL_STRUCT_TERMS: {
            const int32_t found[] = {
                sizeof(ecl_terms),
                ECL_AT(ecl_terms, tokens_per_second),
                ECL_AT(ecl_terms, loss_budget),
                ECL_AT(ecl_terms, min_chance),
                ECL_AT(ecl_terms, t1),
                ECL_AT(ecl_terms, v),
                ECL_AT(ecl_terms, sizes),
                ECL_AT(ecl_terms, n_v),
                ECL_AT(ecl_terms, n_sizes),
                ECL_AT(ecl_terms, n_pending),
                ECL_AT(ecl_terms, max_draft),
                ECL_AT(ecl_terms, max_per_source),
                ECL_AT(ecl_terms, n_bins),
                ECL_AT(ecl_terms, chain_only),
            };
            return write(found, layout, n);
        }
        case ECL_STRUCT_CHOICE: {
            const int32_t found[] = {
                sizeof(ecl_choice),
                ECL_AT(ecl_choice, tokens),
                ECL_AT(ecl_choice, parents),
                ECL_AT(ecl_choice, sources),
                ECL_AT(ecl_choice, probabilities),
                ECL_AT(ecl_choice, gain),
            };
            return write(found, layout, n);
        }
        case ECL_STRUCT_NEXT_TREE: {
            const int32_t found[] = {
                sizeof(ecl_next_tree_options),
                ECL_AT(ecl_next_tree_options, max_depth),
                ECL_AT(ecl_next_tree_options, max_nodes),
                ECL_AT(ecl_next_tree_options, n_bins),
                ECL_AT(ecl_next_tree_options, min_path),
                ECL_AT(ecl_next_tree_options, min_expand),
                ECL_AT(ecl_next_tree_options, min_join),
                ECL_AT(ecl_next_tree_options, chances),
            };
            return write(found, layout, n);
        }
    }
    return ECL_BAD_ARGUMENT;
}
