#include "ecl_graph.h"

#include "ecl_head.h"
#include "ecl_live_graphs.h"
#include "ecl_tree.h"
#include "ggml-backend.h"
#include "ggml-impl.h"
#include "ggml.h"
#include "kernels/ggml_columns.h"
#include "llama-graph.h"
#include "llama-hparams.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <map>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace ecl {

namespace {

const char * name_of(sublayer kind) {
    return kind == sublayer::attention ? "attention" : "feed-forward";
}

std::string describe(int il, sublayer kind) {
    return std::string("the ") + name_of(kind) + " of layer " + std::to_string(il);
}

ggml_tensor * stand_in(const llm_graph_context & graph, int64_t width, int64_t n_tokens, int il, sublayer kind) {
    ggml_tensor * t = ggml_new_tensor_2d(graph.ctx0, GGML_TYPE_F32, width, n_tokens);
    ggml_format_name(t, "ecl_dropped_%s-%d", name_of(kind), il);
    graph.res->ecl.sublayers.push_back({ t, il, kind, true });
    return t;
}

// A weight, or a view of one: the same for every token, so adding it to a sub-layer's output
// (a bias) is part of that sub-layer and not its residual connection.
bool is_weight(const ggml_tensor * t) {
    const ggml_tensor * root = t->view_src != nullptr ? t->view_src : t;
    return root->op == GGML_OP_NONE && (root->flags & GGML_TENSOR_FLAG_INPUT) == 0;
}

// Operations f of one sub-layer's output for which f(0) = 0, whatever the other operands are.
bool keeps_zero(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_MUL:
        case GGML_OP_MUL_MAT:
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_L2_NORM:
        case GGML_OP_GET_ROWS:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_CONT:
        case GGML_OP_CLAMP:
            return true;
        case GGML_OP_SCALE:
            return ggml_get_op_params_f32(node, 1) == 0.0f;  // scale(x) = a*x + b with b = 0
        default:
            return false;
    }
}

// The rows of a step over states, copied in before each run.
class input_states : public llm_graph_input_i {
  public:
    input_states(ggml_tensor * tensor, const std::vector<float> & source) : tensor(tensor), source(source) {}

    void set_input(const llama_ubatch *) override {
        ggml_backend_tensor_set(tensor, source.data(), 0, ggml_nbytes(tensor));
    }

    bool can_reuse(const llm_graph_params & params) override {
        return tensor->ne[1] == static_cast<int64_t>(params.ubatch.n_tokens);
    }

  private:
    ggml_tensor *              tensor;
    const std::vector<float> & source;
};

// The last layer goes on with the rows alone whose outputs are kept.
bool is_row_selection(const ggml_tensor * t) {
    return t->op == GGML_OP_GET_ROWS && t->src[1]->op == GGML_OP_NONE &&
           (t->src[1]->flags & GGML_TENSOR_FLAG_INPUT) != 0 && !is_weight(t->src[0]);
}

// Which sub-layer a tensor's value comes from, between the builder's return and the residual add.
struct origin {
    int      il;
    sublayer kind;
    bool     dropped;
};

// A tensor stays readable after the step.
void keep(ggml_tensor * t) {
    if (t != nullptr) {
        ggml_set_output(t);
    }
}

// One pass over a built graph in its own order. Follows each marked sub-layer output to the place
// where it joins the residual stream; there a dropped one is replaced by the stream itself, and a
// kept one is noted for the probes.
class sublayer_flow {
  public:
    sublayer_flow(llm_graph_result & res, const graph_options & options) :
        res(res), options(options), gf(res.get_gf()), ctx(res.get_ctx()) {}

    std::string run() {
        for (const auto & mark : res.ecl.sublayers) {
            origins[mark.tensor] = { mark.il, mark.kind, mark.dropped };
        }
        if (std::string why = check_marks(); !why.empty()) {
            return why;
        }

        const std::vector<ggml_tensor *> order(gf->nodes, gf->nodes + gf->n_nodes);
        find_roots(order);
        if (options.states != nullptr) {
            find_users(order);
        }
        for (ggml_tensor * node : order) {
            if (std::string why = visit(node); !why.empty()) {
                return why;
            }
        }
        if (std::string why = check_results(); !why.empty()) {
            return why;
        }
        if (options.states != nullptr) {
            if (std::string why = put_states_in(order); !why.empty()) {
                return why;
            }
        }
        if (std::string why = find_streams(); !why.empty()) {
            return why;
        }
        find_needed();
        if (options.states != nullptr) {
            if (std::string why = check_states_are_all(); !why.empty()) {
                return why;
            }
        }
        rebuild(order);
        return "";
    }

