// Attention query by query, all in float: for few queries.
#pragma once

#include "shared.h"

namespace {

// Sums of 16 vectors, one per lane: neighbours are added, then neighbours of those, in four rounds.
#if defined(__AVX512F__)
inline Floats sums_of_16(Floats* of) {
  using Order = Ints::Part;
  FloatPart x[16];
  for (int i = 0; i < 16; ++i) x[i] = of[i].part[0];
  const Order even = {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30};
  const Order odd = {1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31};
  const Order even2 = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29};
  const Order odd2 = {2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31};
  const Order even4 = {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27};
  const Order odd4 = {4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31};
  const Order even8 = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
  const Order odd8 = {8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31};
  for (int i = 0; i < 16; i += 2) x[i / 2] = __builtin_shuffle(x[i], x[i + 1], even) + __builtin_shuffle(x[i], x[i + 1], odd);
  for (int i = 0; i < 8; i += 2) x[i / 2] = __builtin_shuffle(x[i], x[i + 1], even2) + __builtin_shuffle(x[i], x[i + 1], odd2);
  for (int i = 0; i < 4; i += 2) x[i / 2] = __builtin_shuffle(x[i], x[i + 1], even4) + __builtin_shuffle(x[i], x[i + 1], odd4);
  return {{__builtin_shuffle(x[0], x[1], even8) + __builtin_shuffle(x[0], x[1], odd8)}};
}
#else
using Quad = float __attribute__((vector_size(16)));

// Sums of neighbours: the first two are of `a`, the others of `b`.
inline Quad neighbours(Quad a, Quad b) {
#if defined(__SSE3__)
  return Quad(_mm_hadd_ps(__m128(a), __m128(b)));
#elif defined(__aarch64__)
  return Quad(vpaddq_f32(float32x4_t(a), float32x4_t(b)));
#else
  return Quad{a[0] + a[1], a[2] + a[3], b[0] + b[1], b[2] + b[3]};
#endif
}

inline Floats sums_of_16(Floats* of) {
  Quad sums[4];
  for (int i = 0; i < 4; ++i) {
    Quad one[4];  // sums of four neighbours each
    for (int j = 0; j < 4; ++j) {
      Quad x[4];
      std::memcpy(x, of + 4 * i + j, sizeof x);
      one[j] = neighbours(neighbours(x[0], x[1]), neighbours(x[2], x[3]));
    }
    sums[i] = neighbours(neighbours(one[0], one[1]), neighbours(one[2], one[3]));
  }
  return load<Floats>(sums);
}
#endif

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

void attention_in_floats(const AttentionArgs& args) {
  float* scores = static_cast<float*>(args.scratch);
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
               seen, args.head_dim, scores);
      const float top = largest_of(scores, seen);
      Floats total = {};
      each_vector(seen, [&](std::int64_t j, std::int64_t lanes) {
        const Floats power = kept(exp_of_negative((floats_from(scores, j, lanes) - top) * args.scale), lanes);
        lanes == kLanes ? store(scores + j, power) : store_some(scores + j, power, lanes);
        total += power;
      });
      const float sum = sum_of(total);
      const auto say = [&](std::int64_t i, std::int64_t lanes, Floats mixed) {
        write(query, head * args.head_dim + i, seen > 0 ? mixed / sum : Floats{}, lanes);
      };
      std::int64_t i = 0;
      for (; i + kValuesAtOnce * kLanes <= args.head_dim; i += kValuesAtOnce * kLanes) {
        Floats mixed[kValuesAtOnce];
        mix_values<kValuesAtOnce>(scores, v + i, args.v.token, seen, kLanes, mixed);
        for (int at = 0; at < kValuesAtOnce; ++at) say(i + at * kLanes, kLanes, mixed[at]);
      }
      for (; i < args.head_dim; i += kLanes) {
        const std::int64_t lanes = args.head_dim - i < kLanes ? args.head_dim - i : kLanes;
        Floats mixed;
        mix_values<1>(scores, v + i, args.v.token, seen, lanes, &mixed);
        say(i, lanes, mixed);
      }
    }
  }
}

}  // namespace
