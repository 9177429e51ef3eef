// What the functions of our C API share that work on a context.
#pragma once

#include "ecl.h"
#include "graph/hook.h"
#include "llama-context.h"
#include "status.h"

#include <cstdint>
#include <string>
#include <utility>

namespace ecl {

// Remembers why a call failed, for ecl_last_error; returns the code. Without memory for it, forgets the reason.
int32_t fail(llama_context * ctx, ecl_status status, const char * why) noexcept;

// What call() returns, with no error remembered; or the code of what it throws, and the error remembered.
template <class Call> int32_t guarded(llama_context * ctx, const Call & call) noexcept {
    if (ctx == nullptr) {
        return ECL_BAD_ARGUMENT;
    }
    ctx->ecl.error.clear();
    return guarded<int32_t>(call, [ctx](ecl_status status, const char * why) { return fail(ctx, status, why); });
}

// "architecture 'x' cannot be served by " and why, which names what it cannot be served by.
std::string unsupported(const llama_model & model, const std::string & why);

// Refuse, by an exception, what no call on this context can take.
void require_masks(const llama_context * ctx);
void require_layers(const llama_context * ctx, int32_t n_layer);
void require_tokens(const llama_context * ctx, const llama_token * tokens, int32_t n);
void require_place(llama_pos pos, llama_seq_id seq, int64_t n);
void require_outputs(const llama_context * ctx, ecl_outputs outputs, int32_t n);
void require_ubatch(const llama_context * ctx, int64_t n);

// The logits of an output (as llama_get_logits_ith counts): [n_vocab]. Throws if none were kept.
const float * logits_of(llama_context * ctx, int32_t i);

int32_t n_vocab_of(const llama_context * ctx);
int32_t n_layer_of(const llama_context * ctx);
int32_t n_embd_of(const llama_context * ctx);

// Sets options for one scope.
class scoped_options {
  public:
    scoped_options(llama_context * ctx, graph_options options) :
        ctx(ctx), before(std::exchange(ctx->ecl.options, std::move(options))) {}
    ~scoped_options() { ctx->ecl.options = std::move(before); }
    scoped_options(const scoped_options &)             = delete;
    scoped_options & operator=(const scoped_options &) = delete;

  private:
    llama_context * ctx;
    graph_options   before;
};

}  // namespace ecl
