// Attention in products of 16 bits, block by block of queries. Sums are exact, so that every instruction set has the same.
#pragma once

#include "shared.h"

namespace {

using nas::kShortQueries;
using nas::ShortScratch;
using nas::whole_pairs;

#if defined(__AVX2__)
inline std::int32_t pair_at(const std::int16_t* p) {
  std::int32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return pair;
}
#endif

// A register of sums; how many neighbours of the index that is summed over lie side by side for it; and how many of these
// groups of factors are read at once.
#if defined(__AVX512VNNI__)
using Sums = __m512i;
using Factors = __m512i;
constexpr std::int64_t kTogether = 2, kSteps = 1;
constexpr int kSumsWide = 2;  // vectors of 16 per query
inline Factors factors_from(const std::int16_t* p) { return _mm512_set1_epi32(pair_at(p)); }
// Assembly, since gcc 12 copies each register of _mm512_dpwssd_epi32 before and behind.
inline Sums added(Sums sums, Factors pair, int, const std::int16_t* row) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(pair), "v"(_mm512_loadu_si512(row)));
  return sums;
}
#elif defined(__AVX512BW__)
using Sums = __m512i;
using Factors = __m512i;
constexpr std::int64_t kTogether = 2, kSteps = 1;
constexpr int kSumsWide = 2;
inline Factors factors_from(const std::int16_t* p) { return _mm512_set1_epi32(pair_at(p)); }
inline Sums added(Sums sums, Factors pair, int, const std::int16_t* row) {
  return _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_loadu_si512(row), pair));
}
#elif defined(__AVX2__)
using Sums = __m256i;
using Factors = __m256i;
constexpr std::int64_t kTogether = 2, kSteps = 1;
constexpr int kSumsWide = 1;
inline Factors factors_from(const std::int16_t* p) { return _mm256_set1_epi32(pair_at(p)); }
inline Sums added(Sums sums, Factors pair, int, const std::int16_t* row) {
  const Sums values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(values, pair));
}
#elif defined(__aarch64__)
using Sums = int32x4_t;
using Factors = int16x4_t;
constexpr std::int64_t kTogether = 1, kSteps = 4;
constexpr int kSumsWide = 1;
inline Factors factors_from(const std::int16_t* p) { return vld1_s16(p); }
[[gnu::always_inline]] inline Sums added(Sums sums, Factors four, int step, const std::int16_t* row) {
  switch (step) {
    case 0:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 0);
    case 1:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 1);
    case 2:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 2);
    default:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 3);
  }
}
#else
using Sums = std::int32_t;
using Factors = std::int32_t;
constexpr std::int64_t kTogether = 1, kSteps = 1;
constexpr int kSumsWide = 1;
inline Factors factors_from(const std::int16_t* p) { return *p; }
// Without a sign: what is not a number becomes one of any size.
inline Sums added(Sums sum, Factors one, int, const std::int16_t* row) {
  return Sums(std::uint32_t(sum) + std::uint32_t(one * *row));
}
#endif
constexpr std::int64_t kSumLanes = sizeof(Sums) / sizeof(std::int32_t), kSumsOfVector = kLanes / kSumLanes;

