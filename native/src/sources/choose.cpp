#include "sources/choose.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace ecl {

namespace {

struct node {
    int32_t token;
    int32_t parent;  // in the merged tree, or no_parent
    int32_t source;
    double  probability;
    double  own;     // the chance that it is accepted if its parent is
    double  chance;  // that it and all its ancestors are accepted
};

// The chance that a token is accepted, by its source's table of chances.
double chance_of(const double * table, int32_t n_bins, double probability) {
    const int32_t bin = std::clamp(static_cast<int32_t>(probability * n_bins), 0, n_bins - 1);
    return table[2 * bin] + table[2 * bin + 1] * probability;
}

// Adds one source's proposal to a tree.
void add(std::vector<node> & nodes, const proposal & proposed, int32_t source, const double * table, int32_t n_bins) {
    const auto           n_before = nodes.size();
    std::vector<int32_t> placed;  // by the proposal's index, the node in the tree
    placed.reserve(proposed.size());
    // By the proposal's parent + 1, the probability that earlier sources leave; negative: not looked at yet.
    std::vector<double> left(proposed.size() + 1, -1.0);
    for (int32_t i = 0; i < proposed.size(); ++i) {
        const int32_t parent = proposed.parents[i] == no_parent ? no_parent : placed[proposed.parents[i]];
        double &      rest   = left[proposed.parents[i] + 1];
        if (rest < 0.0) {
            double taken = 0.0;
            for (size_t j = 0; j < n_before; ++j) {
                taken += nodes[j].parent == parent ? nodes[j].own : 0.0;
            }
            rest = std::max(0.0, 1.0 - taken);
        }
        const double own   = chance_of(table, n_bins, proposed.probabilities[i]);
        const auto   known = std::find_if(nodes.begin(), nodes.end(), [&](const node & each) {
            return each.parent == parent && each.token == proposed.tokens[i];
        });
        placed.push_back(static_cast<int32_t>(known - nodes.begin()));
        if (known == nodes.end()) {
            nodes.push_back({ proposed.tokens[i], parent, source, proposed.probabilities[i], own * rest, 0.0 });
            continue;
        }
        if (own > known->own) {
            known->source      = source;
            known->probability = proposed.probabilities[i];
        }
        known->own = 1.0 - (1.0 - known->own) * (1.0 - own);
    }
}

// The indices of the nodes, likeliest first and so parents before their children.
std::vector<int32_t> in_order(std::vector<node> & nodes) {
    std::vector<int32_t> order;
    order.reserve(nodes.size());
    for (node & each : nodes) {
        each.chance = each.own * (each.parent == no_parent ? 1.0 : nodes[each.parent].chance);
        order.push_back(static_cast<int32_t>(order.size()));
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return nodes[a].chance > nodes[b].chance; });
    return order;
}

// The chain that follows the likeliest candidate at every token, of nodes in order.
std::vector<int32_t> best_chain(const std::vector<node> & nodes, const std::vector<int32_t> & order) {
    std::vector<int32_t> chain;
    int32_t              parent = no_parent;
    for (const int32_t index : order) {  // likeliest first, so the first child met is the likeliest
        if (nodes[index].parent == parent) {
            chain.push_back(index);
            parent = index;
        }
    }
    return chain;
}

// How many of the first nodes to verify, so that the expected accepted tokens less what their time is worth are
// most. gain becomes that difference, over drafting nothing.
int32_t worth_verifying(const std::vector<node> & nodes, const std::vector<int32_t> & order, const ecl_terms & terms,
                        double & gain) {
    const auto step = [&](int32_t drafted) { return terms.t1 * terms.v[terms.n_pending + drafted]; };
    int32_t    best = 0, n_summed = 0;
    double     accepted = 0.0;
    gain                = 0.0;
    for (int32_t i = 0; i < terms.n_sizes; ++i) {
        const int32_t n = terms.sizes[i] - terms.n_pending;
        if (n <= 0 || n > terms.max_draft || terms.sizes[i] > terms.n_v || step(n) - step(0) > terms.loss_budget) {
            continue;
        }
        if (static_cast<size_t>(n) > order.size()) {
            break;
        }
        double more = 0.0;
        for (; n_summed < n; ++n_summed) {
            more += nodes[order[n_summed]].chance;
        }
        accepted += more;
        const double here = accepted - terms.tokens_per_second * (step(n) - step(0));
        if (here > gain) {
            best = n;
            gain = here;
        }
    }
    return best;
}

}  // namespace

int32_t choose(const source * const * sources, const double * const * chances, int32_t n_sources,
               const ecl_terms & terms, ecl_choice & choice) {
    choice.gain = 0.0;
    if (terms.max_draft <= 0 || terms.n_pending > terms.n_v - 8) {
        return 0;
    }
    const auto   step     = [&](int32_t drafted) { return terms.t1 * terms.v[terms.n_pending + drafted]; };
    const double one_more = std::max(terms.tokens_per_second * (step(1) - step(0)), terms.min_chance);
    bool         useful   = false;
    for (int32_t s = 0; s < n_sources; ++s) {
        const proposal first = sources[s]->candidates(1, one_more / 2, false);
        useful = useful || (first.size() > 0 && chance_of(chances[s], terms.n_bins, first.probabilities[0]) > one_more);
    }
    if (!useful) {
        return 0;
    }
    // What is less likely than this is not worth a place even in the cheapest step.
    const double cheapest        = terms.tokens_per_second * (step(8) - step(1)) / 7;
    const double min_probability = std::max(cheapest, terms.min_chance) / 2;
    const auto   max_draft       = std::min(terms.max_draft, terms.max_per_source);

    std::vector<node> nodes;
    for (int32_t s = 0; s < n_sources; ++s) {
        add(nodes, sources[s]->candidates(max_draft, min_probability, terms.chain_only), s, chances[s], terms.n_bins);
    }
    std::vector<int32_t> order    = in_order(nodes);
    const auto           unlikely = std::find_if(order.begin(), order.end(), [&](int32_t index) {
        return !(nodes[index].chance >= terms.min_chance);
    });
    order.erase(unlikely, order.end());
    if (terms.chain_only) {
        order = best_chain(nodes, order);
    }
    order.resize(worth_verifying(nodes, order, terms, choice.gain));

    // The likeliest chain first, then the rest.
    std::vector<int32_t> place(nodes.size(), no_parent);
    int32_t              n     = 0;
    const auto           write = [&](int32_t index) {
        if (place[index] == no_parent) {
            const node & each       = nodes[index];
            choice.tokens[n]        = each.token;
            choice.parents[n]       = each.parent == no_parent ? no_parent : place[each.parent];
            choice.sources[n]       = each.source;
            choice.probabilities[n] = each.probability;
            place[index]            = n++;
        }
    };
    for (const int32_t index : best_chain(nodes, order)) {
        write(index);
    }
    for (const int32_t index : order) {
        write(index);
    }
    return n;
}

}  // namespace ecl
