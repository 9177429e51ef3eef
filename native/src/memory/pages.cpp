#include "memory/pages.h"

#include <cstdint>

#if defined(__unix__) || defined(__APPLE__)
#    include <sys/mman.h>
#    include <unistd.h>
#endif

void ecl::release_pages(const void * data, size_t size) {
#if defined(MADV_DONTNEED)
    const auto page  = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const auto last  = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
    if (first < last) {
        madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);  // a hint: failing costs memory alone
    }
#else
    (void) data;
    (void) size;
#endif
}
