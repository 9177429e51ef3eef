// The instruction sets of this CPU: the one place that asks for them.
#pragma once

namespace ecl {

// What the CPU and its operating system support, in the groups that our files are compiled for
// (sources.cmake). ECL_KERNELS_ISA takes the better ones away.
struct Cpu {
    bool avx2       = false;  // all of x86-64-v3
    bool avxvnni    = false;  // and AVX-VNNI
    bool avx512     = false;  // all of x86-64-v4
    bool avx512vnni = false;  // and AVX512-VNNI
    bool intel      = false;

    bool neon = false;  // with dot products
    bool i8mm = false;  // and the matrix-multiply extension
};

// Asked once. ECL_KERNELS_ISA (ecl_kernels.h) is read then.
const Cpu & cpu();

}  // namespace ecl
