#include "graph/hook.h"

#include "ggml-impl.h"
#include "ggml.h"
#include "graph/draft_head.h"
#include "graph/live_graphs.h"
#include "graph/sublayer_pass.h"
#include "graph/tree.h"
#include "kernels/ggml_marks.h"
#include "kernels/mark_graph.h"
#include "llama-graph.h"
#include "llama-hparams.h"

#include <utility>

namespace ecl {

namespace {

ggml_tensor * stand_in(const llm_graph_context & graph, int64_t width, int64_t n_tokens, int il, sublayer kind) {
    ggml_tensor * t = ggml_new_tensor_2d(graph.ctx0, GGML_TYPE_F32, width, n_tokens);
    ggml_format_name(t, "ecl_dropped_%s-%d", kind == sublayer::attention ? "attention" : "ffn", il);
    graph.res->ecl.sublayers.push_back({ t, il, kind, true });
    return t;
}

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

refusal finish_graph(llm_graph_result & res, const graph_options & options, ecl_kernels_choice kernels) {
    mark_attention(res.get_gf(), kernels);
    const int64_t n_tokens = res.t_inp_tokens != nullptr ? res.t_inp_tokens->ne[0] : 1;
    if (options.head != nullptr) {
        if (std::string why = shorten_logits(res, *options.head); !why.empty()) {
            return { ECL_NO_DRAFT_VOCABULARY, "a draft vocabulary: " + why };
        }
    }
    if (options.drops_any() || options.probe || options.stream_layer != graph_options::no_layer ||
        options.states != nullptr) {
        if (std::string why = change_sublayers(res, options); !why.empty()) {
            return { ECL_NO_MASK, "a layer mask: " + why };
        }
    } else if (options.keeps_inputs() && options.head == nullptr && n_tokens <= live_graphs::max_tokens) {
        keep_inputs(res, options);
    }
    if (options.head != nullptr) {
        std::swap(res.ecl.draft_logits, res.t_logits);  // llama_context reads a whole vocabulary's back
    }
    if (options.tree != nullptr) {
        if (std::string why = follow_branches(res, *options.tree); !why.empty()) {
            return { ECL_NO_TREE, "trees of tokens: " + why };
        }
    }
    if (options.exact && kernels != ECL_KERNELS_UPSTREAM_AS_IS && n_tokens > 1 && n_tokens <= ECL_SMALL_BATCH) {
        mark_small_batch(res.get_gf(), n_tokens);
    }
    return {};
}

}  // namespace ecl
