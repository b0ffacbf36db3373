// Attention: softmax(scale * q k') v per head, grouped key/value heads, causal or not, in float or in products of
// 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nas/level.h"
#include "nas/norm.h"
#include "nas/part.h"

namespace nas {

constexpr std::int64_t kFewQueries = 4;

// A tensor of (tokens, heads, head_dim) in any order of the first two: element (t, h, d) lies at data[t * token + h * head + d].
struct HeadsView {
  const float* data = nullptr;
  std::int64_t token = 0;
  std::int64_t head = 0;
};

// Query i sees keys 0..past + i with `causal`, else all; past = keys - queries counts the keys that stood in the cache.
// `heads` is a multiple of `kv_heads`: query head h reads key/value head h / (heads / kv_heads).
//
// With `exact` or fewer queries than kFewQueries, as a decoder has per token, everything is float. Else queries (each with a
// scale of its own), keys and values (one scale for all) are rounded to as many of 16 bits as keep sums of their products in
// 32, and exp(score - largest score) likewise; products are summed exactly.
struct AttentionArgs {
  std::int64_t queries = 0;
  std::int64_t keys = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  HeadsView q, k, v;
  float scale = 1.0F;
  bool causal = false;
  bool exact = false;
  // Of attention_units(), which together are the whole: those that are computed. Units of a head of keys and values are
  // neighbours.
  Span units = {0, INT64_MAX};
  Output y;  // element (t, h, d) at t * y.stride + h * head_dim + d
  void* scratch = nullptr;  // attention_scratch_bytes, aligned to 64 bytes
};

struct AttentionKernels {
  Level level;
  void (*attention)(const AttentionArgs& args);
};

const AttentionKernels& attention_kernels(Level level);

// What attention can be divided into.
std::int64_t attention_units(const AttentionArgs& args);

std::size_t attention_scratch_bytes(const AttentionArgs& args);

void attention(const AttentionArgs& args, Level level);

}  // namespace nas
