// Attention for one instruction set, that of the file that includes this.
#pragma once

#include "../lanes.h"
#include "../writer.h"
#include "layout.h"

namespace {

using nas::AttentionArgs;
using nas::AttentionScratch;

inline Floats magnitude(Floats x) { return larger(x, -x); }

// Rounds `rows` rows to 8 bits, each with its own scale; a row of zeros gets the scale 0.
void round_rows(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width, std::int8_t* out,
                float* scale) {
  for (std::int64_t row = 0; row < rows; ++row, x += stride, out += width) {
    Floats largest = {};
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      largest = larger(magnitude(floats_from(x, i, lanes)), largest);
    });
    const float top = max_of(largest);
    scale[row] = top / 127.0F;
    const float inverse = top > 1e-30F ? 127.0F / top : 0.0F;
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      bytes_to(out, i, rounded(within(floats_from(x, i, lanes) * inverse, -127, 127)), lanes);
    });
  }
}

// The same by columns.
void round_columns(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width, std::int8_t* out,
                   float* scale) {
  each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
    Floats largest = {};
    for (std::int64_t row = 0; row < rows; ++row) {
      largest = larger(magnitude(floats_from(x + row * stride, i, lanes)), largest);
    }
    const Floats steps = largest / 127.0F;
    lanes == kLanes ? store(scale + i, steps) : store_some(scale + i, steps, lanes);
    const Floats inverse = largest > splat(1e-30F) ? 127.0F / largest : Floats{};
    for (std::int64_t row = 0; row < rows; ++row) {
      const Floats value = floats_from(x + row * stride, i, lanes) * inverse;
      bytes_to(out + row * width, i, rounded(within(value, -127, 127)), lanes);
    }
  });
}

inline std::int64_t visible(const AttentionArgs& args, std::int64_t query) {
  if (!args.causal) return args.keys;
  const std::int64_t seen = args.keys - args.queries + query + 1;
  return seen < 0 ? 0 : seen;
}

// exp(factor * (score - largest)) as 0..255, and the inverse of its sum.
float weigh(const float* scores, std::int64_t seen, std::int64_t keys, float factor, std::uint8_t* weights) {
  Floats largest = splat(-INFINITY);
  each_vector(seen, [&](std::int64_t i, std::int64_t lanes) {
    const Floats value = floats_from(scores, i, lanes);
    largest = larger(lanes == kLanes ? value : value + (kept(splat(1.0F), lanes) - 1.0F) * 1e38F, largest);
  });
  const float top = max_of(largest);
  Ints total = {};
  each_vector(seen, [&](std::int64_t i, std::int64_t lanes) {
    const Floats power = exp_of_negative((floats_from(scores, i, lanes) - top) * factor);
    const Ints weight = rounded(kept(power, lanes) * 255.0F);
    total += weight;
    bytes_to(weights, i, weight, lanes);
  });
  std::memset(weights + seen, 0, static_cast<std::size_t>(keys - seen));
  std::int64_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += total[i];
  return sum > 0 ? 1.0F / static_cast<float>(sum) : 0.0F;
}

void write_head(const Writer& write, std::int64_t token, std::int64_t first, const float* values, float factor,
                std::int64_t width) {
  each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
    write(token, first + i, floats_from(values, i, lanes) * factor, lanes);
  });
}

