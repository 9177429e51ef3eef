// Mapped memory of a model file that is not needed any more.
#pragma once

#include <cstddef>

namespace ecl {

// Lets the system take back the whole pages in [data, data + size) of a read-only file mapping. Reading
// them again brings them back.
void release_pages(const void * data, size_t size);

}  // namespace ecl
