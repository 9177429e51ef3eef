// NEON with the matrix-multiply extension: the kernels of kernels_neon.cpp with another dot product.
#define ECL_I8MM
#include "kernels_neon.cpp"
