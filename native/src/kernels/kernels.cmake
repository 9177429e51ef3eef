# Adds the small-batch kernels to a ggml CPU backend target. Included by the patched
# ggml-cpu/CMakeLists.txt from within its variant function, where GGML_CPU_NAME is the target and
# GGML_SYSTEM_ARCH the CPU family. Families without kernels of ours still get the same bits in small
# batches as alone (columns.cpp).

if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" AND NOT MSVC)
    include(${ECL_KERNELS_DIR}/sources.cmake)
    set(ECL_GGML_SOURCES ${ECL_KERNELS_DIR}/driver.cpp ${ECL_KERNELS_DIR}/buffer_type.cpp)
    ecl_sanitize(${ECL_GGML_SOURCES})
    target_sources(${GGML_CPU_NAME} PRIVATE ${ECL_KERNEL_CORE} ${ECL_GGML_SOURCES})
    target_include_directories(${GGML_CPU_NAME} PRIVATE ${ECL_KERNELS_DIR} ${ECL_KERNELS_DIR}/../../include)
    target_compile_definitions(${GGML_CPU_NAME} PRIVATE GGML_USE_ECL_KERNELS)
    include(${ECL_KERNELS_DIR}/attention.cmake)
    find_package(Threads REQUIRED)
    target_link_libraries(${GGML_CPU_NAME} PRIVATE Threads::Threads)
endif()
