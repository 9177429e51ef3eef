// AVX2 with AVX-VNNI: the same kernels with another dot product.
#define ECL_AVXVNNI
#include "kernels_avx2.cpp"