void block_of_queries(const AttentionArgs& args, const nas::GemmKernel& gemm, const AttentionScratch& s,
                      std::int64_t head, std::int64_t first, std::int64_t count) {
  const float* q = args.q.data + head * args.q.head + first * args.q.token;
  round_rows(q, args.q.token, count, args.head_dim, s.rounded_q, s.q_scale);
  nas::GemmArgs product;
  product.m = count, product.n = args.keys, product.k = args.head_dim;
  product.a = s.rounded_q, product.lda = args.head_dim, product.a_signed = true;
  product.packed = s.packed_k;
  product.c = s.scores, product.ldc = args.keys;
  product.epilogue.output = nas::GemmOutput::f32;
  product.epilogue.scale = s.k_scale;
  gemm.run(product);
  for (std::int64_t i = 0; i < count; ++i) {
    s.total[i] = weigh(s.scores + i * args.keys, visible(args, first + i), args.keys, s.q_scale[i] * args.scale,
                       s.weights + i * args.keys);
  }
  product.n = args.head_dim, product.k = args.keys;
  product.a = s.weights, product.lda = args.keys, product.a_signed = false;
  product.packed = s.packed_v;
  product.c = s.result, product.ldc = args.head_dim;
  product.epilogue.scale = s.v_scale;
  gemm.run(product);
  const Writer write(args.y);
  for (std::int64_t i = 0; i < count; ++i) {
    write_head(write, first + i, head * args.head_dim, s.result + i * args.head_dim, s.total[i], args.head_dim);
  }
}

void attention_in_bytes(const AttentionArgs& args, const nas::GemmKernel& gemm, const AttentionScratch& s) {
  const std::int64_t of_head = nas::units_of_head(args), of_kv = of_head * (args.heads / args.kv_heads);
  for (std::int64_t kv = 0; kv < args.kv_heads; ++kv) {
    const std::int64_t begin = args.units.first > kv * of_kv ? args.units.first : kv * of_kv;
    const std::int64_t end = args.units.end < (kv + 1) * of_kv ? args.units.end : (kv + 1) * of_kv;
    if (begin >= end) continue;
    round_rows(args.k.data + kv * args.k.head, args.k.token, args.keys, args.head_dim, s.rounded_kv, s.k_scale);
    gemm.pack(s.rounded_kv, args.head_dim, 1, args.keys, args.head_dim, s.packed_k);
    round_columns(args.v.data + kv * args.v.head, args.v.token, args.keys, args.head_dim, s.rounded_kv, s.v_scale);
    gemm.pack(s.rounded_kv, 1, args.head_dim, args.head_dim, args.keys, s.packed_v);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t first = unit % of_head * nas::kQueryBlock, left = args.queries - first;
      block_of_queries(args, gemm, s, unit / of_head, first, left < nas::kQueryBlock ? left : nas::kQueryBlock);
    }
  }
}

// --- Few queries: all in float.

// Sums of 16 vectors, one per lane: pairs are added lane by lane in four rounds.
inline Floats sums_of_16(Floats* x) {
  const Ints even = {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30};
  const Ints odd = {1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31};
  const Ints even2 = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29};
  const Ints odd2 = {2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31};
  const Ints even4 = {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27};
  const Ints odd4 = {4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31};
  const Ints even8 = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
  const Ints odd8 = {8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31};
  for (int i = 0; i < 16; i += 2) x[i / 2] = __builtin_shuffle(x[i], x[i + 1], even) + __builtin_shuffle(x[i], x[i + 1], odd);
  for (int i = 0; i < 8; i += 2) x[i / 2] = __builtin_shuffle(x[i], x[i + 1], even2) + __builtin_shuffle(x[i], x[i + 1], odd2);
  for (int i = 0; i < 4; i += 2) x[i / 2] = __builtin_shuffle(x[i], x[i + 1], even4) + __builtin_shuffle(x[i], x[i + 1], odd4);
  return __builtin_shuffle(x[0], x[1], even8) + __builtin_shuffle(x[0], x[1], odd8);
}

// Keys and values of a long cache come from the third level, where the hardware stops at each page; so they are asked for
// some rows ahead.
constexpr std::int64_t kRowsAhead = 32;

// Products of a query's 16 values, or fewer, with those of `Keys` keys, added to their sums.
template <int Keys>
inline void add_keys(const float* q, const float* k, std::int64_t stride, std::int64_t i, std::int64_t lanes, Floats* sums) {
  const Floats value = floats_from(q, i, lanes);
#pragma GCC unroll 16
  for (int r = 0; r < Keys; ++r) {
    __builtin_prefetch(k + (r + kRowsAhead) * stride + i);
    sums[r] += value * floats_from(k + r * stride, i, lanes);
  }
}