    // Of a graph that drops nothing, what enters a layer; null if that cannot be told.
    ggml_tensor * stream_into(int il) {
        for (const auto & mark : res.ecl.sublayers) {
            origins[mark.tensor] = { mark.il, mark.kind, mark.dropped };
        }
        for (int i = 0; i < gf->n_nodes; ++i) {
            if (!visit(gf->nodes[i]).empty()) {
                return nullptr;
            }
        }
        const auto found = entering.find(il);
        return found != entering.end() ? found->second : nullptr;
    }

  private:
    llm_graph_result &    res;
    const graph_options & options;
    ggml_cgraph *         gf;
    ggml_context *        ctx;

    std::unordered_map<const ggml_tensor *, origin>        origins;
    std::unordered_map<const ggml_tensor *, ggml_tensor *> replaced;  // by what; only whole residual adds
    std::unordered_set<const ggml_tensor *>                roots;
    std::unordered_map<const ggml_tensor *, std::vector<ggml_tensor *>> probe_nodes;  // run right after the key
    std::unordered_set<const ggml_tensor *>                needed;

    // The residual stream: what enters each layer, and what leaves the last one that was seen.
    std::map<int, ggml_tensor *> entering;
    int                          last_layer = -1;
    ggml_tensor *                leaving    = nullptr;

    // In upstream's graph, which nodes use a tensor. Filled in for a step over states only.
    std::unordered_map<const ggml_tensor *, std::vector<const ggml_tensor *>> users;
    const ggml_tensor * embeddings = nullptr;  // what enters layer 0 without states

    std::string check_marks() const {
        for (size_t il = 0; il < options.drop.size(); ++il) {
            for (sublayer kind : { sublayer::attention, sublayer::ffn }) {
                const bool marked = std::any_of(
                    res.ecl.sublayers.begin(), res.ecl.sublayers.end(), [&](const sublayer_mark & mark) {
                        return mark.il == static_cast<int>(il) && mark.kind == kind && mark.dropped;
                    });
                if (options.drops(static_cast<int>(il), kind) && !marked) {
                    return describe(static_cast<int>(il), kind) +
                           " does not go through the shared graph builders";
                }
            }
        }
        return "";
    }

    // What the graph is run for: everything that no other node uses (KV cache stores, the result)
    // and everything that the context reads back.
    void find_roots(const std::vector<ggml_tensor *> & order) {
        std::unordered_set<const ggml_tensor *> used;
        for (const ggml_tensor * node : order) {
            for (const ggml_tensor * src : node->src) {
                used.insert(src);
            }
            used.insert(node->view_src);
        }
        for (const ggml_tensor * node : order) {
            if (used.count(node) == 0 || (node->flags & GGML_TENSOR_FLAG_OUTPUT) != 0) {
                roots.insert(node);
            }
        }
    }

    void find_users(const std::vector<ggml_tensor *> & order) {
        for (const ggml_tensor * node : order) {
            for (const ggml_tensor * src : node->src) {
                if (src != nullptr) {
                    users[src].push_back(node);
                }
            }
        }
    }

    ggml_tensor * resolve(ggml_tensor * t) const {
        for (auto it = replaced.find(t); it != replaced.end(); it = replaced.find(t)) {
            t = it->second;
        }
        return t;
    }

