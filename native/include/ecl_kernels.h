// The switch of the small-batch CPU kernels. The functions are exported by the library that
// holds ggml's CPU backend (libggml-cpu), so that a binding can reach them by name.
#pragma once

#if defined(_WIN32)
#    define ECL_KERNELS_API __declspec(dllexport)
#else
#    define ECL_KERNELS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// 1 if models loaded from now on keep their weights in the small-batch layout, else 0. At start:
// 0 if the environment variable ECL_KERNELS is "upstream", else 1; always 0 on a CPU that has
// none of the instruction sets needed.
ECL_KERNELS_API int ecl_kernels_enabled(void);

// Chooses (non-zero) or drops (0) the kernels for models loaded afterwards; models that are
// already loaded keep what they were loaded with. Has no effect where the CPU has no kernel.
ECL_KERNELS_API void ecl_kernels_enable(int on);

// One line of JSON: {"enabled": bool, "isa": name, "formats": {"Q4_0": name, ...}}, where each
// name is the instruction set whose kernel serves the format on this CPU, or "upstream". The
// environment variable ECL_KERNELS_ISA (avx2, avxvnni, avx512vnni, neon, i8mm or none) asks
// for a particular set; one that the CPU lacks is ignored. The string lives until the next call
// on the same thread.
ECL_KERNELS_API const char * ecl_kernels_describe(void);

#ifdef __cplusplus
}
#endif