// scores[j] = q . k[j]
void dot_keys(const float* q, const float* k, std::int64_t stride, std::int64_t keys, std::int64_t width,
              float* scores) {
  std::int64_t j = 0;
  for (; j + 16 <= keys; j += 16, k += 16 * stride) {
    Floats sums[16] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) add_keys<16>(q, k, stride, i, kLanes, sums);
    if (i < width) add_keys<16>(q, k, stride, i, width - i, sums);
    store(scores + j, sums_of_16(sums));
  }
  if (j == keys) return;
  Floats sums[16] = {};
  each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
    for (std::int64_t r = 0; r < keys - j; ++r) add_keys<1>(q, k + r * stride, stride, i, lanes, sums + r);
  });
  store_some(scores + j, sums_of_16(sums), keys - j);
}

#if defined(__AVX512F__)
constexpr int kValuesAtOnce = 4;
#else
constexpr int kValuesAtOnce = 1;
#endif

// out[i] = sum over j of weights[j] * v[j][i] for `Vectors` vectors, the last of `lanes`. Four sums each, since one would
// wait for each of its additions.
template <int Vectors>
inline void mix_values(const float* weights, const float* v, std::int64_t stride, std::int64_t seen, std::int64_t lanes,
                       Floats* out) {
  Floats parts[4][Vectors] = {};
  const auto add = [&](std::int64_t j, int part) {
    const float* row = v + j * stride;
#pragma GCC unroll 4
    for (int at = 0; at < Vectors; ++at) {
      __builtin_prefetch(row + kRowsAhead * stride + at * kLanes);
      parts[part][at] += floats_from(row, at * kLanes, at + 1 < Vectors ? kLanes : lanes) * weights[j];
    }
  };
  std::int64_t j = 0;
  for (; j + 4 <= seen; j += 4) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) add(j + part, part);
  }
  for (; j < seen; ++j) add(j, 0);
  for (int at = 0; at < Vectors; ++at) out[at] = (parts[0][at] + parts[1][at]) + (parts[2][at] + parts[3][at]);
}

void attention_in_floats(const AttentionArgs& args, const AttentionScratch& s) {
  const std::int64_t group = args.heads / args.kv_heads;
  const Writer write(args.y);
  for (std::int64_t head = 0; head < args.heads; ++head) {
    const std::int64_t kv = head / group;
    const float* v = args.v.data + kv * args.v.head;
    for (std::int64_t query = 0; query < args.queries; ++query) {
      const std::int64_t unit = head * args.queries + query;
      if (unit < args.units.first || unit >= args.units.end) continue;
      const std::int64_t seen = visible(args, query);
      dot_keys(args.q.data + head * args.q.head + query * args.q.token, args.k.data + kv * args.k.head, args.k.token,
               seen, args.head_dim, s.scores);
      float top = -INFINITY;
      for (std::int64_t j = 0; j < seen; ++j) top = s.scores[j] > top ? s.scores[j] : top;
      Floats total = {};
      each_vector(seen, [&](std::int64_t j, std::int64_t lanes) {
        const Floats power = kept(exp_of_negative((floats_from(s.scores, j, lanes) - top) * args.scale), lanes);
        lanes == kLanes ? store(s.scores + j, power) : store_some(s.scores + j, power, lanes);
        total += power;
      });
      const float sum = sum_of(total);
      const auto say = [&](std::int64_t i, std::int64_t lanes, Floats mixed) {
        write(query, head * args.head_dim + i, seen > 0 ? mixed / sum : Floats{}, lanes);
      };
      std::int64_t i = 0;
      for (; i + kValuesAtOnce * kLanes <= args.head_dim; i += kValuesAtOnce * kLanes) {
        Floats mixed[kValuesAtOnce];
        mix_values<kValuesAtOnce>(s.scores, v + i, args.v.token, seen, kLanes, mixed);
        for (int at = 0; at < kValuesAtOnce; ++at) say(i + at * kLanes, kLanes, mixed[at]);
      }
      for (; i < args.head_dim; i += kLanes) {
        const std::int64_t lanes = args.head_dim - i < kLanes ? args.head_dim - i : kLanes;
        Floats mixed;
        mix_values<1>(s.scores, v + i, args.v.token, seen, lanes, &mixed);
        say(i, lanes, mixed);
      }
    }
  }
}

