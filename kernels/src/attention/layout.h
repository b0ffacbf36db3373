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

// Queries that are computed at once in float: their sums fill the registers.
constexpr std::int64_t kFloatQueries = 6;

// Rows of whole vectors of 16 floats.
constexpr std::int64_t whole_vectors(std::int64_t count) { return (count + 15) / 16 * 16; }

// Attention of many queries in float.
struct FloatScratch {
  float* keys;    // panels of 16 keys: head_dim x 16
  float* values;  // keys x whole vectors of head_dim
  float* scores;  // block x whole vectors of keys
  float* mixed;   // block x whole vectors of head_dim
  std::size_t bytes;
};

inline FloatScratch divide_float_scratch(const AttentionArgs& args, void* memory) {
  const std::int64_t keys = whole_vectors(args.keys) * args.head_dim;
  const std::int64_t values = whole_vectors(args.head_dim) * args.keys;
  const std::int64_t scores = whole_vectors(args.keys) * kFloatQueries;
  const std::int64_t mixed = whole_vectors(args.head_dim) * kFloatQueries;
  FloatScratch s = {};
  if (memory != nullptr) {
    s.keys = static_cast<float*>(memory);
    s.values = s.keys + keys;
    s.scores = s.values + values;
    s.mixed = s.scores + scores;
  }
  s.bytes = std::size_t(keys + values + scores + mixed) * sizeof(float);
  return s;
}

// Internal linkage: included by files for one ISA each.
namespace {

[[maybe_unused]] inline bool one_by_one(const AttentionArgs& args) { return args.queries < kFewQueries; }

// A unit is a block of queries of one head, or a query where there are few.
[[maybe_unused]] inline std::int64_t units_of_head(const AttentionArgs& args) {
  const std::int64_t block = one_by_one(args) ? 1 : args.exact ? kFloatQueries : kQueryBlock;
  return (args.queries + block - 1) / block;
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
