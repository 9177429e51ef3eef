#include "graph/draft_head.h"

#include "ggml-backend-impl.h"
#include "ggml.h"
#include "llama-graph.h"
#include "llama-model.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ecl {

namespace {

// Kernels that take several rows at once (AMX: 32) must not meet a remainder.
constexpr int64_t row_multiple = 32;

bool readable(const ggml_tensor * t) {
    return t->buffer != nullptr && t->buffer->iface.get_tensor != nullptr;
}

const ggml_tensor * lm_head_of(const llama_model & model) {
    return model.output != nullptr ? model.output : model.tok_embd;
}

bool can_multiply(ggml_context * ctx, ggml_tensor * rows) {
    ggml_backend_dev_t device = ggml_backend_buft_get_device(rows->buffer->buft);
    if (device == nullptr) {
        return true;  // plain host memory
    }
    ggml_tensor * x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, rows->ne[0], 1);
    return ggml_backend_dev_supports_op(device, ggml_mul_mat(ctx, rows, x));
}

void copy_rows(const ggml_tensor * source, const draft_head & head) {
    const size_t         row_bytes = source->nb[1];
    std::vector<uint8_t> bytes(ggml_nbytes(head.rows));
    const auto &         tokens = head.tokens;
    for (size_t i = 0, next; i < tokens.size(); i = next) {
        next = i + 1;
        while (next < tokens.size() && tokens[next] == tokens[next - 1] + 1) {
            ++next;
        }
        ggml_backend_tensor_get(source, bytes.data() + i * row_bytes, tokens[i] * row_bytes, (next - i) * row_bytes);
    }
    ggml_backend_tensor_set(head.rows, bytes.data(), 0, bytes.size());
}

// Whether an operation treats every logit alike, whatever their number.
bool is_elementwise(const ggml_tensor * t) {
    switch (t->op) {
        case GGML_OP_SCALE:
        case GGML_OP_UNARY:
        case GGML_OP_CLAMP:
            return true;
        case GGML_OP_MUL:
        case GGML_OP_DIV:
            return t->src[1]->ne[0] == 1;
        default:
            return false;
    }
}

void set_width(ggml_tensor * t, int64_t width) {
    t->ne[0] = width;
    t->nb[1] = t->nb[0] * width;
    t->nb[2] = t->nb[1] * t->ne[1];
    t->nb[3] = t->nb[2] * t->ne[2];
}

}  // namespace

// Some CPU buffers hold repacked rows that cannot be read back; a head that is tied to the token embeddings is
// there a second time.
const ggml_tensor * readable_lm_head(const llama_model & model) {
    const ggml_tensor * head = lm_head_of(model);
    const ggml_tensor * embd = model.tok_embd;
    if (head == nullptr || readable(head)) {
        return head;
    }
    const bool tied = embd != nullptr && std::strcmp(embd->name, head->name) == 0 && embd->type == head->type;
    return tied && readable(embd) ? embd : nullptr;
}

refusal make_draft_head(const llama_model & model, std::vector<int32_t> tokens, std::unique_ptr<draft_head> & made) {
    const ggml_tensor * full   = lm_head_of(model);
    const ggml_tensor * source = readable_lm_head(model);
    if (source == nullptr || full->view_src != nullptr || ggml_n_dims(full) != 2) {
        return { ECL_NO_DRAFT_VOCABULARY,
                 "a draft vocabulary: " +
                     (full == nullptr || full->buffer == nullptr ?
                          std::string("it has no LM head") :
                          std::string("the rows of its LM head cannot be read back from the buffer ") +
                              ggml_backend_buffer_name(full->buffer)) };
    }
    std::sort(tokens.begin(), tokens.end());
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    if (tokens.empty() || tokens.front() < 0 || tokens.back() >= full->ne[1]) {
        return { ECL_NO_DRAFT_VOCABULARY, "a draft vocabulary with tokens outside its own vocabulary of " +
                                              std::to_string(full->ne[1]) };
    }
    const auto    n_tokens = static_cast<int64_t>(tokens.size());
    const int64_t n_rows   = (n_tokens + row_multiple - 1) / row_multiple * row_multiple;
    auto          head     = std::make_unique<draft_head>();
    head->tokens           = std::move(tokens);
    head->full             = full;
    head->meta.reset(ggml_init({ 3 * ggml_tensor_overhead(), nullptr, true }));  // the rows and can_multiply's two
    head->rows = ggml_new_tensor_2d(head->meta.get(), full->type, full->ne[0], n_rows);
    ggml_set_name(head->rows, "ecl_draft_head");
    head->buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(head->meta.get(), full->buffer->buft));
    if (head->buffer == nullptr) {
        return { ECL_NO_DRAFT_VOCABULARY, "a draft vocabulary of " + std::to_string(n_tokens) +
                                              " tokens: there is no memory for its rows" };
    }
    ggml_backend_buffer_set_usage(head->buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    if (!can_multiply(head->meta.get(), head->rows)) {
        return { ECL_NO_DRAFT_VOCABULARY, std::string("a draft vocabulary: the buffer ") +
                                              ggml_backend_buffer_name(full->buffer) + " takes no smaller LM head" };
    }
    copy_rows(source, *head);
    made = std::move(head);
    return {};
}

std::string shorten_logits(llm_graph_result & res, const draft_head & head) {
    std::vector<ggml_tensor *> narrowed;
    ggml_tensor *              t = res.t_logits;
    while (t != nullptr && t->op != GGML_OP_MUL_MAT) {
        if (!is_elementwise(t)) {
            return std::string("its logits go through the operation ") + ggml_op_name(t->op) +
                   ", which takes all of them";
        }
        narrowed.push_back(t);
        t = t->src[0];
    }
    if (t == nullptr || t->src[0] != head.full) {
        return "its logits do not come from its LM head alone";
    }
    narrowed.push_back(t);
    t->src[0] = head.rows;
    for (ggml_tensor * each : narrowed) {
        set_width(each, head.rows->ne[1]);
    }
    ggml_build_forward_expand(res.get_gf(), head.rows);
    return "";
}

}  // namespace ecl
