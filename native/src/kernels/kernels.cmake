# Adds the small-batch kernels to a ggml CPU backend target. Included by the patched
# ggml-cpu/CMakeLists.txt from within its variant function, where GGML_CPU_NAME is the target and
# GGML_SYSTEM_ARCH the CPU family. Each instruction set has its own file and flags; which one runs is
# chosen at run time, so a file whose flags the compiler lacks is built empty.

include(CheckCXXCompilerFlag)

function(ecl_kernel_source file)
    set(flags -ffp-contract=off -O3)
    foreach(flag IN LISTS ARGN)
        string(MAKE_C_IDENTIFIER "ECL_HAS${flag}" known)
        check_cxx_compiler_flag(${flag} ${known})
        if(${known})
            list(APPEND flags ${flag})
        endif()
    endforeach()
    set_source_files_properties(${ECL_KERNELS_DIR}/${file} PROPERTIES COMPILE_OPTIONS "${flags}")
endfunction()

if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" AND NOT MSVC AND GGML_SYSTEM_ARCH MATCHES "x86|ARM")
    set(ECL_KERNEL_SOURCES layout.cpp repack.cpp dispatch.cpp driver.cpp buffer_type.cpp)
    if(GGML_SYSTEM_ARCH STREQUAL "x86")
        list(APPEND ECL_KERNEL_SOURCES kernels_avx2.cpp kernels_avxvnni.cpp kernels_avx512vnni.cpp)
        ecl_kernel_source(kernels_avx2.cpp -march=x86-64-v3)
        ecl_kernel_source(kernels_avxvnni.cpp -march=x86-64-v3 -mavxvnni)
        ecl_kernel_source(kernels_avx512vnni.cpp -march=x86-64-v4 -mavx512vnni)
    else()
        list(APPEND ECL_KERNEL_SOURCES kernels_neon.cpp kernels_i8mm.cpp)
        ecl_kernel_source(kernels_neon.cpp -march=armv8.2-a+dotprod)
        ecl_kernel_source(kernels_i8mm.cpp -march=armv8.2-a+dotprod+i8mm)
    endif()
    list(TRANSFORM ECL_KERNEL_SOURCES PREPEND ${ECL_KERNELS_DIR}/)
    target_sources(${GGML_CPU_NAME} PRIVATE ${ECL_KERNEL_SOURCES})
    target_include_directories(${GGML_CPU_NAME} PRIVATE ${ECL_KERNELS_DIR} ${ECL_KERNELS_DIR}/../../include)
    target_compile_definitions(${GGML_CPU_NAME} PRIVATE GGML_USE_ECL_KERNELS)
    include(${ECL_KERNELS_DIR}/attention.cmake)
    find_package(Threads REQUIRED)
    target_link_libraries(${GGML_CPU_NAME} PRIVATE Threads::Threads)
endif()
