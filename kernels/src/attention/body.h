// Attention for one instruction set, that of the file that includes this; here with scores in 8 bits.
#pragma once

#include "float_blocks.h"
#include "one_query.h"

namespace {

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

// exp(factor * (score - largest)) as 0..255, and the inverse of its sum.
float weigh(const float* scores, std::int64_t seen, std::int64_t keys, float factor, std::uint8_t* weights) {
  const float top = largest_of(scores, seen);
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
  each_block(
      args, nas::kQueryBlock,
      [&](std::int64_t kv) {
        round_rows(args.k.data + kv * args.k.head, args.k.token, args.keys, args.head_dim, s.rounded_kv, s.k_scale);
        gemm.pack(s.rounded_kv, args.head_dim, 1, args.keys, args.head_dim, s.packed_k);
        round_columns(args.v.data + kv * args.v.head, args.v.token, args.keys, args.head_dim, s.rounded_kv, s.v_scale);
        gemm.pack(s.rounded_kv, 1, args.head_dim, args.head_dim, args.keys, s.packed_v);
      },
      [&](std::int64_t head, std::int64_t first, std::int64_t count) {
        block_of_queries(args, gemm, s, head, first, count);
      });
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
