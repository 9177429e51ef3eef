// The choice of CPU kernels. The functions are exported by the library that holds ggml's CPU backend
// (libggml-cpu), so that a binding can reach them by name.
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
    // Upstream's kernels. A step over a few tokens runs them token by token wherever their result
    // would depend on the batch, so that each token gets the bits of a one-token step.
    ECL_KERNELS_UPSTREAM = 0,
    // Ours where this CPU has one for the format: they keep that promise at the cost of about one
    // token. Elsewhere as above.
    ECL_KERNELS_OURS = 1,
    // Upstream's kernels and upstream's batches, to compare with: bits may depend on the batch.
    ECL_KERNELS_UPSTREAM_AS_IS = 2,
};

// Sets the kernels of the models that the calling thread loads from now on. A model keeps them: they
// decide the layout of its weights and mark the graphs of its contexts, so neither another choice nor
// another thread's changes a model that is loaded. At first, a thread has the choice of the environment
// variable ECL_KERNELS: "upstream", "upstream-as-is" or else ours.
ECL_KERNELS_API void ecl_kernels_choose(enum ecl_kernels_choice choice);

// The calling thread's choice.
ECL_KERNELS_API enum ecl_kernels_choice ecl_kernels_chosen(void);

// What a choice means on this CPU, as one line of JSON: {"enabled": bool, "exact": bool, "isa": name,
// "formats": {"Q4_0": name, ...}}. enabled: our kernels are used; exact: a small batch has the bits of
// one-token steps; isa: the instruction set of our kernels on this CPU, or "none"; formats: the
// instruction set whose kernel serves each weight format, or "upstream".
// The environment variable ECL_KERNELS_ISA (avx2, avxvnni, avx512vnni, neon, i8mm or none) asks for
// less than the CPU has; a set that it lacks is ignored. The string lives until the thread's next call.
ECL_KERNELS_API const char * ecl_kernels_describe(enum ecl_kernels_choice choice);

#ifdef __cplusplus
}
#endif
