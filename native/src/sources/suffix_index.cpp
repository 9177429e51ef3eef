#include "sources/suffix_index.h"

#include <algorithm>
#include <utility>

namespace ecl {

namespace {

// An occurrence is counted for this many suffixes, from the longest on, so that a text like "a a a a ..."
// takes no quadratic time. Shorter suffixes are then counted too low, but are not asked for either.
constexpr int32_t max_counted = 32;

// A state with more transitions than this has them in the hash table.
constexpr int32_t max_listed = 6;

constexpr uint32_t first_table_size = 64;

}  // namespace

suffix_index::suffix_index() : table(first_table_size, -1) {
    new_state(0);
    states[root].link = -1;
}

void suffix_index::append(int32_t token) {
    const int32_t known = follow(last, token);
    int32_t       state = known;
    if (known < 0) {
        state = add_state(token);
    } else if (states[known].length != states[last].length + 1) {
        state = split(last, token, known);
    }
    last = state;
    ++n_tokens;
    for (int32_t i = 0; i < max_counted && state != root; ++i) {
        ++states[state].count;
        state = states[state].link;
    }
}

int32_t suffix_index::follow(int32_t state, int32_t token) const {
    const int32_t index = find(state, token);
    return index < 0 ? -1 : transitions[index].to;
}

int32_t suffix_index::followed(int32_t state) const {
    while (state > root && states[state].n_transitions == 0) {
        state = states[state].link;
    }
    return std::max(state, root);
}

// The index of a transition, or -1.
int32_t suffix_index::find(int32_t state, int32_t token) const {
    if (states[state].n_transitions > max_listed) {
        uint32_t slot = slot_of(state, token);
        while (table[slot] >= 0) {
            const transition & found = transitions[table[slot]];
            if (found.from == state && found.token == token) {
                return table[slot];
            }
            slot = (slot + 1) & static_cast<uint32_t>(table.size() - 1);
        }
        return -1;
    }
    int32_t index = states[state].first;
    while (index >= 0 && transitions[index].token != token) {
        index = transitions[index].next;
    }
    return index;
}

int32_t suffix_index::new_state(int32_t length) {
    states.push_back({ root, length, 0, -1, -1, 0 });
    return static_cast<int32_t>(states.size()) - 1;
}

// A state for the text with a token that has not followed it before.
int32_t suffix_index::add_state(int32_t token) {
    const int32_t state   = new_state(states[last].length + 1);
    int32_t       shorter = last;
    int32_t       known   = -1;
    while (shorter >= 0 && (known = follow(shorter, token)) < 0) {
        add_transition(shorter, token, state);
        shorter = states[shorter].link;
    }
    if (shorter >= 0) {
        const bool whole   = states[known].length == states[shorter].length + 1;
        states[state].link = whole ? known : split(shorter, token, known);
    }
    return state;
}

// Takes the strings up to `before` and `token` out of a state that has longer ones.
int32_t suffix_index::split(int32_t before, int32_t token, int32_t state) {
    const int32_t part = new_state(states[before].length + 1);
    for (int32_t index = states[state].first; index >= 0; index = transitions[index].next) {
        add_transition(part, transitions[index].token, transitions[index].to);
    }
    states[part].count = states[state].count;
    states[part].link  = states[state].link;
    states[state].link = part;
    while (before >= 0) {
        const int32_t index = find(before, token);
        if (index < 0 || transitions[index].to != state) {
            break;
        }
        transitions[index].to = part;
        before                = states[before].link;
    }
    return part;
}

void suffix_index::add_transition(int32_t state, int32_t token, int32_t to) {
    const auto index = static_cast<int32_t>(transitions.size());
    transitions.push_back({ state, token, to, -1 });
    state_data & data = states[state];
    (data.last < 0 ? data.first : transitions[data.last].next) = index;
    data.last                                                  = index;
    if (++data.n_transitions == max_listed + 1) {
        for (int32_t each = data.first; each >= 0; each = transitions[each].next) {
            remember(each);
        }
    } else if (data.n_transitions > max_listed) {
        remember(index);
    }
}

void suffix_index::remember(int32_t index) {
    if (2 * static_cast<size_t>(n_in_table + 1) > table.size()) {
        const std::vector<int32_t> before = std::exchange(table, std::vector<int32_t>(2 * table.size(), -1));
        for (const int32_t each : before) {
            if (each >= 0) {
                place_in_table(each);
            }
        }
    }
    place_in_table(index);
    ++n_in_table;
}

void suffix_index::place_in_table(int32_t index) {
    uint32_t slot = slot_of(transitions[index].from, transitions[index].token);
    while (table[slot] >= 0) {
        slot = (slot + 1) & static_cast<uint32_t>(table.size() - 1);
    }
    table[slot] = index;
}

uint32_t suffix_index::slot_of(int32_t state, int32_t token) const {
    uint64_t hash = static_cast<uint64_t>(static_cast<uint32_t>(state)) << 32 | static_cast<uint32_t>(token);
    hash *= 0x9E3779B97F4A7C15u;
    return static_cast<uint32_t>(hash >> 32) & static_cast<uint32_t>(table.size() - 1);
}

}  // namespace ecl