    void resolve_operands(ggml_tensor * node) const {
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

    std::string visit(ggml_tensor * node) {
        resolve_operands(node);
        if (origins.count(node) != 0) {
            return "";  // a builder's own return value: its inside is upstream's
        }

        const origin * from  = nullptr;
        int            n_from = 0;
        for (const ggml_tensor * src : node->src) {
            const auto it = src != nullptr ? origins.find(src) : origins.end();
            if (it != origins.end()) {
                ++n_from;
                if (from == nullptr || !it->second.dropped) {
                    from = &it->second;
                }
            }
        }
        if (from == nullptr) {
            return "";
        }
        if (node->op == GGML_OP_ADD) {
            return visit_add(node);
        }
        if (keeps_zero(node)) {
            const bool zero = any_operand_dropped(node);
            origins[node]   = { from->il, from->kind, zero };
            return "";
        }
        if (any_operand_dropped(node)) {
            return "operation " + std::string(ggml_op_name(node->op)) + " uses the output of " +
                   describe(from->il, from->kind) + " in a way that has no meaning without it";
        }
        return "";
    }

    bool any_operand_dropped(const ggml_tensor * node) const {
        return std::any_of(std::begin(node->src), std::end(node->src), [&](const ggml_tensor * src) {
            const auto it = src != nullptr ? origins.find(src) : origins.end();
            return it != origins.end() && it->second.dropped;
        });
    }

    std::string visit_add(ggml_tensor * node) {
        const auto a = origins.find(node->src[0]);
        const auto b = origins.find(node->src[1]);

        if (a != origins.end() && b != origins.end()) {
            return visit_branch_sum(node, a->second, b->second);
        }
        const bool    a_is_output = a != origins.end();
        const origin  from        = a_is_output ? a->second : b->second;
        ggml_tensor * output      = a_is_output ? node->src[0] : node->src[1];
        ggml_tensor * other       = a_is_output ? node->src[1] : node->src[0];

        if (is_weight(other)) {
            origins[node] = from;
            return "";
        }
        if (from.dropped) {
            if (!ggml_are_same_shape(node, other) || node->type != other->type) {
                return "the residual connection after " + describe(from.il, from.kind) +
                       " changes the stream's shape";
            }
            replaced[node] = other;
            note_stream(from.il, other, other);
            return "";
        }
        note_stream(from.il, other, node);
        note_residual(node, output, other, from);
        return "";
    }

    // Two outputs meet before they join the stream: parallel attention and feed-forward, or a shared
    // expert beside the routed ones.
    std::string visit_branch_sum(ggml_tensor * node, origin a, origin b) {
        if (a.dropped && b.dropped) {
            origins[node] = a;
        } else if (a.dropped || b.dropped) {
            ggml_tensor * kept = a.dropped ? node->src[1] : node->src[0];
            if (!ggml_are_same_shape(node, kept)) {
                return "the parallel branches of layer " + std::to_string(a.il) + " differ in shape";
            }
            replaced[node] = kept;
        } else if (a.kind == b.kind) {
            origins[node] = a;
        } else {
            note_residual(node, node->src[0], nullptr, a);
            note_residual(node, node->src[1], nullptr, b);
            origins[node] = { a.il, sublayer::ffn, false };
        }
        return "";
    }

    // A sub-layer of a layer joins the stream.
    void note_stream(int il, ggml_tensor * before, ggml_tensor * after) {
        if (is_row_selection(before)) {
            before = before->src[0];
        }
        entering.emplace(il, before);  // the first join of the layer
        last_layer = il;
        leaving    = after;
    }

    // Makes the stream that enters layer 0 the given states.
    std::string put_states_in(const std::vector<ggml_tensor *> & order) {
        const auto first = entering.find(0);
        if (first == entering.end()) {
            return "the residual stream into its first layer was not found";
        }
        ggml_tensor * from = first->second;
        if (from->type != GGML_TYPE_F32 || !ggml_is_contiguous(from) ||
            ggml_nelements(from) != static_cast<int64_t>(options.states->size())) {
            return "its residual stream is not one vector a token";
        }
        ggml_tensor * states = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, from->ne[0], from->ne[1]);
        ggml_set_name(states, "ecl_states");
        ggml_set_input(states);
        res.add_input(std::make_unique<input_states>(states, *options.states));
        embeddings     = from;
        replaced[from] = states;
        for (ggml_tensor * node : order) {
            if (node != from) {
                resolve_operands(node);
            }
        }
        return "";
    }

    // The states of a text stand for all that came before the first layer that runs; anything else
    // that reads what they replace would read something wrong.
    std::string check_states_are_all() const {
        if (res.t_inp_tokens != nullptr && needed.count(res.t_inp_tokens) != 0) {
            return "more than the residual stream passes from layer to layer";
        }
        if (!options.drops(0, sublayer::attention) || !options.drops(0, sublayer::ffn)) {
            return "";
        }
        for (const ggml_tensor * user : users.at(embeddings)) {
            if (needed.count(user) != 0 && replaced.count(user) == 0 && !is_row_selection(user)) {
                return "more than its first layer reads the tokens' embeddings";
            }
        }
        for (const ggml_tensor * t : needed) {
            int il = -1;
            if (t->op == GGML_OP_NONE && std::sscanf(t->name, "blk.%d.", &il) == 1 &&
                options.drops(il, sublayer::attention) && options.drops(il, sublayer::ffn)) {
                return "layer " + std::to_string(il) + " does more than attention and feed-forward";
            }
        }
        return "";
    }

