// Proposes tokens from what it has seen, without a step of any model.
//
// sources/ has such sources and the choice among their candidates. It knows no context and no graph, and
// uses logits/ alone.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace ecl {

constexpr int32_t no_parent = -1;  // of a token that follows the text itself

// A tree of tokens, parents before their children.
struct proposal {
    std::vector<int32_t> tokens;
    std::vector<double>  probabilities;  // of each token given its ancestors, in (0, 1]
    std::vector<int32_t> parents;        // an earlier index, or no_parent

    int32_t size() const { return static_cast<int32_t>(tokens.size()); }
    void    add(int32_t token, double probability, int32_t parent) {
        tokens.push_back(token);
        probabilities.push_back(probability);
        parents.push_back(parent);
    }
};

class source {
  public:
    virtual ~source() = default;

    // The likeliest tokens to follow the text: at most max_draft, none of which is less likely than
    // min_probability together with its ancestors; with chain_only just the likeliest successor of each.
    // A token's first child is its likeliest and comes right after it.
    proposal candidates(int32_t max_draft, double min_probability, bool chain_only) const;

  protected:
    // Where in what it knows a source stands after some tokens.
    struct place {
        int32_t first;
        int32_t second;
    };
    struct successor {
        int32_t token;
        double  probability;
        place   after;
    };

    // The end of the text.
    virtual place end() const = 0;

    // Appends what may follow a place: different tokens, likeliest first. Those less likely than
    // min_probability may be left out.
    virtual void successors(place from, double min_probability, std::vector<successor> & found) const = 0;
};

// Proposes out of the tree that it was given last.
class given_source : public source {
  public:
    explicit given_source(proposal tree);

    void set(proposal proposed) { tree = std::move(proposed); }

  protected:
    place end() const override { return { no_parent, 0 }; }
    void  successors(place from, double min_probability, std::vector<successor> & found) const override;

  private:
    proposal tree;
};

}  // namespace ecl
