#include "graph/sublayer_flow.h"

#include "ggml-impl.h"
#include "ggml.h"
#include "graph/graph_edit.h"
#include "llama-graph.h"

#include <algorithm>
#include <iterator>

namespace ecl {

namespace {

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
            return ggml_get_op_params_f32(node, 1) == 0.0f;  // scale(x) = a * x + b with b = 0
        default:
            return false;
    }
}

}  // namespace

std::string describe(int il, sublayer kind) {
    return std::string("the ") + (kind == sublayer::attention ? "attention" : "feed-forward") + " of layer " +
           std::to_string(il);
}

sublayer_flow::sublayer_flow(const llm_graph_result & res, graph_edit & edit) : marks(res.ecl), edit(edit) {
    for (const sublayer_mark & mark : marks.sublayers) {
        origins[mark.tensor] = { mark.il, mark.kind, mark.dropped };
    }
}

std::string sublayer_flow::run() {
    for (ggml_tensor * node : edit.order()) {
        if (std::string why = visit(node); !why.empty()) {
            return why;
        }
    }
    return "";
}

std::string sublayer_flow::why_not_marked(const graph_options & options) const {
    for (int il = 0; il < static_cast<int>(options.drop.size()); ++il) {
        for (const sublayer kind : { sublayer::attention, sublayer::ffn }) {
            const bool marked =
                std::any_of(marks.sublayers.begin(), marks.sublayers.end(), [&](const sublayer_mark & mark) {
                    return mark.il == il && mark.kind == kind && mark.dropped;
                });
            if (options.drops(il, kind) && !marked) {
                return describe(il, kind) + " does not go through the shared graph builders";
            }
        }
    }
    return "";
}

std::string sublayer_flow::why_no_result() const {
    for (const ggml_tensor * root : edit.roots()) {
        const auto found = origins.find(root);
        if (found != origins.end() && found->second.dropped) {
            return "the output of " + describe(found->second.il, found->second.kind) + " is a result of the graph";
        }
    }
    return "";
}

ggml_tensor * sublayer_flow::stream_into(int il) const {
    const auto found = entering.find(il);
    return found != entering.end() ? found->second : il == last + 1 ? leaving : nullptr;
}

bool sublayer_flow::any_operand_dropped(const ggml_tensor * node) const {
    return std::any_of(std::begin(node->src), std::end(node->src), [&](const ggml_tensor * src) {
        const auto found = origins.find(src);
        return found != origins.end() && found->second.dropped;
    });
}

std::string sublayer_flow::visit(ggml_tensor * node) {
    edit.resolve_operands(node);
    if (origins.count(node) != 0) {
        return "";  // a builder's own return value: its inside is upstream's
    }
    const auto from = std::find_if(std::begin(node->src), std::end(node->src),
                                   [&](const ggml_tensor * src) { return origins.count(src) != 0; });
    if (from == std::end(node->src)) {
        return "";
    }
    if (node->op == GGML_OP_ADD) {
        return visit_add(node);
    }
    // A kept operand names the node rather than a dropped one.
    origin named = origins.at(*from);
    for (const ggml_tensor * src : node->src) {
        const auto found = origins.find(src);
        if (found != origins.end() && !found->second.dropped) {
            named = found->second;
        }
    }
    const bool dropped = any_operand_dropped(node);
    if (keeps_zero(node)) {
        origins[node] = { named.il, named.kind, dropped };
        return "";
    }
    if (dropped) {
        return "operation " + std::string(ggml_op_name(node->op)) + " uses the output of " +
               describe(named.il, named.kind) + " in a way that has no meaning without it";
    }
    return "";
}

std::string sublayer_flow::visit_add(ggml_tensor * node) {
    const auto a = origins.find(node->src[0]);
    const auto b = origins.find(node->src[1]);
    if (a != origins.end() && b != origins.end()) {
        return visit_branch_sum(node, a->second, b->second);
    }
    const bool    a_is_output = a != origins.end();
    const origin  from        = a_is_output ? a->second : b->second;
    ggml_tensor * output      = a_is_output ? node->src[0] : node->src[1];
    ggml_tensor * stream      = a_is_output ? node->src[1] : node->src[0];

    if (is_weight(stream)) {  // a bias is part of the sub-layer, not its residual connection
        origins[node] = from;
        return "";
    }
    if (from.dropped) {
        if (!ggml_are_same_shape(node, stream) || node->type != stream->type) {
            return "the residual connection after " + describe(from.il, from.kind) + " changes the stream's shape";
        }
        edit.replace(node, stream);
        note_stream(from.il, stream, stream);
        return "";
    }
    note_stream(from.il, stream, node);
    found_joins.push_back({ from.il, from.kind, output, stream, node });
    return "";
}

// Two outputs meet before they join the stream: parallel attention and feed-forward, or a shared expert
// beside the routed ones.
std::string sublayer_flow::visit_branch_sum(ggml_tensor * node, origin a, origin b) {
    if (a.dropped && b.dropped) {
        origins[node] = a;
    } else if (a.dropped || b.dropped) {
        ggml_tensor * kept = a.dropped ? node->src[1] : node->src[0];
        if (!ggml_are_same_shape(node, kept)) {
            return "the parallel branches of layer " + std::to_string(a.il) + " differ in shape";
        }
        edit.replace(node, kept);
    } else if (a.kind == b.kind) {
        origins[node] = a;
    } else {
        found_joins.push_back({ a.il, a.kind, node->src[0], nullptr, node });
        found_joins.push_back({ b.il, b.kind, node->src[1], nullptr, node });
        origins[node] = { a.il, sublayer::ffn, false };
    }
    return "";
}

void sublayer_flow::note_stream(int il, ggml_tensor * before, ggml_tensor * after) {
    if (is_output_selection(before)) {
        before = before->src[0];
    }
    entering.emplace(il, before);  // by the layer's first join
    last    = il;
    leaving = after;
}

}  // namespace ecl