// out[q][i] = sum over j < count of factors[q][j] * rows[j][i] for kShortQueries rows of factors, which may be read up to a
// whole vector, and `Vectors` times 16 columns. Rows lie by kTogether: column i of all of them, then column i + 1; after 16
// columns, `apart` further on, the next.
template <int Vectors>
inline void block_of_products(const std::int16_t* factors, std::int64_t factors_stride, const std::int16_t* rows,
                              std::int64_t stride, std::int64_t apart, std::int64_t count, std::int32_t* out,
                              std::int64_t out_stride) {
  constexpr std::int64_t each = Vectors * kSumsOfVector;
  Sums sums[kShortQueries * each];
#pragma GCC unroll 32
  for (Sums& sum : sums) sum = Sums{};
  for (std::int64_t j = 0; j < count; j += kTogether * kSteps) {
    Factors now[kShortQueries];
#pragma GCC unroll 32
    for (std::int64_t q = 0; q < kShortQueries; ++q) now[q] = factors_from(factors + q * factors_stride + j);
#pragma GCC unroll 4
    for (int step = 0; step < kSteps; ++step, rows += stride) {
      if (step > 0 && j + step * kTogether >= count) break;
#pragma GCC unroll 32
      for (std::int64_t q = 0; q < kShortQueries; ++q) {
#pragma GCC unroll 32
        for (std::int64_t i = 0; i < each; ++i) {
          const std::int16_t* row = rows + i / kSumsOfVector * apart + i % kSumsOfVector * kSumLanes * kTogether;
          sums[q * each + i] = added(sums[q * each + i], now[q], step, row);
        }
      }
    }
  }
#pragma GCC unroll 32
  for (std::int64_t q = 0; q < kShortQueries; ++q, out += out_stride) {
#pragma GCC unroll 32
    for (std::int64_t i = 0; i < each; ++i) store(out + i * kSumLanes, sums[q * each + i]);
  }
}

inline void products_of_block(const std::int16_t* factors, std::int64_t factors_stride, const std::int16_t* rows,
                              std::int64_t stride, std::int64_t apart, std::int64_t vectors, std::int64_t count,
                              std::int32_t* out, std::int64_t out_stride) {
  std::int64_t v = 0;
  for (; v + kSumsWide <= vectors; v += kSumsWide) {
    block_of_products<kSumsWide>(factors, factors_stride, rows + v * apart, stride, apart, count, out + v * kLanes, out_stride);
  }
  for (; v < vectors; ++v) {
    block_of_products<1>(factors, factors_stride, rows + v * apart, stride, apart, count, out + v * kLanes, out_stride);
  }
}

// How floats become integers, and what a unit of these is worth; rows of zeros are worth nothing.
class Rounding {
 public:
  Rounding(float unit, float most) : unit_(unit), inverse_(unit > 1e-30F ? 1.0F / unit : 0.0F), most_(most) {}
  Ints operator()(const Floats& x) const { return rounded(smaller(larger(x * inverse_, splat(-most_)), splat(most_))); }
  float unit() const { return unit_; }

 private:
  float unit_, inverse_, most_;
};

// The largest magnitude becomes kMostOfValues.
NAS_WHOLE Rounding rounding_of_values(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width) {
  Floats largest = {};
  for (std::int64_t row = 0; row < rows; ++row, x += stride) {
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      const Floats value = floats_from(x, i, lanes);
      largest = larger(larger(value, -value), largest);
    });
  }
  constexpr float most = nas::kMostOfValues;
  return {max_of(largest) / most, most};
}

// The longest row, in space, becomes 2^15 long. So each of its numbers has 16 bits, and the product of two such rows, however
// wide, 31: it is at most the product of their lengths.
NAS_WHOLE Rounding rounding_by_length(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t width) {
  float longest = 0.0F;
  for (std::int64_t row = 0; row < rows; ++row, x += stride) {
    Floats squares = {};
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      const Floats value = floats_from(x, i, lanes);
      squares += value * value;
    });
    const float length = sum_of(squares);
    longest = length > longest ? length : longest;
  }
  constexpr float most = 32767.0F;
  return {std::sqrt(longest) / most, most};
}

// The first `width` as 16 bits, and zeros up to a whole vector.
NAS_WHOLE inline void round_row(const Rounding& as_integers, const float* x, std::int64_t width, std::int16_t* out) {
  each_vector(width, [&](std::int64_t i, std::int64_t lanes) { store_shorts(out + i, as_integers(floats_from(x, i, lanes))); });
}

