// How the scratch memory of attention is divided.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nas/attention.h"

namespace nas {

// Queries that are computed at once in float: their sums fill the registers.
constexpr std::int64_t kFloatQueries = 6;

// Queries that are computed at once in 16 bits.
constexpr std::int64_t kShortQueries = 6;

// Values are rounded to this magnitude, and a query's weights add up to less than kMostOfWeights: 2^31 is more than their
// product, even where roundings and the floats that the weights come from err by a hundredth.
constexpr std::int32_t kMostOfValues = 8191;
constexpr float kMostOfWeights = 258048.0F;

// With more keys than these, half a unit each would be more than that.
constexpr std::int64_t kMostShortKeys = 1 << 18;

constexpr std::int64_t whole_pairs(std::int64_t count) { return (count + 1) / 2 * 2; }

// Rows of whole vectors of 16 floats.
constexpr std::int64_t whole_vectors(std::int64_t count) { return (count + 15) / 16 * 16; }

// Hands out aligned pieces of a memory, or counts them where there is none.
class Pieces {
 public:
  explicit Pieces(void* memory) : memory_(static_cast<std::uint8_t*>(memory)) {}
  template <class T>
  void take(T*& pointer, std::int64_t count) {
    pointer = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
  }
  std::size_t bytes() const { return used_; }

 private:
  std::uint8_t* memory_;
  std::size_t used_ = 0;
};

// Attention of many queries in float.
struct FloatScratch {
  float* keys;    // panels of 16 keys: head_dim x 16
  float* values;  // keys x whole vectors of head_dim
  float* scores;  // block x whole vectors of keys
  float* mixed;   // block x whole vectors of head_dim
  std::size_t bytes;
};

inline FloatScratch divide_float_scratch(const AttentionArgs& args, void* memory) {
  FloatScratch s = {};
  Pieces pieces(memory);
  pieces.take(s.keys, whole_vectors(args.keys) * args.head_dim);
  pieces.take(s.values, whole_vectors(args.head_dim) * args.keys);
  pieces.take(s.scores, whole_vectors(args.keys) * kFloatQueries);
  pieces.take(s.mixed, whole_vectors(args.head_dim) * kFloatQueries);
  s.bytes = pieces.bytes();
  return s;
}

// Attention of many queries in 16 bits. `values` and `keys` lie by pairs, see short_blocks.h.
struct ShortScratch {
  std::int16_t* keys;     // panels of 16 keys: whole pairs of head_dim x 16
  std::int16_t* values;   // whole pairs of keys x whole vectors of head_dim
  std::int16_t* rows;     // 16 x row: keys before they are packed, later queries
  std::int16_t* weights;  // block x whole vectors of keys
  std::int32_t* scores;   // block x whole vectors of keys, later floats
  std::int32_t* mixed;    // block x whole vectors of head_dim
  std::int64_t row;       // head_dim, up to whole vectors of 16 pairs
  std::size_t bytes;
};

inline ShortScratch divide_short_scratch(const AttentionArgs& args, void* memory) {
  const std::int64_t keys = whole_vectors(args.keys), width = whole_vectors(args.head_dim);
  ShortScratch s = {};
  s.row = (args.head_dim + 31) / 32 * 32;
  Pieces pieces(memory);
  pieces.take(s.keys, keys * whole_pairs(args.head_dim));
  pieces.take(s.values, whole_pairs(args.keys) * width);
  pieces.take(s.rows, 16 * s.row);
  pieces.take(s.weights, kShortQueries * keys);
  pieces.take(s.scores, kShortQueries * keys);
  pieces.take(s.mixed, kShortQueries * width);
  s.bytes = pieces.bytes();
  return s;
}

// Internal linkage: included by files for one ISA each.
namespace {

[[maybe_unused]] inline bool one_by_one(const AttentionArgs& args) { return args.queries < kFewQueries; }

[[maybe_unused]] inline bool in_floats(const AttentionArgs& args) { return args.exact || args.keys > kMostShortKeys; }

// A unit is a block of queries of one head, or a query where there are few.
[[maybe_unused]] inline std::int64_t units_of_head(const AttentionArgs& args) {
  const std::int64_t block = one_by_one(args) ? 1 : in_floats(args) ? kFloatQueries : kShortQueries;
  return (args.queries + block - 1) / block;
}

}  // namespace

}  // namespace nas
