// Attention in float, block by block of queries.
#pragma once

#include "shared.h"

namespace {

using nas::FloatScratch;
using nas::kFloatQueries;

void pack_keys(const AttentionArgs& args, std::int64_t kv, float* panels) {
  for (std::int64_t first = 0; first < args.keys; first += kLanes, panels += args.head_dim * kLanes) {
    const std::int64_t here = args.keys - first < kLanes ? args.keys - first : kLanes;
    const float* key = args.k.data + kv * args.k.head + first * args.k.token;
    for (std::int64_t j = 0; j < kLanes; ++j) {
      for (std::int64_t d = 0; d < args.head_dim; ++d) panels[d * kLanes + j] = j < here ? key[j * args.k.token + d] : 0.0F;
    }
  }
}

NAS_WHOLE void pack_values(const AttentionArgs& args, std::int64_t kv, float* rows) {
  const std::int64_t width = nas::whole_vectors(args.head_dim);
  for (std::int64_t j = 0; j < args.keys; ++j, rows += width) {
    const float* value = args.v.data + kv * args.v.head + j * args.v.token;
    each_vector(args.head_dim, [&](std::int64_t i, std::int64_t lanes) { store(rows + i, floats_from(value, i, lanes)); });
  }
}

// A register of floats, and how wide a block of sums is. Each sum runs over one index in order, so that neither changes a
// bit.
#if defined(__AVX512F__)
using Piece = __m512;
constexpr int kWide = 2;  // vectors of 16 per query
inline Piece piece_from(const float* p) { return _mm512_loadu_ps(p); }
inline Piece piece_of(float value) { return _mm512_set1_ps(value); }
inline Piece fused_piece(Piece a, Piece b, Piece c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__FMA__)
using Piece = __m256;
constexpr int kWide = 1;
inline Piece piece_from(const float* p) { return _mm256_loadu_ps(p); }
inline Piece piece_of(float value) { return _mm256_set1_ps(value); }
inline Piece fused_piece(Piece a, Piece b, Piece c) { return _mm256_fmadd_ps(a, b, c); }
#elif defined(__aarch64__)
using Piece = float32x4_t;
constexpr int kWide = 1;
inline Piece piece_from(const float* p) { return vld1q_f32(p); }
inline Piece piece_of(float value) { return vdupq_n_f32(value); }
inline Piece fused_piece(Piece a, Piece b, Piece c) { return vfmaq_f32(c, a, b); }
#else
using Piece = float;
constexpr int kWide = 1;
inline Piece piece_from(const float* p) { return *p; }
inline Piece piece_of(float value) { return value; }
inline Piece fused_piece(Piece a, Piece b, Piece c) { return std::fma(a, b, c); }
#endif
constexpr std::int64_t kPieceLanes = sizeof(Piece) / sizeof(float), kPieces = kLanes / kPieceLanes;

// out[q][i] = sum over j of factors[q][j] * rows[j][i] for kFloatQueries rows of factors and `Vectors` times 16 columns,
// which begin `apart` floats from each other.
template <int Vectors>
inline void block_of_sums(const float* const* factors, const float* rows, std::int64_t stride, std::int64_t apart,
                          std::int64_t count, float* out, std::int64_t out_stride) {
  constexpr std::int64_t each = Vectors * kPieces;
  Piece sums[kFloatQueries * each];
#pragma GCC unroll 32
  for (Piece& sum : sums) sum = piece_of(0.0F);
  for (std::int64_t j = 0; j < count; ++j, rows += stride) {
    Piece row[each];
#pragma GCC unroll 32
    for (std::int64_t i = 0; i < each; ++i) row[i] = piece_from(rows + i / kPieces * apart + i % kPieces * kPieceLanes);
#pragma GCC unroll 32
    for (std::int64_t q = 0; q < kFloatQueries; ++q) {
      const Piece factor = piece_of(factors[q][j]);
#pragma GCC unroll 32
      for (std::int64_t i = 0; i < each; ++i) sums[q * each + i] = fused_piece(factor, row[i], sums[q * each + i]);
    }
  }
#pragma GCC unroll 32
  for (std::int64_t q = 0; q < kFloatQueries; ++q, out += out_stride) {
#pragma GCC unroll 32
    for (std::int64_t i = 0; i < each; ++i) store(out + i * kPieceLanes, sums[q * each + i]);
  }
}

// The same for any number of vectors of 16 columns.
inline void sums_of_block(const float* const* factors, const float* rows, std::int64_t stride, std::int64_t apart,
                          std::int64_t vectors, std::int64_t count, float* out, std::int64_t out_stride) {
  std::int64_t v = 0;
  for (; v + kWide <= vectors; v += kWide) {
    block_of_sums<kWide>(factors, rows + v * apart, stride, apart, count, out + v * kLanes, out_stride);
  }
  for (; v < vectors; ++v) block_of_sums<1>(factors, rows + v * apart, stride, apart, count, out + v * kLanes, out_stride);
}

// exp(factor * (score - largest)) in place, zeros up to `end`, and their sum.
NAS_WHOLE float weigh_in_floats(float* scores, std::int64_t seen, std::int64_t end, float factor) {
  const float top = largest_of(scores, seen);
  Floats total = {};
  each_vector(seen, [&](std::int64_t i, std::int64_t lanes) {
    const Floats power = kept(exp_of_negative((load<Floats>(scores + i) - top) * factor), lanes);
    store(scores + i, power);
    total += power;
  });
  for (std::int64_t i = nas::whole_vectors(seen); i < end; i += kLanes) store(scores + i, Floats{});
  return sum_of(total);
}

NAS_WHOLE void float_block(const AttentionArgs& args, const FloatScratch& s, std::int64_t head, std::int64_t first,
                 std::int64_t count, const Writer& write) {
  const std::int64_t width = nas::whole_vectors(args.head_dim), seen = visible(args, first + count - 1);
  const std::int64_t keys = nas::whole_vectors(seen);
  const float *queries[kFloatQueries], *weights[kFloatQueries];
  for (std::int64_t q = 0; q < kFloatQueries; ++q) {
    // A block that is not full repeats its last query.
    queries[q] = args.q.data + head * args.q.head + (first + (q < count ? q : count - 1)) * args.q.token;
    weights[q] = s.scores + q * keys;
  }
  sums_of_block(queries, s.keys, kLanes, args.head_dim * kLanes, keys / kLanes, args.head_dim, s.scores, keys);
  float totals[kFloatQueries];
  for (std::int64_t q = 0; q < count; ++q) {
    totals[q] = weigh_in_floats(s.scores + q * keys, visible(args, first + q), keys, args.scale);
  }
  sums_of_block(weights, s.values, width, kLanes, width / kLanes, seen, s.mixed, width);
  for (std::int64_t q = 0; q < count; ++q) {
    const bool none = visible(args, first + q) == 0;
    each_vector(args.head_dim, [&](std::int64_t i, std::int64_t lanes) {
      const Floats value = load<Floats>(s.mixed + q * width + i) / totals[q];
      write(first + q, head * args.head_dim + i, none ? Floats{} : value, lanes);
    });
  }
}

void attention_in_float_blocks(const AttentionArgs& args) {
  const FloatScratch s = nas::divide_float_scratch(args, args.scratch);
  const Writer write(args.y);
  each_block(
      args, kFloatQueries,
      [&](std::int64_t kv) {
        pack_keys(args, kv, s.keys);
        pack_values(args, kv, s.values);
      },
      [&](std::int64_t head, std::int64_t first, std::int64_t count) { float_block(args, s, head, first, count, write); });
}

}  // namespace
