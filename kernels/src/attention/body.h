// Attention for one instruction set, that of the file that includes this.
#pragma once

#include "float_blocks.h"
#include "one_query.h"
#include "short_blocks.h"

namespace {

void attention_on(const AttentionArgs& args) {
  if (nas::one_by_one(args)) {
    attention_in_floats(args);
  } else if (nas::in_floats(args)) {
    attention_in_float_blocks(args);
  } else {
    attention_in_shorts(args);
  }
}

}  // namespace
