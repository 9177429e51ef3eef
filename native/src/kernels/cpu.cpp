#include "cpu.h"

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>

#if defined(__x86_64__) || defined(_M_X64)
#    define ECL_X86
#    if defined(_MSC_VER)
#        include <intrin.h>
#    else
#        include <cpuid.h>
#    endif
#elif defined(__aarch64__) && defined(__linux__)
#    include <asm/hwcap.h>
#    include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#    include <sys/sysctl.h>
#endif

namespace ecl {

namespace {

#if defined(ECL_X86)

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

// Zeros where the CPU does not know the leaf.
Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
    Registers r;
#    if defined(_MSC_VER)
    int most[4], values[4];
    __cpuid(most, (int) (leaf & 0x80000000u));
    if ((unsigned) most[0] >= leaf) {
        __cpuidex(values, (int) leaf, (int) subleaf);
        r = { (unsigned) values[0], (unsigned) values[1], (unsigned) values[2], (unsigned) values[3] };
    }
#    else
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
#    endif
    return r;
}

// Which registers the operating system saves; only to be asked if it has said so (OSXSAVE).
uint64_t saved_registers() {
#    if defined(_MSC_VER)
    return _xgetbv(0);
#    else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t) high << 32 | low;
#    endif
}

constexpr unsigned bits(std::initializer_list<int> list) {
    unsigned all = 0;
    for (int i : list) {
        all |= 1u << i;
    }
    return all;
}

constexpr bool has(unsigned value, unsigned wanted) {
    return (value & wanted) == wanted;
}

Cpu detect() {
    Cpu cpu;
    const Registers vendor = cpuid(0), basic = cpuid(1), more = cpuid(7), extended = cpuid(0x80000001u);
    cpu.intel = vendor.b == 0x756e6547 && vendor.d == 0x49656e69 && vendor.c == 0x6c65746e;  // GenuineIntel
    // FMA, MOVBE, OSXSAVE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT
    if (!has(basic.c, bits({ 12, 22, 27, 28, 29 })) || !has(more.b, bits({ 3, 5, 8 })) || !has(extended.c, bits({ 5 }))) {
        return cpu;
    }
    const uint64_t saved = saved_registers();
    cpu.avx2    = (saved & 0x6) == 0x6;
    cpu.avxvnni = cpu.avx2 && more.a >= 1 && has(cpuid(7, 1).a, bits({ 4 }));
    // AVX512F, DQ, CD, BW, VL, and their registers
    cpu.avx512     = cpu.avx2 && has(more.b, bits({ 16, 17, 28, 30, 31 })) && (saved & 0xe6) == 0xe6;
    cpu.avx512vnni = cpu.avx512 && has(more.c, bits({ 11 }));
    return cpu;
}

#elif defined(__aarch64__) && defined(__linux__)

Cpu detect() {
    Cpu cpu;
    cpu.neon = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#    if defined(HWCAP2_I8MM)
    cpu.i8mm = cpu.neon && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#    endif
    return cpu;
}

#elif defined(__aarch64__) && defined(__APPLE__)

bool has(const char * feature) {
    int    on   = 0;
    size_t size = sizeof on;
    return sysctlbyname(feature, &on, &size, nullptr, 0) == 0 && on != 0;
}

Cpu detect() {
    Cpu cpu;
    cpu.neon = has("hw.optional.arm.FEAT_DotProd");
    cpu.i8mm = cpu.neon && has("hw.optional.arm.FEAT_I8MM");
    return cpu;
}

#else

Cpu detect() {
    return {};
}

#endif

// Without what is better than the set that was asked for, if the CPU has that one.
Cpu limit(Cpu cpu, const std::string & wanted) {
    if (wanted == "none") {
        return {};
    }
    if (wanted == "avxvnni" && cpu.avxvnni) {
        cpu.avx512 = cpu.avx512vnni = false;
    } else if (wanted == "avx2" && cpu.avx2) {
        cpu.avx512 = cpu.avx512vnni = cpu.avxvnni = false;
    } else if (wanted == "neon") {
        cpu.i8mm = false;
    }
    return cpu;
}

}  // namespace

const Cpu & cpu() {
    static const Cpu known = [] {
        const char * wanted = std::getenv("ECL_KERNELS_ISA");
        return limit(detect(), wanted != nullptr ? wanted : "");
    }();
    return known;
}

}  // namespace ecl
