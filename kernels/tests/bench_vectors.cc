// Microseconds of what is not a matrix product, for the shapes of a small vision transformer and a small language model.
#include <cmath>
#include <cstdio>

#include "check.h"
#include "nas/attention.h"
#include "nas/elementwise.h"
#include "nas/gemm.h"
#include "timing.h"

using nas_test::Buffer;

namespace {

template <typename Body>
void line(nas::Level level, const char* what, double elements, Body body) {
  const nas_test::Seconds t = nas_test::timed(body);
  std::printf("%-12s %-44s %9.2f us %8.2f elements/ns\n", nas::level_name(level), what, t.median * 1e6,
              elements / t.median / 1e9);
}

void vectors(nas::Level level) {
  constexpr std::int64_t kTokens = 197, kWidth = 768;
  constexpr std::int64_t kCount = kTokens * kWidth;
  const nas::ElementwiseKernels& elementwise = nas::elementwise_kernels(level);
  const nas::NormKernels& norm = nas::norm_kernels(level);
  nas_test::Random random(1);
  Buffer<float> x(kCount), y(kCount), gamma(kWidth), scratch(kWidth);
  Buffer<std::uint8_t> a(kCount), b(kCount), c(kCount), table(256);
  for (std::int64_t i = 0; i < kCount; ++i) {
    x[i] = random.real(-3.0F, 3.0F);
    a[i] = static_cast<std::uint8_t>(random.next());
    b[i] = static_cast<std::uint8_t>(random.next());
  }
  for (std::int64_t i = 0; i < kWidth; ++i) gamma[i] = 1.0F;
  for (std::int64_t i = 0; i < 256; ++i) table[i] = static_cast<std::uint8_t>(i);
  const double count = static_cast<double>(kCount);
  line(level, "lookup 197x768", count, [&] { elementwise.lookup(a.data(), kCount, table.data(), c.data()); });
  line(level, "quantize 197x768", count, [&] { elementwise.quantize(x.data(), kCount, {0.02F, 128, false}, c.data()); });
  line(level, "dequantize 197x768", count, [&] { elementwise.dequantize(a.data(), kCount, {0.02F, 128, false}, y.data()); });
  float low = 0.0F, high = 0.0F;
  line(level, "range 197x768", count, [&] { elementwise.range(x.data(), kCount, &low, &high); });
  nas::BinaryArgs add;
  add.count = add.b_count = kCount;
  add.a_data = a.data(), add.b_data = b.data(), add.c_data = c.data();
  add.a = {0.02F, 3, false}, add.b = {0.03F, 120, false}, add.c = {0.04F, 110, false};
  line(level, "add u8 197x768", count, [&] { elementwise.add(add); });
  line(level, "gelu f32 197x768", count, [&] { norm.gelu(x.data(), kCount, y.data()); });
  line(level, "silu f32 197x768", count, [&] { norm.silu(x.data(), kCount, y.data()); });
  nas::NormArgs args;
  args.rows = kTokens, args.width = 192;
  args.x = {x.data(), 192, nas::Type::f32, {}};
  args.residual = y.data(), args.residual_stride = 192;
  args.sum = y.data(), args.sum_stride = 192;
  args.gamma = gamma.data(), args.beta = gamma.data();
  args.scratch = scratch.data();
  args.y = {c.data(), 192, nas::Type::u8, {0.02F, 128, false}};
  line(level, "residual + layer norm f32 -> u8 197x192", 197 * 192, [&] { norm.norm(args); });
  nas::SoftmaxArgs soft;
  soft.rows = 591, soft.width = 197;
  soft.x = {x.data(), 197, nas::Type::f32, {}};
  soft.y = {y.data(), 197, nas::Type::f32, {}};
  soft.scratch = scratch.data();
  line(level, "softmax f32 591x197", 591 * 197, [&] { norm.softmax(soft); });
}

void attention(nas::Level level, const char* what, std::int64_t queries, std::int64_t keys, std::int64_t heads,
               bool causal, bool exact) {
  nas_test::Random random(1);
  const std::int64_t width = heads * 64;
  Buffer<float> q(queries * width), k(keys * width), v(keys * width);
  Buffer<std::uint8_t> y(queries * width);
  for (std::int64_t i = 0; i < queries * width; ++i) q[i] = random.real(-1.0F, 1.0F);
  for (std::int64_t i = 0; i < keys * width; ++i) k[i] = random.real(-1.0F, 1.0F), v[i] = random.real(-1.0F, 1.0F);
  nas::AttentionArgs args;
  args.queries = queries, args.keys = keys, args.heads = args.kv_heads = heads, args.head_dim = 64;
  args.q = {q.data(), width, 64};
  args.k = {k.data(), 64, keys * 64};
  args.v = {v.data(), 64, keys * 64};
  args.scale = 0.125F;
  args.causal = causal, args.exact = exact;
  args.y = {y.data(), width, nas::Type::u8, {0.02F, 128, false}};
  Buffer<std::uint8_t> scratch(static_cast<std::int64_t>(nas::attention_scratch_bytes(args)));
  args.scratch = scratch.data();
  const double macs = 2.0 * static_cast<double>(queries * keys * width);
  line(level, what, macs, [&] { nas::attention(args, level); });
}

}  // namespace

int main() {
  nas_test::pin();
  nas_test::for_each_level([](nas::Level level) {
    if (level == nas::Level::portable) return;
    vectors(level);
    attention(level, "attention vit tiny 197x197, 3 heads of 64", 197, 197, 3, false, false);
    attention(level, "the same in float", 197, 197, 3, false, true);
    attention(level, "attention prefill 128x128, 6 heads of 64", 128, 128, 6, true, false);
    attention(level, "the same in float", 128, 128, 6, true, true);
    attention(level, "attention token 1x129, 6 heads of 64", 1, 129, 6, true, true);
  });
  return 0;
}
