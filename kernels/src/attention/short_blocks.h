// Attention in products of 16 bits, block by block of queries. Sums are exact, so that every instruction set has the same.
#pragma once

#include "short_products.h"

namespace {

using nas::ShortScratch;
using nas::whole_pairs;

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
