#include "graph/given_states.h"

#include "ggml-backend.h"
#include "ggml.h"
#include "graph/graph_edit.h"
#include "llama-graph.h"

#include <cstdio>
#include <memory>

namespace ecl {

namespace {

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

}  // namespace

given_states::given_states(llm_graph_result & res, graph_edit & edit, const graph_options & options) :
    res(res), edit(edit), options(options) {
    if (options.states == nullptr) {
        return;
    }
    for (const ggml_tensor * node : edit.order()) {
        for (const ggml_tensor * src : node->src) {
            if (src != nullptr) {
                users[src].push_back(node);
            }
        }
    }
}

std::string given_states::put_in(ggml_tensor * stream) {
    if (stream == nullptr) {
        return "the residual stream into its first layer was not found";
    }
    if (stream->type != GGML_TYPE_F32 || !ggml_is_contiguous(stream) ||
        ggml_nelements(stream) != static_cast<int64_t>(options.states->size())) {
        return "its residual stream is not one vector a token";
    }
    ggml_tensor * states = ggml_new_tensor_2d(res.get_ctx(), GGML_TYPE_F32, stream->ne[0], stream->ne[1]);
    ggml_set_name(states, "ecl_states");
    ggml_set_input(states);
    res.add_input(std::make_unique<input_states>(states, *options.states));
    embeddings = stream;
    edit.replace(stream, states);
    for (ggml_tensor * node : edit.order()) {
        if (node != stream) {
            edit.resolve_operands(node);
        }
    }
    return "";
}

std::string given_states::why_not_enough() const {
    const auto & needed = edit.needed();
    if (res.t_inp_tokens != nullptr && needed.count(res.t_inp_tokens) != 0) {
        return "more than the residual stream passes from layer to layer";
    }
    if (!options.drops(0, sublayer::attention) || !options.drops(0, sublayer::ffn)) {
        return "";
    }
    if (const auto found = users.find(embeddings); found != users.end()) {
        for (const ggml_tensor * user : found->second) {
            if (needed.count(user) != 0 && !edit.is_replaced(user) && !is_output_selection(user)) {
                return "more than its first layer reads the tokens' embeddings";
            }
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

}  // namespace ecl
