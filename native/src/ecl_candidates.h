// Candidate tokens of several sources in one tree, and the part of it that is worth verifying.
#pragma once

#include "ecl_source.h"
#include "ecl_sources.h"

#include <cstdint>

namespace ecl {

// What ecl_choose does; the arguments can be.
int32_t choose(const source * const * sources, const double * const * chances, int32_t n_sources,
               const ecl_terms & terms, ecl_choice & choice);

}  // namespace ecl
