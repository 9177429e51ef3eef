// Candidates looked up in the text itself: what followed when its last tokens occurred before.
//
// Prompt lookup by the longest match (SuffixDecoding, arXiv 2411.04975). As in prediction by partial
// matching, a match leaves some probability for tokens that have not followed it before; that share goes to
// the next shorter match. How large it is for each kind of match is learned from the text as it is
// generated, whoever drafted it.
#pragma once

#include "sources/calibration.h"
#include "sources/source.h"
#include "sources/suffix_index.h"

#include <cstdint>
#include <vector>

namespace ecl {

class lookup_source : public source {
  public:
    // n_max: most tokens of all texts; where another text would exceed it, the earlier ones are forgotten.
    explicit lookup_source(int32_t n_max);

    // Takes in another text; the ones before it stay known, unless they are too many.
    void restart(const int32_t * tokens, int32_t n);

    // Takes in how the text goes on, and learns from which matches it did as before.
    void extend(const int32_t * tokens, int32_t n);

    // The probability of the likeliest token to follow the text; 0 if none is known.
    double likeliest() const;

    // Tokens of all known texts.
    int32_t size() const { return index.size(); }

  protected:
    // A place: a state of the index, and the length of the string that is matched.
    place end() const override;
    void  successors(place from, double min_probability, std::vector<successor> & found) const override;

  private:
    int32_t kind(int32_t state, int32_t length) const;

    int32_t      n_max;
    suffix_index index;
    calibration  follows;
};

}  // namespace ecl
