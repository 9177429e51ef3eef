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

enum ecl_kernels_choice {
    // Upstream's kernels; a step over a few tokens runs them token by token wherever their result
    // would depend on the batch, so that each token gets the bits of a one-token step.
    ECL_KERNELS_UPSTREAM = 0,
    // Ours where this CPU has one for the format, which have that property at the cost of one pass;
    // elsewhere as above.
    ECL_KERNELS_OURS = 1,
    // Upstream's kernels and upstream's batches, to measure: bits may depend on the batch.
    ECL_KERNELS_UPSTREAM_AS_IS = 2,
};

// What models loaded from now on use; models that are loaded already keep the layout of their
// weights and with it the kernels. At start: by the environment variable ECL_KERNELS, "upstream",
// "upstream-as-is" or else ours.
ECL_KERNELS_API void ecl_kernels_choose(enum ecl_kernels_choice choice);

// 1 if ours are chosen and this CPU has the instruction sets for them, else 0.
ECL_KERNELS_API int ecl_kernels_enabled(void);

// 1 unless upstream's batches are chosen as they are.
ECL_KERNELS_API int ecl_kernels_exact(void);

// One line of JSON: {"enabled": bool, "exact": bool, "isa": name, "formats": {"Q4_0": name, ...}},
// where each name is the instruction set whose kernel serves the format on this CPU, or "upstream".
// The environment variable ECL_KERNELS_ISA (avx2, avxvnni, avx512vnni, neon, i8mm or none) asks
// for a particular set; one that the CPU lacks is ignored. The string lives until the next call
// on the same thread.
ECL_KERNELS_API const char * ecl_kernels_describe(void);

#ifdef __cplusplus
}
#endif
