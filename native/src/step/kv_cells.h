// Where the KV cache keeps a text.
#pragma once

#include "llama.h"

#include <cstdint>
#include <vector>

class llama_kv_cache;

namespace ecl {

// The caches of a model's attention: one, or one for all tokens and one for the sliding windows.
struct kv_caches {
    llama_kv_cache * base = nullptr;  // null: the model's memory is of another kind
    llama_kv_cache * swa  = nullptr;  // null: there are no sliding windows

    int32_t size() const { return swa != nullptr ? 2 : 1; }
};

kv_caches caches_of(llama_context * ctx);

// The cells of positions pos to pos + n - 1, cache by cache; fewer if some positions are not there.
std::vector<uint32_t> cells_of(const kv_caches & caches, llama_seq_id seq, llama_pos pos, int32_t n);

}  // namespace ecl
