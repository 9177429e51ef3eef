// What the functions of our C API return when they fail.
//
// Every code is negative, so that a function which returns a count or a token can return one too.
#ifndef ECL_STATUS_H
#define ECL_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

enum ecl_status {
    ECL_OK                  = 0,
    ECL_BAD_ARGUMENT        = -1,   // a null pointer, a number out of range, an array of the wrong size
    ECL_NO_ROOM             = -2,   // the KV cache has no room for the step; it is as it was before
    ECL_ABORTED             = -3,   // the context's abort callback ended the step
    ECL_FAILED              = -4,   // llama.cpp, or our own code, failed
    ECL_NO_MEMORY           = -5,   // memory ran out
    ECL_NO_MASK             = -6,   // the model cannot be served by layer masks, probes or early exits
    ECL_NO_DRAFT_VOCABULARY = -7,   // the model cannot be served by a draft vocabulary
    ECL_NO_NEXT_STATE       = -8,   // there is no next-state head, or the model cannot be served by one
    ECL_NO_TREE             = -9,   // trees of tokens cannot be decoded on this context
    ECL_NO_OUTPUT           = -10,  // the last step kept nothing for this output or place
    ECL_NO_TOKEN            = -11,  // the sampler selects no token
    ECL_FORBIDDEN           = -12,  // the grammar allows no token here
    ECL_NO_EXITS            = -13,  // there are no taught exits, or the model cannot be served by them
};

#ifdef __cplusplus
}
#endif

#endif
