// Candidates looked up in the text itself: what followed when its last tokens occurred before.
//
// Prompt lookup with the longest match (SuffixDecoding, arXiv 2411.04975). As in prediction by partial
// matching, a match leaves a chance that something else follows than did before; that share goes to the
// next shorter match. How large it is for matches of each kind is learned from the text as it is generated,
// whoever drafted it.
#pragma once

#include "ecl_calibration.h"
#include "ecl_source.h"
#include "ecl_suffix_index.h"

#include <cstdint>
#include <vector>

namespace ecl {

class lookup_source : public source {
  public:
    // n_max: tokens of the present text and those before it, beyond which the latter are given up.
    explicit lookup_source(int32_t n_max);

    // Takes in another text; the ones before it stay known, unless they are too many.
    void restart(const int32_t * tokens, int32_t n);

    // Takes in how the text goes on, and learns from which matches it did as before.
    void extend(const int32_t * tokens, int32_t n);

    // How likely the likeliest token to follow the text is; 0 if there is none.
    double likeliest() const;

    // Tokens of all texts that it knows.
    int32_t size() const { return index.size(); }

  protected:
    // A place: a state of the index, and the length of the string that is matched.
    place end() const override;
    void  successors(place from, double least, std::vector<successor> & found) const override;

  private:
    int32_t kind(int32_t state, int32_t length) const;

    int32_t      n_max;
    suffix_index index;
    calibration  follows;
};

}  // namespace ecl
