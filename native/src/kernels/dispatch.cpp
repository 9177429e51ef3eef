// Chooses the kernels for this CPU at run time, and the switch of ecl_kernels.h.
#include "kernels.h"
#include "ecl_kernels.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__x86_64__)
#    include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#    include <asm/hwcap.h>
#    include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#    include <sys/sysctl.h>
#endif

namespace ecl {

namespace {

#if defined(__x86_64__)

struct Cpu {
    bool avx2 = false, avxvnni = false, avx512vnni = false, intel = false;

    Cpu() {
        unsigned a, b, c, d;
        if (!__get_cpuid(0, &a, &b, &c, &d)) {
            return;
        }
        intel = b == signature_INTEL_ebx && c == signature_INTEL_ecx && d == signature_INTEL_edx;
        __get_cpuid(1, &a, &b, &c, &d);
        const unsigned needed = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
        if ((c & needed) != needed) {
            return;
        }
        unsigned xcr0, high;
        asm volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
        unsigned subleaves;
        if (!__get_cpuid_count(7, 0, &subleaves, &b, &c, &d) || (xcr0 & 0x6) != 0x6) {
            return;
        }
        avx2 = (b & bit_AVX2) && (b & bit_BMI2);  // with FMA and F16C: what x86-64-v3 asks for
        const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
        avx512vnni = avx2 && (b & avx512) == avx512 && (c & bit_AVX512VNNI) && (xcr0 & 0xe6) == 0xe6;
        if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
            avxvnni = avx2 && (a & (1u << 4));
        }
    }
};

void candidates(const KernelSet * (&best_first)[max_sets]) {
    const Cpu cpu;
    best_first[0] = cpu.avx512vnni ? kernels_avx512vnni(!cpu.intel) : nullptr;
    best_first[1] = cpu.avxvnni ? kernels_avxvnni() : nullptr;
    best_first[2] = cpu.avx2 ? kernels_avx2() : nullptr;
}

#elif defined(__aarch64__)

bool has_dotprod() {
#    if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#    elif defined(__APPLE__)
    int on = 0;
    size_t size = sizeof on;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &on, &size, nullptr, 0) == 0 && on;
#    else
    return false;
#    endif
}

bool has_i8mm() {
#    if defined(__linux__) && defined(HWCAP2_I8MM)
    return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#    elif defined(__APPLE__)
    int on = 0;
    size_t size = sizeof on;
    return sysctlbyname("hw.optional.arm.FEAT_I8MM", &on, &size, nullptr, 0) == 0 && on;
#    else
    return false;
#    endif
}

void candidates(const KernelSet * (&best_first)[max_sets]) {
    best_first[0] = has_dotprod() && has_i8mm() ? kernels_i8mm() : nullptr;
    best_first[1] = has_dotprod() ? kernels_neon() : nullptr;
    best_first[2] = nullptr;
}

#else

void candidates(const KernelSet * (&best_first)[max_sets]) {
    best_first[0] = best_first[1] = best_first[2] = nullptr;
}

#endif

const KernelSet * choose() {
    const char * wanted = std::getenv("ECL_KERNELS_ISA");
    if (wanted && std::strcmp(wanted, "none") == 0) {
        return nullptr;
    }
    const KernelSet * sets[max_sets];
    const int n = available_kernels(sets);
    for (int i = 0; i < n; ++i) {
        if (wanted && std::strcmp(sets[i]->name, wanted) == 0) {
            return sets[i];
        }
    }
    return n ? sets[0] : nullptr;
}

ecl_kernels_choice choice_at_start() {
    const char * wanted = std::getenv("ECL_KERNELS");
    if (wanted && std::strcmp(wanted, "upstream") == 0) {
        return ECL_KERNELS_UPSTREAM;
    }
    return wanted && std::strcmp(wanted, "upstream-as-is") == 0 ? ECL_KERNELS_UPSTREAM_AS_IS : ECL_KERNELS_OURS;
}

std::atomic<ecl_kernels_choice> & choice() {
    static std::atomic<ecl_kernels_choice> value{ choice_at_start() };
    return value;
}

}  // namespace

int available_kernels(const KernelSet * (&sets)[max_sets]) {
    const KernelSet * best_first[max_sets];
    candidates(best_first);
    int n = 0;
    for (const KernelSet * set : best_first) {
        if (set) {
            sets[n++] = set;
        }
    }
    return n;
}

const KernelSet * active_kernels() {
    static const KernelSet * set = choose();
    return set;
}

}  // namespace ecl

void ecl_kernels_choose(ecl_kernels_choice wanted) {
    ecl::choice() = wanted;
}

int ecl_kernels_enabled(void) {
    return ecl::active_kernels() != nullptr && ecl::choice() == ECL_KERNELS_OURS;
}

int ecl_kernels_exact(void) {
    return ecl::choice() != ECL_KERNELS_UPSTREAM_AS_IS;
}

const char * ecl_kernels_describe(void) {
    static thread_local std::string text;
    const ecl::KernelSet * set = ecl::active_kernels();
    const bool on = ecl_kernels_enabled() != 0;
    text = std::string("{\"enabled\": ") + (on ? "true" : "false") + ", \"exact\": " +
           (ecl_kernels_exact() ? "true" : "false") + ", \"isa\": \"" + (set ? set->name : "none") +
           "\", \"formats\": {";
    for (int f = 0; f < ecl::n_formats; ++f) {
        const bool ours = on && set->multiply[f][0] != nullptr;
        text += std::string(f ? ", \"" : "\"") + ecl::format_info((ecl::Format) f).name + "\": \"" +
                (ours ? set->name : "upstream") + "\"";
    }
    text += "}}";
    return text.c_str();
}