// --- Many queries in float, in blocks.

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

void pack_values(const AttentionArgs& args, std::int64_t kv, float* rows) {
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
  Piece sums[kFloatQueries][Vectors][kPieces];
  for (auto& query : sums) {
    for (auto& row : query) {
      for (Piece& sum : row) sum = piece_of(0.0F);
    }
  }
  for (std::int64_t j = 0; j < count; ++j, rows += stride) {
    Piece row[Vectors][kPieces];
    for (int v = 0; v < Vectors; ++v) {
      for (std::int64_t i = 0; i < kPieces; ++i) row[v][i] = piece_from(rows + v * apart + i * kPieceLanes);
    }
    for (std::int64_t q = 0; q < kFloatQueries; ++q) {
      const Piece factor = piece_of(factors[q][j]);
      for (int v = 0; v < Vectors; ++v) {
        for (std::int64_t i = 0; i < kPieces; ++i) sums[q][v][i] = fused_piece(factor, row[v][i], sums[q][v][i]);
      }
    }
  }
  for (std::int64_t q = 0; q < kFloatQueries; ++q) std::memcpy(out + q * out_stride, sums[q], sizeof sums[q]);
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
float weigh_in_floats(float* scores, std::int64_t seen, std::int64_t end, float factor) {
  Floats largest = splat(-INFINITY);
  each_vector(seen, [&](std::int64_t i, std::int64_t lanes) {
    const Floats value = floats_from(scores, i, lanes);
    largest = larger(lanes == kLanes ? value : value + (kept(splat(1.0F), lanes) - 1.0F) * 1e38F, largest);
  });
  const float top = max_of(largest);
  Floats total = {};
  each_vector(seen, [&](std::int64_t i, std::int64_t lanes) {
    const Floats power = kept(exp_of_negative((load<Floats>(scores + i) - top) * factor), lanes);
    store(scores + i, power);
    total += power;
  });
  for (std::int64_t i = nas::whole_vectors(seen); i < end; i += kLanes) store(scores + i, Floats{});
  return sum_of(total);
}

void float_block(const AttentionArgs& args, const FloatScratch& s, std::int64_t head, std::int64_t first,
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
  const std::int64_t of_head = nas::units_of_head(args), of_kv = of_head * (args.heads / args.kv_heads);
  for (std::int64_t kv = 0; kv < args.kv_heads; ++kv) {
    const std::int64_t begin = args.units.first > kv * of_kv ? args.units.first : kv * of_kv;
    const std::int64_t end = args.units.end < (kv + 1) * of_kv ? args.units.end : (kv + 1) * of_kv;
    if (begin >= end) continue;
    pack_keys(args, kv, s.keys);
    pack_values(args, kv, s.values);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t first = unit % of_head * kFloatQueries, left = args.queries - first;
      float_block(args, s, unit / of_head, first, left < kFloatQueries ? left : kFloatQueries, write);
    }
  }
}

void attention_on(const AttentionArgs& args, nas::Level gemm_level) {
  if (args.exact && !nas::one_by_one(args)) {
    attention_in_float_blocks(args);
    return;
  }
  const nas::GemmKernel& gemm = nas::gemm_kernel(gemm_level);
  const AttentionScratch s = nas::divide_scratch(args, gemm, args.scratch);
  nas::one_by_one(args) ? attention_in_floats(args, s) : attention_in_bytes(args, gemm, s);
}

}  // namespace
