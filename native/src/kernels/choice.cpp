// The choice of kernels (ecl_kernels.h).
#include "cpu.h"
#include "ecl_kernels.h"
#include "product/product.h"

#include <cstdlib>
#include <string>

namespace ecl {

namespace {

ecl_kernels_choice choice_of_environment() {
    const char *      value  = std::getenv("ECL_KERNELS");
    const std::string wanted = value != nullptr ? value : "";
    return wanted == "upstream"       ? ECL_KERNELS_UPSTREAM
         : wanted == "upstream-as-is" ? ECL_KERNELS_UPSTREAM_AS_IS
                                      : ECL_KERNELS_OURS;
}

// Each thread has its own, so that no thread changes what another one loads.
thread_local ecl_kernels_choice choice = choice_of_environment();

}  // namespace

int available_kernels(const KernelSet * (&sets)[max_sets]) {
    const KernelSet * const best_first[] = {
        cpu().avx512vnni ? kernels_avx512vnni(!cpu().intel) : nullptr,
        cpu().avxvnni ? kernels_avxvnni() : nullptr,
        cpu().avx2 ? kernels_avx2() : nullptr,
        cpu().i8mm ? kernels_i8mm() : nullptr,
        cpu().neon ? kernels_neon() : nullptr,
    };
    int n = 0;
    for (const KernelSet * set : best_first) {
        if (set != nullptr) {
            sets[n++] = set;
        }
    }
    return n;
}

const KernelSet * active_kernels() {
    static const KernelSet * const best = [] {
        const KernelSet * sets[max_sets];
        return available_kernels(sets) > 0 ? sets[0] : nullptr;
    }();
    return best;
}

}  // namespace ecl

void ecl_kernels_choose(ecl_kernels_choice wanted) {
    ecl::choice = wanted;
}

ecl_kernels_choice ecl_kernels_chosen(void) {
    return ecl::choice;
}

const char * ecl_kernels_describe(ecl_kernels_choice choice) {
    static thread_local std::string text;

    const ecl::KernelSet * set = ecl::active_kernels();
    const bool             on  = set != nullptr && choice == ECL_KERNELS_OURS;
    text = std::string("{\"enabled\": ") + (on ? "true" : "false") + ", \"exact\": " +
           (choice != ECL_KERNELS_UPSTREAM_AS_IS ? "true" : "false") + ", \"isa\": \"" + (set ? set->name : "none") +
           "\", \"formats\": {";
    for (int f = 0; f < ecl::n_formats; ++f) {
        text += std::string(f ? ", \"" : "\"") + ecl::format_info((ecl::Format) f).name + "\": \"" +
                (on ? set->name : "upstream") + "\"";
    }
    text += "}}";
    return text.c_str();
}
