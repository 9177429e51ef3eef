// Attention of a few query tokens over the KV cache, on the CPU.
//
// Cells are taken in chunks of fixed size. For each chunk and KV head, keys and values are read once
// for all query tokens and all heads that share them; each (token, head) gets the chunk's softmax
// maximum, sum and weighted values, and these are combined over the chunks in their order.
//
// What must hold: a token's result is the same operations in the same order whatever other tokens
// are in the batch, however many threads compute it, however many masked cells follow, and wherever
// its branch of a tree lies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ecl {

constexpr int attention_chunk = 128;      // cells; not tuned
constexpr int attention_max_tokens = 32;  // larger batches are upstream's

struct Attention {
    int n_tokens, n_heads, n_kv_heads, dk, dv, n_cells;
    bool half;  // keys and values are F16; else F32

    // Byte strides; a head's values are contiguous.
    const char * q;
    size_t q_token, q_head;
    const char * k;
    size_t k_cell, k_head;
    const char * v;
    size_t v_cell, v_head;
    const uint16_t * mask;  // F16 [token][cell], added to the scaled scores; may be null
    size_t mask_token;      // bytes
    const float * sinks;    // [head], may be null
    // A tree of tokens: token t sees in cell cells[d] what lies in cell cells[paths[t * n_tokens + d]].
    const int64_t * cells;  // of the batch's tokens; null: every token sees what lies there
    const int32_t * paths;
    const int32_t * from;   // the cells to read for those of the chunk at hand; null: themselves
    char * out;
    size_t out_token, out_head;

    float scale;      // of the scores, already divided by softcap if there is one
    float softcap;    // 0: none
    float max_bias;   // of ALiBi; 0: none

    int group() const { return n_heads / n_kv_heads; }
    int n_rows() const { return n_tokens * n_heads; }
    int n_chunks() const { return (n_cells + attention_chunk - 1) / attention_chunk; }
    int row_floats() const { return 16 + dv; }  // maximum, sum, padding, values
};

// Instruction sets' part: one chunk of one KV head, all tokens and all its heads. Writes row
// (token * n_heads + head) of partials; a fully masked row gets sum 0 and no values.
using AttendChunk = void (*)(const Attention & a, int kv_head, int chunk, float * partials, float * scratch);
// Combines one more chunk's partial row into a running one.
using CombineRow = void (*)(int dv, const float * partial, float * running);

struct AttentionKernel {
    const char * name;
    int          width;  // dk and dv must be multiples of it
    AttendChunk  attend;
    CombineRow   combine;
};

const AttentionKernel * attention_avx512();
const AttentionKernel * attention_avx2();
const AttentionKernel * attention_neon();

// The widest of this CPU that takes heads of these sizes, or null.
const AttentionKernel * attention_kernel(int64_t dk, int64_t dv);

// Floats of scratch that one thread needs for attend.
size_t attention_scratch_floats(const Attention & a);

// Chunks whose partial rows are kept at once; results do not depend on it.
int attention_segment(const Attention & a);

}  // namespace ecl
