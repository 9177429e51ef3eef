#include "graph/graph_edit.h"

#include "ggml-impl.h"
#include "ggml.h"
#include "llama-graph.h"

#include <algorithm>
#include <iterator>

namespace ecl {

bool is_weight(const ggml_tensor * t) {
    const ggml_tensor * root = t->view_src != nullptr ? t->view_src : t;
    return root->op == GGML_OP_NONE && (root->flags & GGML_TENSOR_FLAG_INPUT) == 0;
}

bool is_output_selection(const ggml_tensor * t) {
    return t->op == GGML_OP_GET_ROWS && t->src[1]->op == GGML_OP_NONE &&
           (t->src[1]->flags & GGML_TENSOR_FLAG_INPUT) != 0 && !is_weight(t->src[0]);
}

graph_edit::graph_edit(llm_graph_result & res) :
    res(res), gf(res.get_gf()), ctx(res.get_ctx()), nodes(gf->nodes, gf->nodes + gf->n_nodes) {}

void graph_edit::find_roots() {
    std::unordered_set<const ggml_tensor *> used;
    for (const ggml_tensor * node : nodes) {
        used.insert(std::begin(node->src), std::end(node->src));
        used.insert(node->view_src);
    }
    for (const ggml_tensor * node : nodes) {
        if (used.count(node) == 0 || (node->flags & GGML_TENSOR_FLAG_OUTPUT) != 0) {
            run_for.insert(node);
        }
    }
}

ggml_tensor * graph_edit::resolve(ggml_tensor * t) const {
    for (auto it = replaced.find(t); it != replaced.end(); it = replaced.find(t)) {
        t = it->second;
    }
    return t;
}

void graph_edit::resolve_operands(ggml_tensor * node) const {
    for (ggml_tensor *& src : node->src) {
        if (src != nullptr) {
            src = resolve(src);
        }
    }
    if (node->view_src != nullptr) {
        ggml_tensor * target = resolve(node->view_src);
        if (target != node->view_src) {
            node->view_src = target->view_src != nullptr ? target->view_src : target;
            node->view_offs += target->view_offs;
        }
    }
}

void graph_edit::find_needed() {
    std::vector<const ggml_tensor *> waiting;
    const auto                       need = [&](const ggml_tensor * t) {
        if (t != nullptr && in_use.insert(t).second) {
            waiting.push_back(t);
        }
    };
    for (const ggml_tensor * root : run_for) {
        need(resolve(const_cast<ggml_tensor *>(root)));
    }
    for (const ggml_tensor * added : added_last) {
        need(added);
    }
    while (!waiting.empty()) {
        const ggml_tensor * t = waiting.back();
        waiting.pop_back();
        std::for_each(std::begin(t->src), std::end(t->src), need);
    }
}

// Inputs that the dropped parts alone used are still filled before each step, so they must stay allocated.
std::vector<ggml_tensor *> graph_edit::inputs() const {
    std::vector<ggml_tensor *> found;
    for (int i = 0; i < gf->n_leafs; ++i) {
        if ((gf->leafs[i]->flags & GGML_TENSOR_FLAG_INPUT) != 0) {
            found.push_back(gf->leafs[i]);
        }
    }
    for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != nullptr; t = ggml_get_next_tensor(ctx, t)) {
        if (t->op == GGML_OP_NONE && (t->flags & GGML_TENSOR_FLAG_INPUT) != 0) {
            found.push_back(t);
        }
    }
    return found;
}

void graph_edit::rebuild() {
    const std::vector<ggml_tensor *> kept_inputs = inputs();

    // Branches that upstream built but did not select stay unselected.
    std::vector<ggml_tensor *> unselected;
    std::copy_if(nodes.begin(), nodes.end(), std::back_inserter(unselected),
                 [](const ggml_tensor * node) { return (node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0; });

    ggml_graph_clear(gf);
    for (ggml_tensor * node : nodes) {
        if (in_use.count(node) != 0) {
            ggml_build_forward_expand(gf, node);
        }
        if (const auto added = added_after.find(node); added != added_after.end()) {
            for (ggml_tensor * t : added->second) {
                ggml_build_forward_expand(gf, t);
            }
        }
    }
    for (ggml_tensor * added : added_last) {
        ggml_build_forward_expand(gf, added);
    }
    for (ggml_tensor * input : kept_inputs) {
        ggml_build_forward_expand(gf, input);
    }
    for (ggml_tensor * node : unselected) {
        node->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    }

    for (ggml_tensor ** result : { &res.t_logits, &res.t_embd, &res.t_embd_pooled, &res.t_h_nextn }) {
        if (*result != nullptr) {
            *result = resolve(*result);
        }
    }
    for (ggml_tensor *& t : res.t_layer_inp) {
        if (t != nullptr) {
            t = resolve(t);
        }
    }
    auto & fused = res.fused_nodes;
    fused.erase(std::remove_if(fused.begin(), fused.end(),
                               [&](const llm_graph_fused_node & each) { return in_use.count(each.tensor) == 0; }),
                fused.end());
}

}  // namespace ecl
