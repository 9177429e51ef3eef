// Candidate tokens of several sources in one tree, and the part of it that is worth verifying.
#pragma once

#include "sources/source.h"
#include "ecl_sources.h"

#include <cstdint>

namespace ecl {

// ecl_choose, for arguments that were checked.
int32_t choose(const source * const * sources, const double * const * chances, int32_t n_sources,
               const ecl_terms & terms, ecl_choice & choice);

}  // namespace ecl