    std::string find_streams() {
        if (options.keep == graph_options::keep_none) {
            return "";
        }
        const bool all   = options.keep == graph_options::keep_all;
        const int  first = all ? 0 : options.keep + 1;
        const int  end   = all ? last_layer + 1 : options.keep + 2;
        for (int il = first; il < end; ++il) {
            const auto it = entering.find(il);
            ggml_tensor * t = it != entering.end() ? it->second : il == last_layer + 1 ? leaving : nullptr;
            if (t == nullptr) {
                return "the residual stream into layer " + std::to_string(il) + " was not found";
            }
            // A copy: with as many nodes as before, upstream would take the graph for one that it has laid
            // out already, in which the stream does not stay.
            ggml_tensor * copy = ggml_cont(ctx, resolve(t));
            keep(copy);
            res.ecl.streams.push_back(copy);
        }
        return "";
    }

    void note_residual(ggml_tensor * sum, ggml_tensor * output, ggml_tensor * before, origin from) {
        if (!options.probe) {
            return;
        }
        for (sublayer_probe & probe : res.ecl.probes) {
            if (probe.il == from.il && probe.kind == from.kind) {
                probe.before = before;  // the join with the stream, after a join of parallel branches
                probe.after  = sum;
                keep(before);
                keep(sum);
                return;
            }
        }
        sublayer_probe probe = { from.il, from.kind, confidence(output), before, sum };
        ggml_format_name(probe.confidence, "ecl_confidence_%s-%d", name_of(from.kind), from.il);
        ggml_set_output(probe.confidence);
        keep(before);
        keep(sum);
        probe_nodes[output].push_back(probe.confidence);
        res.ecl.probes.push_back(probe);
    }

    // 1 - H / log(width), H the entropy in nats of the softmax over the width with log(p + 1e-12),
    // averaged over tokens (ConfLayers, arXiv 2604.14612).
    ggml_tensor * confidence(ggml_tensor * output) const {
        ggml_tensor * flat = ggml_is_contiguous(output) ? output : ggml_cont(ctx, output);
        ggml_tensor * p    = ggml_soft_max(ctx, ggml_reshape_2d(ctx, flat, flat->ne[0], ggml_nrows(flat)));
        ggml_tensor * logp = ggml_log(ctx, ggml_scale_bias(ctx, p, 1.0f, 1e-12f));
        ggml_tensor * plogp = ggml_sum_rows(ctx, ggml_mul(ctx, p, logp));
        ggml_tensor * mean  = ggml_mean(ctx, ggml_reshape_1d(ctx, plogp, ggml_nelements(plogp)));
        const float   log_width = std::log(static_cast<float>(output->ne[0]));
        return ggml_scale_bias(ctx, mean, 1.0f / log_width, 1.0f);
    }

    std::string check_results() const {
        for (const ggml_tensor * root : roots) {
            const auto it = origins.find(root);
            if (it != origins.end() && it->second.dropped) {
                return "the output of " + describe(it->second.il, it->second.kind) +
                       " is a result of the graph";
            }
        }
        if (options.probe && res.ecl.probes.empty()) {
            return "no sub-layer of it goes through the shared graph builders";
        }
        return "";
    }

    void find_needed() {
        std::vector<const ggml_tensor *>        stack;
        auto need = [&](const ggml_tensor * t) {
            if (t != nullptr && needed.insert(t).second) {
                stack.push_back(t);
            }
        };
        for (const ggml_tensor * root : roots) {
            need(resolve(const_cast<ggml_tensor *>(root)));
        }
        for (const ggml_tensor * stream : res.ecl.streams) {
            need(stream);
        }
        while (!stack.empty()) {
            const ggml_tensor * t = stack.back();
            stack.pop_back();
            for (const ggml_tensor * src : t->src) {
                need(src);
            }
        }
    }

