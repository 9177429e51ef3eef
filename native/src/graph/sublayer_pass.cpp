#include "graph/sublayer_pass.h"

#include "ggml.h"
#include "graph/bridge.h"
#include "graph/given_states.h"
#include "graph/graph_edit.h"
#include "graph/sublayer_flow.h"
#include "llama-graph.h"

#include <algorithm>
#include <cmath>

namespace ecl {

namespace {

// A tensor stays readable after the step.
void keep(ggml_tensor * t) {
    if (t != nullptr) {
        ggml_set_output(t);
    }
}

// 1 - H / log(width), H the entropy in nats of the softmax over the width with log(p + 1e-12), averaged over
// tokens (ConfLayers, arXiv 2604.14612).
ggml_tensor * confidence(ggml_context * ctx, ggml_tensor * output) {
    ggml_tensor * flat      = ggml_is_contiguous(output) ? output : ggml_cont(ctx, output);
    ggml_tensor * p         = ggml_soft_max(ctx, ggml_reshape_2d(ctx, flat, flat->ne[0], ggml_nrows(flat)));
    ggml_tensor * log_p     = ggml_log(ctx, ggml_scale_bias(ctx, p, 1.0f, 1e-12f));
    ggml_tensor * p_log_p   = ggml_sum_rows(ctx, ggml_mul(ctx, p, log_p));
    ggml_tensor * mean      = ggml_mean(ctx, ggml_reshape_1d(ctx, p_log_p, ggml_nelements(p_log_p)));
    const float   log_width = std::log(static_cast<float>(output->ne[0]));
    return ggml_scale_bias(ctx, mean, 1.0f / log_width, 1.0f);
}

void add_probe(llm_graph_result & res, graph_edit & edit, const sublayer_flow::join & join) {
    keep(join.before);
    keep(join.sum);
    for (sublayer_probe & probe : res.ecl.probes) {
        if (probe.il == join.il && probe.kind == join.kind) {
            probe.before = join.before;  // the join with the stream, after a join of parallel branches
            probe.after  = join.sum;
            return;
        }
    }
    const sublayer_probe probe = { join.il, join.kind, confidence(res.get_ctx(), join.output), join.before, join.sum };
    ggml_format_name(probe.confidence, "ecl_confidence_%s-%d", join.kind == sublayer::attention ? "attention" : "ffn",
                     join.il);
    keep(probe.confidence);
    edit.run_after(join.output, probe.confidence);
    res.ecl.probes.push_back(probe);
}

std::string keep_streams(llm_graph_result & res, graph_edit & edit, const sublayer_flow & flow, int32_t layer) {
    const bool all   = layer == graph_options::all_layers;
    const int  first = all ? 0 : layer + 1;
    const int  end   = all ? flow.last_layer() + 1 : layer + 2;
    for (int il = first; il < end; ++il) {
        ggml_tensor * stream = flow.stream_into(il);
        if (stream == nullptr) {
            return "the residual stream into layer " + std::to_string(il) + " was not found";
        }
        // A copy: with as many nodes as before, upstream would take the graph for one that it has laid out
        // already, in which the stream does not stay.
        ggml_tensor * copy = ggml_cont(res.get_ctx(), edit.resolve(stream));
        keep(copy);
        res.ecl.streams.push_back(copy);
        edit.run_last(copy);
    }
    return "";
}

}  // namespace

std::string change_sublayers(llm_graph_result & res, const graph_options & options) {
    graph_edit    edit(res);
    sublayer_flow flow(res, edit);
    std::string   why = flow.why_not_marked(options);
    if (!why.empty()) {
        return why;
    }
    edit.find_roots();
    given_states states(res, edit, options);  // looks at the graph before it is changed
    if (why = flow.run(); !why.empty()) {
        return why;
    }
    if (options.probe) {
        for (const sublayer_flow::join & join : flow.joins()) {
            add_probe(res, edit, join);
        }
        if (res.ecl.probes.empty()) {
            return "no sub-layer of it goes through the shared graph builders";
        }
    }
    if (why = flow.why_no_result(); !why.empty()) {
        return why;
    }
    if (options.states != nullptr) {
        if (why = states.put_in(flow.stream_into(0)); !why.empty()) {
            return why;
        }
    }
    if (options.bridges != nullptr) {
        if (why = put_bridges(res, edit, flow, *options.bridges); !why.empty()) {
            return why;
        }
    }
    if (options.stream_layer != graph_options::no_layer) {
        if (why = keep_streams(res, edit, flow, options.stream_layer); !why.empty()) {
            return why;
        }
    }
    edit.find_needed();
    if (options.states != nullptr) {
        if (why = states.why_not_enough(); !why.empty()) {
            return why;
        }
    }
    edit.rebuild();
    return "";
}

void keep_inputs(llm_graph_result & res, const graph_options & options) {
    graph_edit    edit(res);
    sublayer_flow flow(res, edit);
    if (!flow.run().empty()) {
        return;
    }
    const auto kept = [&](int32_t layer) -> ggml_tensor * {
        ggml_tensor * t = layer <= flow.last_layer() ? flow.stream_into(layer) : nullptr;
        if (t != nullptr) {
            keep(t);
            keep(t->view_src);
        }
        return t;
    };
    if (options.inner_layer != graph_options::no_layer) {
        res.ecl.inner = kept(options.inner_layer);
    }
    for (const int32_t layer : options.kept_layers) {
        res.ecl.kept.push_back(kept(layer));
    }
}

}  // namespace ecl
