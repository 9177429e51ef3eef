#include "graph/tree.h"

#include "ggml-backend.h"
#include "ggml.h"
#include "kernels/attention/ggml_attention.h"
#include "kernels/ggml_marks.h"
#include "llama-graph.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <numeric>
#include <typeinfo>
#include <unordered_map>
#include <utility>

namespace ecl {

namespace {

// The sources that we borrow of an attention: upstream uses five (q, k, v, mask, sinks).
static_assert(ECL_ATTENTION_CELLS >= 5 && ECL_ATTENTION_CELLS != ECL_ATTENTION_PATHS);
static_assert(ECL_ATTENTION_CELLS < GGML_MAX_SRC && ECL_ATTENTION_PATHS < GGML_MAX_SRC);

// For each mask in a graph, the tensor that says in which cells the step's tokens are stored.
using cells_by_mask = std::unordered_map<const ggml_tensor *, ggml_tensor *>;

// Whether an input is set from a token's position alone, or not from positions at all.
bool goes_by_position(const llm_graph_input_i & input) {
    const std::type_info & type = typeid(input);
    return type == typeid(llm_graph_input_embd) || type == typeid(llm_graph_input_pos) ||
           type == typeid(llm_graph_input_attn_temp) || type == typeid(llm_graph_input_out_ids);
}

// Adds the masks of an attention over the cache; false if the input is of another kind.
bool add_masks(const llm_graph_input_i & input, cells_by_mask & cells) {
    const std::type_info & type = typeid(input);
    if (type == typeid(llm_graph_input_attn_kv)) {
        const auto & kv           = static_cast<const llm_graph_input_attn_kv &>(input);
        cells[kv.get_kq_mask()] = kv.get_k_idxs();
    } else if (type == typeid(llm_graph_input_attn_k)) {
        const auto & k           = static_cast<const llm_graph_input_attn_k &>(input);
        cells[k.get_kq_mask()] = k.get_k_idxs();
    } else if (type == typeid(llm_graph_input_attn_kv_iswa)) {
        const auto & kv               = static_cast<const llm_graph_input_attn_kv_iswa &>(input);
        cells[kv.get_kq_mask()]     = kv.get_k_idxs();
        cells[kv.get_kq_mask_swa()] = kv.get_k_idxs_swa();
    } else if (type == typeid(llm_graph_input_attn_k_iswa)) {
        const auto & k               = static_cast<const llm_graph_input_attn_k_iswa &>(input);
        cells[k.get_kq_mask()]     = k.get_k_idxs();
        cells[k.get_kq_mask_swa()] = k.get_k_idxs_swa();
    } else {
        return false;
    }
    return true;
}

// Whether the CPU backend computes an attention with our kernel.
bool kernel_takes(const ggml_tensor * attention) {
    static const auto takes = [] {
        ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        return reinterpret_cast<decltype(&ecl_attention_takes)>(
            ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ecl_attention_takes"));
    }();
    return takes != nullptr && takes(attention);
}

// Finds the cells of every attention's mask. Returns an empty string, or why there is one without.
std::string find_cells(const llm_graph_result & res, cells_by_mask & cells) {
    for (const auto & input : res.inputs) {
        if (!goes_by_position(*input) && !add_masks(*input, cells)) {
            return "the model's graph has inputs that go by more than a token's position";
        }
    }
    cells.erase(nullptr);  // of a kind of attention that the model does not have
    for (int i = 0; i < ggml_graph_n_nodes(res.gf); ++i) {
        const ggml_tensor * node = ggml_graph_node(res.gf, i);
        if (node->op == GGML_OP_FLASH_ATTN_EXT) {
            if (cells.count(node->src[3]) == 0) {
                return "the model attends to something else than the cache";
            }
            if (!kernel_takes(node)) {
                return "attention over these keys and values is not our CPU kernel's";
            }
        } else if (std::any_of(std::begin(node->src), std::end(node->src), [&](const ggml_tensor * src) {
                       return src != nullptr && cells.count(src) != 0;
                   })) {
            return "flash attention is off";
        }
    }
    return "";
}

// Takes the place of a graph's inputs: fills them by the tokens' depths in the tree, and the paths too.
class tree_inputs : public llm_graph_input_i {
  public:
    tree_inputs(std::vector<llm_graph_input_ptr> inputs, const token_tree & tree, ggml_tensor * paths) :
        inputs(std::move(inputs)), tree(tree), paths(paths) {}

    void set_input(const llama_ubatch * ubatch) override {
        const uint32_t n = ubatch->n_tokens;
        GGML_ASSERT(n == static_cast<uint32_t>(tree.size()));
        positions.resize(static_cast<size_t>(n) * ubatch->n_pos);
        for (size_t i = 0; i < positions.size(); ++i) {
            positions[i] = ubatch->pos[0] + tree.depth[i % n];
        }
        llama_ubatch moved = *ubatch;
        moved.pos          = positions.data();
        for (const auto & input : inputs) {
            input->set_input(&moved);
        }
        ggml_backend_tensor_set(paths, tree.paths.data(), 0, ggml_nbytes(paths));
    }

    bool can_reuse(const llm_graph_params & params) override {
        bool all = true;
        for (const auto & input : inputs) {
            all = input->can_reuse(params) && all;  // each takes over the step's cache cells
        }
        return all;
    }

  private:
    std::vector<llm_graph_input_ptr> inputs;
    const token_tree &               tree;
    ggml_tensor *                    paths;      // I32 [n_tokens, n_tokens]
    std::vector<llama_pos>           positions;  // of the step at hand
};

}  // namespace

void token_tree::assign(const int32_t * parents, int32_t n) {
    depth.resize(n);
    paths.resize(static_cast<size_t>(n) * n);
    for (int32_t t = 0; t < n; ++t) {
        int32_t * path = &paths[static_cast<size_t>(t) * n];
        std::iota(path, path + n, 0);
        depth[t] = parents[t] < 0 ? 0 : depth[parents[t]] + 1;
        if (parents[t] >= 0) {
            std::copy_n(&paths[static_cast<size_t>(parents[t]) * n], depth[t], path);
        }
        path[depth[t]] = t;
    }
}

std::string why_no_branches(const llm_graph_result & res) {
    cells_by_mask cells;
    return find_cells(res, cells);
}

std::string follow_branches(llm_graph_result & res, const token_tree & tree) {
    cells_by_mask cells;
    if (std::string why = find_cells(res, cells); !why.empty()) {
        return why;
    }
    ggml_tensor * paths = ggml_new_tensor_2d(res.get_ctx(), GGML_TYPE_I32, tree.size(), tree.size());
    ggml_set_input(paths);
    ggml_set_name(paths, "ecl_paths");
    ggml_build_forward_expand(res.gf, paths);
    for (int i = 0; i < ggml_graph_n_nodes(res.gf); ++i) {
        ggml_tensor * node = ggml_graph_node(res.gf, i);
        if (node->op == GGML_OP_FLASH_ATTN_EXT) {
            node->src[ECL_ATTENTION_CELLS] = cells.at(node->src[3]);
            node->src[ECL_ATTENTION_PATHS] = paths;
        }
    }
    auto inputs = std::make_unique<tree_inputs>(std::move(res.inputs), tree, paths);
    res.inputs.clear();
    res.inputs.push_back(std::move(inputs));
    return "";
}

}  // namespace ecl
