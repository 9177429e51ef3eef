# Adds the kernels to a ggml CPU backend target. Included by the patched ggml-cpu/CMakeLists.txt from
# within its variant function, where GGML_CPU_NAME is the target. Every compiler builds all of it: one
# that lacks the vector extensions that our kernels are written in builds those files empty, and small
# batches then run token by token.
include(${ECL_KERNELS_DIR}/sources.cmake)
set(ECL_GGML_SOURCES ${ECL_KERNELS_DIR}/token_by_token.cpp
    ${ECL_KERNELS_DIR}/product/driver.cpp ${ECL_KERNELS_DIR}/product/buffer_type.cpp)
ecl_sanitize(${ECL_GGML_SOURCES})
find_package(Threads REQUIRED)
target_sources(${GGML_CPU_NAME} PRIVATE ${ECL_PRODUCT_SOURCES} ${ECL_ATTENTION_SOURCES} ${ECL_GGML_SOURCES})
target_include_directories(${GGML_CPU_NAME} PRIVATE ${ECL_KERNELS_DIR} ${ECL_KERNELS_DIR}/../../include)
target_compile_definitions(${GGML_CPU_NAME} PRIVATE GGML_USE_ECL_KERNELS)
target_link_libraries(${GGML_CPU_NAME} PRIVATE Threads::Threads)
