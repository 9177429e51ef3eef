// Decode steps, without the checks of the C API.
#pragma once

#include "ecl.h"
#include "llama-batch.h"

#include <cstdint>

namespace ecl {

// A batch with room for n tokens of sequences below n_seqs. A unified cache has room for any sequence: probes
// and branches use some beyond those that the context was made for, so that they cost no memory.
llama_batch_ext make_batch(llama_context * ctx, int32_t n, llama_seq_id n_seqs);

// Adds tokens at positions pos, pos + 1, ... of one sequence, and marks the outputs to keep.
void add_tokens(llama_batch_ext & batch, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
                ecl_outputs outputs);

// Runs a batch. Returns a status, and remembers why it failed.
int32_t run_batch(llama_context * ctx, const llama_batch_ext & batch);

// ecl_step: each of a few tokens gets the bits of a one-token step.
int32_t step(llama_context * ctx, const llama_token * tokens, int32_t n, llama_pos pos, llama_seq_id seq,
             ecl_outputs outputs);

// Sets the mask of the steps to come, as ecl_set_mask does; throws what cannot be served.
void set_mask(llama_context * ctx, const uint8_t * drop, int32_t n_layer);

// The likeliest token by an output's logits and, if probability is not null, its probability.
llama_token argmax(llama_context * ctx, int32_t i, float * probability);

// The k likeliest: at most n_vocab, whose number it returns.
int32_t top_k(llama_context * ctx, int32_t i, int32_t k, llama_token * tokens, float * probabilities);

// Forgets a sequence's tokens from a position on, at the end of a scope unless told to keep them.
class rollback_guard {
  public:
    rollback_guard(llama_context * ctx, llama_seq_id seq, llama_pos pos) : ctx(ctx), seq(seq), pos(pos) {}
    ~rollback_guard() {
        if (!kept) {
            llama_memory_seq_rm(llama_get_memory(ctx), seq, pos, -1);
        }
    }
    rollback_guard(const rollback_guard &)             = delete;
    rollback_guard & operator=(const rollback_guard &) = delete;

    void keep() { kept = true; }

  private:
    llama_context * ctx;
    llama_seq_id    seq;
    llama_pos       pos;
    bool            kept = false;
};

}  // namespace ecl
