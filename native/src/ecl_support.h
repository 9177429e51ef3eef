// What the functions of our C API share.
#pragma once

#include "ecl_graph.h"
#include "llama-context.h"

#include <cstdint>
#include <string>
#include <utility>

namespace ecl {

// Remembers why a call failed; returns its status.
inline int32_t fail(llama_context * ctx, const std::string & why, int32_t code = -1) {
    ctx->ecl.error = why;
    return code;
}

// "architecture 'x' cannot be served by " and why, which names what it cannot be served by.
std::string unsupported(const llama_model & model, const std::string & why);

// Empty if masks can be set on this model as far as can be told without its graph.
std::string why_no_masks(const llama_model & model);

// Sets options for one scope.
class scoped_options {
  public:
    scoped_options(llama_context * ctx, graph_options options) : ctx(ctx), before(ctx->ecl.options) {
        ctx->ecl.options = std::move(options);
    }
    ~scoped_options() { ctx->ecl.options = before; }
    scoped_options(const scoped_options &)             = delete;
    scoped_options & operator=(const scoped_options &) = delete;

  private:
    llama_context * ctx;
    graph_options   before;
};

}  // namespace ecl
