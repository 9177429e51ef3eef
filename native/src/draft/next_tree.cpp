#include "draft/next_tree.h"

#include "logits/most_likely.h"
#include "status.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ecl {

namespace {

constexpr int32_t max_children = 8;  // of a node; not tuned

double chance_of(const ecl_next_tree_options & options, float probability) {
    if (options.n_bins == 0) {
        return probability;
    }
    const int32_t  bin  = std::min(static_cast<int32_t>(probability * options.n_bins), options.n_bins - 1);
    const double * line = options.chances + 2 * bin;
    return std::clamp(line[0] + line[1] * probability, 0.0, 1.0);
}

// Likeliest first; of equals the earlier one.
void sort_by_chance(const std::vector<next_tree::node> & nodes, std::vector<int32_t> & indices) {
    std::stable_sort(indices.begin(), indices.end(),
                     [&](int32_t a, int32_t b) { return nodes[a].chance > nodes[b].chance; });
}

void must(bool computed) {
    if (!computed) {
        throw error(ECL_FAILED, "the next-state head's graph failed");
    }
}

}  // namespace

next_tree::next_tree(next_state_head & head, const std::vector<int32_t> & vocabulary,
                     const ecl_next_tree_options & options, int32_t n_threads) :
    head(head), vocabulary(vocabulary), options(options), n_threads(n_threads) {}

std::vector<next_tree::node> next_tree::grow(int32_t n_embd, const embeddings & read_embedding) {
    for (int32_t depth = 1; depth <= options.max_depth; ++depth) {
        const size_t begin = nodes.size();
        ask();
        if (depth < options.max_depth) {
            places = worth_asking_about(begin);
            if (places.empty()) {
                break;
            }
            roll_out(n_embd, read_embedding);
        }
    }
    keep_likeliest(options.max_nodes);
    return std::move(nodes);
}

// Adds the children of the nodes at all places.
void next_tree::ask() {
    const auto n_places = static_cast<int32_t>(places.size());
    must(head.ask(n_places, n_threads));
    for (int32_t place = 0; place < n_places; ++place) {
        int32_t       rows[max_children];
        float         probabilities[max_children];
        const int32_t n = most_likely_k(head.logits(place), head.n_tokens(), max_children, rows, probabilities);
        const int32_t parent = places[place];
        const double  before = parent < 0 ? 1.0 : nodes[parent].chance;
        for (int32_t i = 0; i < n && probabilities[i] > 0.0f; ++i) {  // some may be too small for a float
            const double chance = before * chance_of(options, probabilities[i]);
            if (chance >= options.min_path) {
                nodes.push_back({ vocabulary[rows[i]], parent, probabilities[i], chance, place });
            }
        }
    }
}

// The likeliest nodes of the level that begins there, if one of them is worth asking the head again.
std::vector<int32_t> next_tree::worth_asking_about(size_t begin) const {
    std::vector<int32_t> found(nodes.size() - begin);
    std::iota(found.begin(), found.end(), static_cast<int32_t>(begin));
    sort_by_chance(nodes, found);
    if (found.empty() || nodes[found[0]].chance < options.min_expand) {
        return {};
    }
    const auto unlikely = std::find_if(found.begin() + 1, found.end(),
                                       [&](int32_t i) { return nodes[i].chance < options.min_join; });
    found.erase(unlikely, found.end());
    found.resize(std::min<size_t>(found.size(), next_state_head::max_places));
    return found;
}

// Makes the predicted states after the nodes at all places the next to be asked about.
void next_tree::roll_out(int32_t n_embd, const embeddings & read_embedding) {
    must(head.roll_out(n_threads));
    for (size_t place = 0; place < places.size(); ++place) {
        const node & each  = nodes[places[place]];
        float *      input = head.input(static_cast<int32_t>(place));
        std::copy_n(head.hidden(each.place), n_embd, input);
        std::copy_n(head.inner(each.place), n_embd, input + n_embd);
        read_embedding(each.token, input + 2 * n_embd);
    }
}

// No node is likelier than its parent, so parents stay, and come first.
void next_tree::keep_likeliest(size_t n) {
    std::vector<int32_t> order(nodes.size()), moved(nodes.size());
    std::iota(order.begin(), order.end(), 0);
    sort_by_chance(nodes, order);
    order.resize(std::min(n, order.size()));
    std::vector<node> kept;
    kept.reserve(order.size());
    for (const int32_t i : order) {
        moved[i] = static_cast<int32_t>(kept.size());
        kept.push_back(nodes[i]);
        if (nodes[i].parent >= 0) {
            kept.back().parent = moved[nodes[i].parent];
        }
    }
    nodes = std::move(kept);
}

}  // namespace ecl
