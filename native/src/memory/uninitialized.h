// An allocator for memory that is only reserved until it is used.
#pragma once

#include <memory>
#include <new>
#include <utility>

namespace ecl {

// Leaves the elements that a container adds by itself uninitialized, so that their pages stay untouched.
template <class T> struct uninitialized : std::allocator<T> {
    template <class U> struct rebind {
        using other = uninitialized<U>;
    };
    template <class U> void construct(U * p) { ::new (static_cast<void *>(p)) U; }
    template <class U, class... Args> void construct(U * p, Args &&... args) {
        ::new (static_cast<void *>(p)) U(std::forward<Args>(args)...);
    }
};

}  // namespace ecl
