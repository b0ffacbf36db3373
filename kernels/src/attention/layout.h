// How the scratch memory of attention is divided.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "nas/attention.h"
#include "nas/gemm.h"

namespace nas {

// Queries per block: whole tiles of every gemm, and scores that stay in the cache.
constexpr std::int64_t kQueryBlock = 24;

// Internal linkage: included by files for one ISA each.
namespace {

[[maybe_unused]] inline bool in_floats(const AttentionArgs& args) { return args.exact || args.queries < kFewQueries; }

// A unit is a block of queries of one head, or in float a query.
[[maybe_unused]] inline std::int64_t units_of_head(const AttentionArgs& args) {
  return in_floats(args) ? args.queries : (args.queries + kQueryBlock - 1) / kQueryBlock;
}

}  // namespace

struct AttentionScratch {
  std::int8_t* rounded_kv;  // keys x head_dim
  std::uint8_t* packed_k;
  std::uint8_t* packed_v;
  std::int8_t* rounded_q;  // block x head_dim
  std::uint8_t* weights;   // block x keys
  float* scores;           // block x keys
  float* result;           // block x head_dim
  float* k_scale;          // keys
  float* v_scale;          // head_dim
  float* q_scale;          // block
  float* total;            // block
  std::size_t bytes;
};

inline AttentionScratch divide_scratch(const AttentionArgs& args, const GemmKernel& gemm, void* memory) {
  std::size_t used = 0;
  const auto take = [&](auto*& pointer, std::size_t bytes) {
    if (memory != nullptr) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(static_cast<std::uint8_t*>(memory) + used);
    }
    used += (bytes + 63) / 64 * 64;
  };
  const auto count = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  AttentionScratch s = {};
  take(s.rounded_kv, count(args.keys * args.head_dim));
  take(s.packed_k, gemm.packed_bytes(args.keys, args.head_dim));
  take(s.packed_v, gemm.packed_bytes(args.head_dim, args.keys));
  take(s.rounded_q, count(kQueryBlock * args.head_dim));
  take(s.weights, count(kQueryBlock * args.keys));
  take(s.scores, count(kQueryBlock * args.keys) * sizeof(float));
  take(s.result, count(kQueryBlock * args.head_dim) * sizeof(float));
  take(s.k_scale, count(args.keys) * sizeof(float));
  take(s.v_scale, count(args.head_dim) * sizeof(float));
  take(s.q_scale, count(kQueryBlock) * sizeof(float));
  take(s.total, count(kQueryBlock) * sizeof(float));
  s.bytes = used;
  return s;
}

}  // namespace nas
