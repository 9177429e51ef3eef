#include "step/kv_cells.h"

#include "llama-context.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"

namespace ecl {

kv_caches caches_of(llama_context * ctx) {
    llama_memory_i * memory = ctx->get_memory();
    if (auto * both = dynamic_cast<llama_kv_cache_iswa *>(memory); both != nullptr) {
        return { both->get_base(), both->get_swa() };
    }
    return { dynamic_cast<llama_kv_cache *>(memory), nullptr };
}

std::vector<uint32_t> cells_of(const kv_caches & caches, llama_seq_id seq, llama_pos pos, int32_t n) {
    std::vector<uint32_t> cells;
    for (const llama_kv_cache * cache : { caches.base, caches.swa }) {
        if (cache != nullptr) {
            const auto & by_position = cache->get_cells(seq).seq_pos_get(seq);
            for (auto it = by_position.lower_bound({ pos, 0 }); it != by_position.end() && it->first < pos + n; ++it) {
                cells.push_back(it->second);
            }
        }
    }
    return cells;
}

}  // namespace ecl