#if defined(__AVX512F__)
// 16 vectors of 16 lanes, turned: four rounds that each exchange what lies 1, 2, 4, 8 apart.
inline void turn(Ints* x) {
  using Lanes = Ints::Part;
  for (int apart = 1; apart < 16; apart *= 2) {
    Lanes low, high;
    for (int i = 0; i < 16; ++i) {
      low[i] = (i & apart) == 0 ? i : 16 + i - apart;
      high[i] = (i & apart) == 0 ? i + apart : 16 + i;
    }
    for (int i = 0; i < 16; ++i) {
      if ((i & apart) != 0) continue;
      const Lanes a = x[i].part[0], b = x[i + apart].part[0];
      x[i].part[0] = __builtin_shuffle(a, b, low);
      x[i + apart].part[0] = __builtin_shuffle(a, b, high);
    }
  }
}
#endif

// 16 rows to a panel: kTogether numbers of each row side by side.
void rows_to_panel(const std::int16_t* rows, std::int64_t stride, std::int64_t width, std::int16_t* panel) {
#if defined(__AVX512F__)
  for (std::int64_t d = 0; d < width; d += 2 * kLanes, panel += 2 * kLanes * kLanes) {
    Ints pairs[16];
    for (int j = 0; j < 16; ++j) pairs[j] = load<Ints>(rows + j * stride + d);
    turn(pairs);
    for (std::int64_t pair = 0; pair < 16 && d + 2 * pair < width; ++pair) store(panel + pair * 2 * kLanes, pairs[pair]);
  }
#else
  for (std::int64_t d = 0; d < width; d += kTogether, panel += kTogether * kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) std::memcpy(panel + j * kTogether, rows + j * stride + d, 2 * kTogether);
  }
#endif
}

NAS_WHOLE float pack_short_keys(const AttentionArgs& args, std::int64_t kv, const ShortScratch& s) {
  const float* first = args.k.data + kv * args.k.head;
  const Rounding as_integers = rounding_by_length(first, args.k.token, args.keys, args.head_dim);
  std::int16_t* panel = s.keys;
  for (std::int64_t key = 0; key < args.keys; key += kLanes, panel += whole_pairs(args.head_dim) * kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      std::int16_t* row = s.rows + j * s.row;
      key + j < args.keys ? round_row(as_integers, first + (key + j) * args.k.token, args.head_dim, row)
                          : void(std::memset(row, 0, std::size_t(s.row) * sizeof *row));
    }
    rows_to_panel(s.rows, s.row, args.head_dim, panel);
  }
  return as_integers.unit();
}

NAS_WHOLE float pack_short_values(const AttentionArgs& args, std::int64_t kv, const ShortScratch& s) {
  const float* first = args.v.data + kv * args.v.head;
  const Rounding as_integers = rounding_of_values(first, args.v.token, args.keys, args.head_dim);
  const std::int64_t width = nas::whole_vectors(args.head_dim);
  for (std::int64_t j = 0; j < args.keys; j += kTogether) {
    std::int16_t* to = s.values + j * width;
    const float* value = first + j * args.v.token;
    each_vector(args.head_dim, [&](std::int64_t i, std::int64_t lanes) {
      const Ints now = as_integers(floats_from(value, i, lanes));
      if constexpr (kTogether == 1) {
        store_shorts(to + i, now);
      } else {
        const Ints next = j + 1 < args.keys ? as_integers(floats_from(value + args.v.token, i, lanes)) : Ints{};
        store(to + 2 * i, (now & 0xFFFF) | (next << 16));
      }
    });
  }
  return as_integers.unit();
}

NAS_WHOLE inline std::int32_t largest_score(const std::int32_t* scores, std::int64_t seen) {
  Ints largest = splat_int(INT32_MIN);
  each_vector(seen, [&](std::int64_t i, std::int64_t lanes) {
    const Ints score = load<Ints>(scores + i);
    const Ints own = lanes == kLanes ? score : if_less(lane_numbers(), splat_int(std::int32_t(lanes)), score, largest);
    largest = if_less(largest, own, own, largest);
  });
  return max_of(largest);
}

// One query among a block's: where its scores lie and what becomes of them. Steps are taken for all queries of a block
// before the next step, so that one does not wait for another's sum.
struct ShortRow {
  std::int32_t* scores;  // later powers
  std::int16_t* weights;
  std::int64_t seen;
  float factor, top, unit, share;
};

