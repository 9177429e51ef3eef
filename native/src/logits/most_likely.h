// What the most likely tokens of one row of logits are, in one pass over it.
//
// The row is taken in blocks whose largest logit is found first, so that few blocks are looked at
// again. Equal logits: the lowest index comes first. NaN never counts.
#pragma once

#include <cstdint>

namespace ecl {

// Index of the largest of n logits (0 if none is a number) and, if probability is not null, its
// softmax probability.
int32_t most_likely(const float * logits, int32_t n, float * probability);

// The k (at most n) largest logits in descending order: indices and softmax probabilities. Returns
// how many there are.
int32_t most_likely_k(const float * logits, int32_t n, int32_t k, int32_t * indices, float * probabilities);

// The same tokens, and of each the range of its probability between n_bounds ascending bounds: how many of
// them are not above it. Adds up only as much of the row as that takes, a tenth to a half.
int32_t most_likely_k_ranges(const float * logits, int32_t n, int32_t k, const double * bounds, int32_t n_bounds,
                             int32_t * indices, int32_t * ranges);

}  // namespace ecl
