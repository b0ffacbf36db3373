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

// scores[j] = q . k[j]
void dot_keys(const float* q, const float* k, std::int64_t stride, std::int64_t keys, std::int64_t width,
              float* scores) {
  for (std::int64_t j = 0; j < keys; j += 16) {
    const std::int64_t here = keys - j < 16 ? keys - j : 16;
    Floats sums[16] = {};
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      const Floats value = floats_from(q, i, lanes);
      for (std::int64_t r = 0; r < here; ++r) sums[r] += value * floats_from(k + (j + r) * stride, i, lanes);
    });
    const Floats dots = sums_of_16(sums);
    here == 16 ? store(scores + j, dots) : store_some(scores + j, dots, here);
  }
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
      each_vector(args.head_dim, [&](std::int64_t i, std::int64_t lanes) {
        // Four sums, since one would wait for each of its additions.
        Floats parts[4] = {};
        std::int64_t j = 0;
        for (; j + 4 <= seen; j += 4) {
          for (int part = 0; part < 4; ++part) {
            parts[part] += floats_from(v + (j + part) * args.v.token, i, lanes) * s.scores[j + part];
          }
        }
        for (; j < seen; ++j) parts[0] += floats_from(v + j * args.v.token, i, lanes) * s.scores[j];
        const Floats value = (parts[0] + parts[1]) + (parts[2] + parts[3]);
        write(query, head * args.head_dim + i, seen > 0 ? value / sum : Floats{}, lanes);
      });
    }
  }
}

void attention_on(const AttentionArgs& args, nas::Level gemm_level) {
  const nas::GemmKernel& gemm = nas::gemm_kernel(gemm_level);
  const AttentionScratch s = nas::divide_scratch(args, gemm, args.scratch);
  nas::in_floats(args) ? attention_in_floats(args, s) : attention_in_bytes(args, gemm, s);
}

}  // namespace
