// Checks the kernels, or times them: check_kernels [products|backend|attention]... [--bench]
// [--threads N] [--mb M] [--reps R] [--isa avx2,...] [--formats Q4_K,...]
#include "check.h"
#include "ecl_kernels.h"

#include <set>
#include <thread>

using namespace ecl_check;

namespace {

const std::pair<const char *, void (*)(const Options &)> families[] = {
    { "products", check_products },
    { "backend", check_backend },
    { "attention", check_attention },
};

[[noreturn]] void refuse(const std::string & argument) {
    std::fprintf(stderr, "%s is not understood; see the head of check_kernels.cpp\n", argument.c_str());
    std::exit(2);
}

}  // namespace

int main(int argc, char ** argv) {
    Options               o;
    std::set<std::string> wanted;
    for (int i = 1; i < argc; ++i) {
        const std::string key   = argv[i];
        const auto        value = [&]() -> std::string { return ++i < argc ? argv[i] : (refuse(key), ""); };
        if (key == "--bench") {
            o.bench = true;
        } else if (key == "--threads") {
            o.threads = std::atoi(value().c_str());
        } else if (key == "--mb") {
            o.mb = std::max(1, std::atoi(value().c_str()));
        } else if (key == "--reps") {
            o.reps = std::max(1, std::atoi(value().c_str()));
        } else if (key == "--isa") {
            o.isas = value();
        } else if (key == "--formats") {
            o.formats = value();
        } else if (std::any_of(std::begin(families), std::end(families), [&](auto & f) { return key == f.first; })) {
            wanted.insert(key);
        } else {
            refuse(key);
        }
    }
    if (o.threads <= 0) {
        o.threads = (int) std::max(1u, std::thread::hardware_concurrency());
    }
    std::printf("%s\n", ecl_kernels_describe(ECL_KERNELS_OURS));
    for (const auto & [family, check] : families) {
        if (wanted.empty() || wanted.count(family) != 0) {
            check(o);
        }
    }
    if (!o.bench) {
        std::printf("%d failures\n", failures);
    }
    return failures > 0 ? 1 : 0;
}
