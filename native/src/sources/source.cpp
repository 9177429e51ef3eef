#include "sources/source.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace ecl {

namespace {

// The same tree in depth-first order.
proposal depth_first(const proposal & nodes) {
    const int32_t        n = nodes.size();
    std::vector<int32_t> first(n + 1, -1), next(n, -1), place(n);  // the last `first` is that of the roots
    for (int32_t i = n - 1; i >= 0; --i) {
        int32_t & child = first[nodes.parents[i] == no_parent ? n : nodes.parents[i]];
        next[i]         = child;
        child           = i;
    }
    proposal             walked;
    std::vector<int32_t> waiting;
    for (int32_t i = first[n]; i >= 0;) {
        const int32_t parent = nodes.parents[i];
        place[i]             = walked.size();
        walked.add(nodes.tokens[i], nodes.probabilities[i], parent == no_parent ? no_parent : place[parent]);
        if (next[i] >= 0) {
            waiting.push_back(next[i]);
        }
        if (first[i] >= 0) {
            i = first[i];
        } else if (!waiting.empty()) {
            i = waiting.back();
            waiting.pop_back();
        } else {
            break;
        }
    }
    return walked;
}

}  // namespace

proposal source::candidates(int32_t max_draft, double min_probability, bool chain_only) const {
    // A node that may be next: a sibling waits until the likelier one was taken.
    struct waiting {
        double  whole;   // probability of its path
        int32_t number;  // keeps ties in order
        int32_t parent;
        double  path;  // probability of the parent's path
        size_t  option;
        size_t  end;  // of its siblings
    };
    const auto later = [](const waiting & a, const waiting & b) {
        return a.whole < b.whole || (a.whole == b.whole && a.number > b.number);
    };
    std::vector<waiting>   heap;
    std::vector<successor> options;
    int32_t                number = 0;

    const auto wait = [&](int32_t parent, double path, size_t option, size_t end) {
        if (option < end) {
            const double whole = path * options[option].probability;
            if (whole >= min_probability && whole > 0.0) {
                heap.push_back({ whole, number++, parent, path, option, end });
                std::push_heap(heap.begin(), heap.end(), later);
            }
        }
    };
    const auto go_on = [&](int32_t parent, double path, place from) {
        const size_t begin = options.size();
        successors(from, min_probability / path, options);
        wait(parent, path, begin, options.size());
    };

    proposal nodes;
    if (max_draft > 0) {
        go_on(no_parent, 1.0, end());
    }
    while (!heap.empty() && nodes.size() < max_draft) {
        std::pop_heap(heap.begin(), heap.end(), later);
        const waiting   best  = heap.back();
        const successor taken = options[best.option];
        heap.pop_back();
        nodes.add(taken.token, taken.probability, best.parent);
        if (!chain_only) {
            wait(best.parent, best.path, best.option + 1, best.end);
        }
        if (nodes.size() < max_draft) {
            go_on(nodes.size() - 1, best.whole, taken.after);
        }
    }
    return depth_first(nodes);
}

given_source::given_source(proposal tree) : tree(std::move(tree)) {}

void given_source::successors(place from, double /*min_probability*/, std::vector<successor> & found) const {
    const auto begin = static_cast<std::ptrdiff_t>(found.size());
    for (int32_t i = from.first + 1; i < tree.size(); ++i) {
        if (tree.parents[i] == from.first) {
            found.push_back({ tree.tokens[i], tree.probabilities[i], { i, 0 } });
        }
    }
    std::stable_sort(found.begin() + begin, found.end(),
                     [](const successor & a, const successor & b) { return a.probability > b.probability; });
}

}  // namespace ecl
