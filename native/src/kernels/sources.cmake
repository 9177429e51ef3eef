# The kernels' sources, and the flags of each instruction set's file; for the CPU backend
# (ggml_cpu.cmake) and for the tests that run the products alone (native/tests). A file whose flags the
# compiler lacks is built empty. Which of the others runs is chosen at run time (cpu.cpp).
#
# Sets ECL_PRODUCT_SOURCES, which need nothing of ggml's CPU backend, and ECL_ATTENTION_SOURCES.
include(CheckCXXCompilerFlag)

# Flags of our kernels: no float operation may be contracted or reordered.
function(ecl_kernel_source file)
    set(flags)
    foreach(flag IN ITEMS -ffp-contract=off -O3 LISTS ARGN)
        if(flag STREQUAL "-O3" AND (ECL_SANITIZE OR MSVC))
            continue()
        endif()
        string(MAKE_C_IDENTIFIER "ECL_HAS${flag}" known)
        check_cxx_compiler_flag(${flag} ${known})
        if(${known})
            list(APPEND flags ${flag})
        endif()
    endforeach()
    set_source_files_properties(${ECL_KERNELS_DIR}/${file} PROPERTIES COMPILE_OPTIONS "${flags}")
endfunction()

# Adds the sanitizers, where they are asked for, to sources given by their whole paths.
function(ecl_sanitize)
    set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_OPTIONS ${ECL_SANITIZE_FLAGS})
endfunction()

set(ECL_PRODUCT_SOURCES cpu.cpp choice.cpp product/layout.cpp product/repack.cpp product/unpack.cpp
    product/avx2.cpp product/avxvnni.cpp product/avx512vnni.cpp product/neon.cpp product/i8mm.cpp)
set(ECL_ATTENTION_SOURCES attention/attention.cpp attention/avx2.cpp attention/avx512.cpp attention/neon.cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    ecl_kernel_source(product/avx2.cpp -march=x86-64-v3)
    ecl_kernel_source(product/avxvnni.cpp -march=x86-64-v3 -mavxvnni)
    ecl_kernel_source(product/avx512vnni.cpp -march=x86-64-v4 -mavx512vnni)
    ecl_kernel_source(attention/avx2.cpp -march=x86-64-v3)
    ecl_kernel_source(attention/avx512.cpp -march=x86-64-v4)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
    ecl_kernel_source(product/neon.cpp -march=armv8.2-a+dotprod)
    ecl_kernel_source(product/i8mm.cpp -march=armv8.2-a+dotprod+i8mm)
    ecl_kernel_source(attention/neon.cpp -march=armv8-a)
endif()
list(TRANSFORM ECL_PRODUCT_SOURCES PREPEND ${ECL_KERNELS_DIR}/)
list(TRANSFORM ECL_ATTENTION_SOURCES PREPEND ${ECL_KERNELS_DIR}/)
ecl_sanitize(${ECL_PRODUCT_SOURCES} ${ECL_ATTENTION_SOURCES})
