// What all ways to attend share.
#pragma once

#include "../lanes.h"
#include "../writer.h"
#include "layout.h"

namespace {

using nas::AttentionArgs;

inline std::int64_t visible(const AttentionArgs& args, std::int64_t query) {
  if (!args.causal) return args.keys;
  const std::int64_t seen = args.keys - args.queries + query + 1;
  return seen < 0 ? 0 : seen;
}

inline float largest_of(const float* scores, std::int64_t seen) {
  Floats largest = splat(-INFINITY);
  each_vector(seen, [&](std::int64_t i, std::int64_t lanes) {
    const Floats value = floats_from(scores, i, lanes);
    largest = larger(lanes == kLanes ? value : value + (kept(splat(1.0F), lanes) - 1.0F) * 1e38F, largest);
  });
  return max_of(largest);
}

// Calls start(kv) once for each head of keys and values, then block(head, first, count) for each of its blocks of at most
// `most` queries, as far as they are among args.units.
template <class Start, class Block>
void each_block(const AttentionArgs& args, std::int64_t most, Start start, Block block) {
  const std::int64_t of_head = nas::units_of_head(args), of_kv = of_head * (args.heads / args.kv_heads);
  for (std::int64_t kv = 0; kv < args.kv_heads; ++kv) {
    const std::int64_t begin = args.units.first > kv * of_kv ? args.units.first : kv * of_kv;
    const std::int64_t end = args.units.end < (kv + 1) * of_kv ? args.units.end : (kv + 1) * of_kv;
    if (begin >= end) continue;
    start(kv);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t first = unit % of_head * most, left = args.queries - first;
      block(unit / of_head, first, left < most ? left : most);
    }
  }
}

}  // namespace