// exp(factor * (score - largest)) in the scores' place, and what makes integers of them that are as large as 16 bits and sums
// with values allow.
NAS_WHOLE inline void raise(ShortRow& row) {
  Floats sum = {};
  each_vector(row.seen, [&](std::int64_t i, std::int64_t lanes) {
    const Floats score = to_floats(load<Ints>(row.scores + i));
    const Floats power = kept(exp_of_negative((score - row.top) * row.factor), lanes);
    store(row.scores + i, power);
    sum += power;
  });
  const float most = (nas::kMostOfWeights - 0.5F * static_cast<float>(row.seen)) / sum_of(sum);
  row.unit = most < 32767.0F ? most : 32767.0F;
}

// Those integers, with zeros up to `end`, and the inverse of their sum, 0 where nothing is seen.
NAS_WHOLE inline void weigh_in_shorts(ShortRow& row, std::int64_t end) {
  Ints total = {};
  std::int64_t i = 0;
  for (; i < row.seen; i += kLanes) {
    const Ints weight = rounded(load<Floats>(row.scores + i) * row.unit);
    total += weight;
    store_shorts(row.weights + i, weight);
  }
  for (; i < end; i += kLanes) store_shorts(row.weights + i, Ints{});
  const std::int32_t whole = sum_of(total);
  row.share = whole > 0 ? 1.0F / static_cast<float>(whole) : 0.0F;
}

NAS_WHOLE void short_block(const AttentionArgs& args, const ShortScratch& s, std::int64_t head, std::int64_t first,
                 std::int64_t count, float key_unit, float value_unit, const Writer& write) {
  const std::int64_t width = nas::whole_vectors(args.head_dim), seen = visible(args, first + count - 1);
  const std::int64_t keys = nas::whole_vectors(seen);
  ShortRow rows[kShortQueries];
  for (std::int64_t q = 0; q < kShortQueries; ++q) {
    // A block that is not full repeats its last query.
    const float* query = args.q.data + head * args.q.head + (first + (q < count ? q : count - 1)) * args.q.token;
    const Rounding as_integers = rounding_by_length(query, 0, 1, args.head_dim);
    round_row(as_integers, query, args.head_dim, s.rows + q * s.row);
    rows[q] = {s.scores + q * keys, s.weights + q * keys, visible(args, first + (q < count ? q : count - 1)),
               as_integers.unit() * key_unit * args.scale, 0.0F, 0.0F, 0.0F};
  }
  products_of_block(s.rows, s.row, s.keys, kLanes * kTogether, whole_pairs(args.head_dim) * kLanes, keys / kLanes,
                    args.head_dim, s.scores, keys);
  for (ShortRow& row : rows) row.top = static_cast<float>(largest_score(row.scores, row.seen));
  for (ShortRow& row : rows) raise(row);
  for (ShortRow& row : rows) weigh_in_shorts(row, keys);
  products_of_block(s.weights, keys, s.values, width * kTogether, kLanes * kTogether, width / kLanes, seen, s.mixed, width);
  for (std::int64_t q = 0; q < count; ++q) {
    each_vector(args.head_dim, [&](std::int64_t i, std::int64_t lanes) {
      const Floats value = to_floats(load<Ints>(s.mixed + q * width + i)) * (rows[q].share * value_unit);
      write(first + q, head * args.head_dim + i, value, lanes);
    });
  }
}

void attention_in_shorts(const AttentionArgs& args) {
  const ShortScratch s = nas::divide_short_scratch(args, args.scratch);
  const Writer write(args.y);
  float key_unit = 0.0F, value_unit = 0.0F;
  each_block(
      args, kShortQueries,
      [&](std::int64_t kv) {
        key_unit = pack_short_keys(args, kv, s);
        value_unit = pack_short_values(args, kv, s);
      },
      [&](std::int64_t head, std::int64_t first, std::int64_t count) {
        short_block(args, s, head, first, count, key_unit, value_unit, write);
      });
}

}  // namespace
