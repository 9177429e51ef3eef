// AVX2 with AVX-VNNI: the same kernels with another dot product.
#define ECL_AVXVNNI
#include "avx2.cpp"
