# The sources of the kernels and the flags of each instruction set's file, for the CPU backend
# (kernels.cmake) and for the tests that run them alone (native/tests). A file whose flags the
# compiler lacks is built empty; which of the others runs is chosen at run time.
#
# Sets ECL_KERNEL_CORE: everything that does not need ggml's CPU backend.

include(CheckCXXCompilerFlag)

function(ecl_kernel_source file)
    set(flags -ffp-contract=off)
    if(NOT ECL_SANITIZE)
        list(APPEND flags -O3)
    endif()
    foreach(flag IN LISTS ARGN)
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

set(ECL_KERNEL_CORE layout.cpp repack.cpp unpack.cpp dispatch.cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    list(APPEND ECL_KERNEL_CORE kernels_avx2.cpp kernels_avxvnni.cpp kernels_avx512vnni.cpp)
    ecl_kernel_source(kernels_avx2.cpp -march=x86-64-v3)
    ecl_kernel_source(kernels_avxvnni.cpp -march=x86-64-v3 -mavxvnni)
    ecl_kernel_source(kernels_avx512vnni.cpp -march=x86-64-v4 -mavx512vnni)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
    list(APPEND ECL_KERNEL_CORE kernels_neon.cpp kernels_i8mm.cpp)
    ecl_kernel_source(kernels_neon.cpp -march=armv8.2-a+dotprod)
    ecl_kernel_source(kernels_i8mm.cpp -march=armv8.2-a+dotprod+i8mm)
endif()
list(TRANSFORM ECL_KERNEL_CORE PREPEND ${ECL_KERNELS_DIR}/)
ecl_sanitize(${ECL_KERNEL_CORE})
