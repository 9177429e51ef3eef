// NEON with the matrix-multiply extension: the kernels of neon.cpp with another dot product.
#define ECL_I8MM
#include "neon.cpp"
