// Notes on an attention mask which part of the KV cache a one-token step would read, so that attention over
// a few tokens can read just that for each of them (kernels/token_by_token.cpp).
#pragma once

#include "kernels/ggml_marks.h"
#include "kernels/mark_graph.h"

#include "llama-batch.h"

#include <algorithm>

namespace ecl {

// mask: the input tensor that was filled for ubatch, over these cells; steps read a multiple of pad cells.
template <class Cells>
void note_cells(ggml_tensor & mask, const llama_ubatch & ubatch, const Cells & cells, uint32_t pad) {
    uint32_t used = 0;
    if (ubatch.n_tokens <= ECL_SMALL_BATCH && mask.ne[3] == 1) {
        const llama_pos first   = *std::min_element(ubatch.pos, ubatch.pos + ubatch.n_tokens);
        const auto      of_batch = [&](uint32_t cell) {
            return std::any_of(ubatch.seq_id_unq, ubatch.seq_id_unq + ubatch.n_seqs_unq, [&](llama_seq_id seq) {
                return cells.seq_has(cell, seq) && cells.pos_get(cell) >= first;
            });
        };
        used = cells.used_max_p1();
        while (used > 0 && (cells.is_empty(used - 1) || of_batch(used - 1))) {
            --used;
        }
    }
    note_cells(mask, used, pad);
}

}  // namespace ecl