    // The same nodes in the same order, less those that nothing needs any more.
    void rebuild(const std::vector<ggml_tensor *> & order) {
        // Inputs that the dropped parts alone used are still filled before each step, so they must
        // stay allocated.
        std::vector<ggml_tensor *> inputs;
        for (int i = 0; i < gf->n_leafs; ++i) {
            if ((gf->leafs[i]->flags & GGML_TENSOR_FLAG_INPUT) != 0) {
                inputs.push_back(gf->leafs[i]);
            }
        }
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != nullptr; t = ggml_get_next_tensor(ctx, t)) {
            if (t->op == GGML_OP_NONE && (t->flags & GGML_TENSOR_FLAG_INPUT) != 0) {
                inputs.push_back(t);
            }
        }

        // Branches that upstream built but did not select stay unselected.
        std::vector<ggml_tensor *> unselected;
        std::copy_if(order.begin(), order.end(), std::back_inserter(unselected),
                     [](const ggml_tensor * node) { return (node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0; });

        ggml_graph_clear(gf);
        for (ggml_tensor * node : order) {
            if (needed.count(node) != 0) {
                ggml_build_forward_expand(gf, node);
            }
            const auto probes = probe_nodes.find(node);
            if (probes != probe_nodes.end()) {
                for (ggml_tensor * t : probes->second) {
                    ggml_build_forward_expand(gf, t);
                }
            }
        }
        for (ggml_tensor * stream : res.ecl.streams) {
            ggml_build_forward_expand(gf, stream);
        }
        for (ggml_tensor * input : inputs) {
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
                                   [&](const llm_graph_fused_node & f) { return needed.count(f.tensor) == 0; }),
                    fused.end());
    }
};

}  // namespace

ggml_tensor * drop_attention(const llm_graph_context & graph, ggml_tensor * wo, ggml_tensor * q,
                             ggml_tensor * v_mla, int il) {
    int64_t width = static_cast<int64_t>(graph.hparams.n_embd_head_v(il)) * q->ne[1];
    if (wo != nullptr) {
        width = wo->ne[1];
    } else if (v_mla != nullptr) {
        width = v_mla->ne[1] * q->ne[1];
    }
    return stand_in(graph, width, q->ne[2], il, sublayer::attention);
}

ggml_tensor * drop_ffn(const llm_graph_context & graph, ggml_tensor * cur, ggml_tensor * down, int il) {
    return stand_in(graph, down != nullptr ? down->ne[1] : cur->ne[0], cur->ne[1], il, sublayer::ffn);
}

ggml_tensor * mark_sublayer(llm_graph_result * res, ggml_tensor * cur, int il, sublayer kind) {
    res->ecl.sublayers.push_back({ cur, il, kind, false });
    return cur;
}

std::string finish_graph(llm_graph_result & res, const graph_options & options) {
    const int64_t n_tokens = res.t_inp_tokens != nullptr ? res.t_inp_tokens->ne[0] : 1;
    if (options.head != nullptr) {
        if (std::string why = shorten_logits(res, *options.head); !why.empty()) {
            return why;
        }
    }
    if (options.drops_any() || options.probe || options.keep != graph_options::keep_none ||
        options.states != nullptr) {
        if (std::string why = sublayer_flow(res, options).run(); !why.empty()) {
            return "a layer mask: " + why;
        }
    } else if (options.watch != graph_options::keep_none && options.head == nullptr && n_tokens <= live_graphs::max_tokens) {
        res.ecl.watched = sublayer_flow(res, options).stream_into(options.watch);
        if (res.ecl.watched != nullptr) {
            keep(res.ecl.watched);
            keep(res.ecl.watched->view_src);
        }
    }
    if (options.head != nullptr) {
        std::swap(res.ecl.logits, res.t_logits);
    }
    if (options.tree != nullptr) {
        if (std::string why = follow_branches(res, *options.tree); !why.empty()) {
            return why;
        }
    }
    if (options.exact && n_tokens > 1 && n_tokens <= ECL_SMALL_BATCH) {
        ggml_cgraph * gf = res.get_gf();
        for (int i = 0; i < gf->n_nodes; ++i) {
            ecl_mark_small_batch(gf->nodes[i], static_cast<int32_t>(n_tokens));
        }
    }
    return "";
}

}  // namespace ecl
