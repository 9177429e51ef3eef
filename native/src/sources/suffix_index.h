// Every suffix of a text that occurred in it before, and what followed: a suffix automaton.
//
// A *state* stands for all strings that end at the same places of the text (Blumer et al., "The smallest
// automaton recognizing the subwords of a text", 1985). Adding a token takes amortised constant time;
// states and transitions are linear in the tokens, about 120 bytes a token in all.
#pragma once

#include <cstdint>
#include <vector>

namespace ecl {

// An index over texts that grow token by token; no match spans two texts.
class suffix_index {
  public:
    static constexpr int32_t root = 0;  // the state of the empty string

    // A token that has followed a state's strings, and the state that it leads to.
    struct transition {
        int32_t from;
        int32_t token;
        int32_t to;
        int32_t next;  // of the same state, in the order in which they came up; -1: none
    };

    suffix_index();

    // Starts another text; the ones before it stay known.
    void begin() { last = root; }

    // Adds a token to the text.
    void append(int32_t token);

    // Tokens of all texts.
    int32_t size() const { return n_tokens; }

    // Of the states of the text's suffixes that something has followed, the one with the longest; root if
    // there is none.
    int32_t match() const { return followed(last); }

    // The same for the shorter suffixes of a state's strings.
    int32_t shorter_match(int32_t state) const { return followed(states[state].link); }

    // The length of a state's longest string; of the states that the functions above give, that of the
    // suffix itself.
    int32_t length(int32_t state) const { return states[state].length; }

    // How often a state's strings have occurred.
    int32_t count(int32_t state) const { return states[state].count; }

    // The state that a token leads to; -1 if it has never followed.
    int32_t follow(int32_t state, int32_t token) const;

    int32_t n_followers(int32_t state) const { return states[state].n_transitions; }

    // The first transition of a state, and the one after another; null at the end. Valid until a token is
    // added.
    const transition * first_follower(int32_t state) const { return at(states[state].first); }
    const transition * next_follower(const transition & known) const { return at(known.next); }

  private:
    struct state_data {
        int32_t link;  // the longest suffix of its strings in another state
        int32_t length;
        int32_t count;
        int32_t first;
        int32_t last;
        int32_t n_transitions;
    };

    const transition * at(int32_t index) const { return index < 0 ? nullptr : &transitions[index]; }
    int32_t            followed(int32_t state) const;
    int32_t            find(int32_t state, int32_t token) const;
    int32_t            new_state(int32_t length);
    int32_t            add_state(int32_t token);
    int32_t            split(int32_t before, int32_t token, int32_t state);
    void               add_transition(int32_t state, int32_t token, int32_t to);
    void               remember(int32_t index);
    void               place_in_table(int32_t index);
    uint32_t           slot_of(int32_t state, int32_t token) const;

    std::vector<state_data> states;
    std::vector<transition> transitions;
    std::vector<int32_t>    table;  // by hash, the transitions of states with many; -1: none
    int32_t                 n_in_table = 0;
    int32_t                 last       = root;  // the whole text so far
    int32_t                 n_tokens   = 0;
};

}  // namespace ecl
