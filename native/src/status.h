// Failures as exceptions within our code and as ecl_status codes at the C API.
#pragma once

#include "ecl_status.h"

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

namespace ecl {

// A call that cannot be served, with the code that it returns.
class error : public std::runtime_error {
  public:
    error(ecl_status status, const std::string & why) : std::runtime_error(why), status(status) {}

    const ecl_status status;
};

// Refuses an argument.
inline void require(bool holds, const char * why) {
    if (!holds) {
        throw error(ECL_BAD_ARGUMENT, why);
    }
}

// What call() returns, a number; if it throws, a code, after report(code, why) was called.
template <class Result, class Call, class Report>
Result guarded(const Call & call, const Report & report) noexcept {
    try {
        return static_cast<Result>(call());
    } catch (const error & failure) {
        return static_cast<Result>(report(failure.status, failure.what()));
    } catch (const std::bad_alloc &) {
        return static_cast<Result>(report(ECL_NO_MEMORY, "there is not enough memory"));
    } catch (const std::exception & failure) {
        return static_cast<Result>(report(ECL_FAILED, failure.what()));
    } catch (...) {
        return static_cast<Result>(report(ECL_FAILED, "an unknown exception"));
    }
}

}  // namespace ecl
