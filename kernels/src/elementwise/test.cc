// Every level against definitions written out one element at a time.
#include <cmath>

#include "../../tests/check.h"
#include "nas/elementwise.h"

namespace nas_test {
namespace {

using nas::BinaryArgs;
using nas::ElementwiseKernels;
using nas::Level;
using nas::Quantization;

constexpr std::int64_t kCounts[] = {0, 1, 7, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 1000, 4096};

std::int32_t value_of(std::uint8_t byte, bool is_signed) {
  return is_signed ? static_cast<std::int8_t>(byte) : byte;
}

std::uint8_t clipped(float rounded, std::int32_t low, std::int32_t high) {
  const float value = rounded < static_cast<float>(low) ? static_cast<float>(low)
                      : rounded > static_cast<float>(high) ? static_cast<float>(high)
                                                           : rounded;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(value));
}

std::uint8_t defined_sum(const BinaryArgs& g, std::uint8_t a, std::uint8_t b, bool single) {
  const volatile float ra = g.a.scale / g.c.scale;
  const volatile float rb = g.b.scale / g.c.scale;
  const volatile float zb = rb * static_cast<float>(g.b.zero_point);
  volatile float fixed = static_cast<float>(g.c.zero_point) - std::fma(ra, static_cast<float>(g.a.zero_point), zb);
  const float va = static_cast<float>(value_of(a, g.c.is_signed));
  const float vb = static_cast<float>(value_of(b, g.c.is_signed));
  const volatile float product = vb * rb;
  fixed = single ? fixed + product : std::fma(vb, rb, fixed);
  return clipped(std::nearbyint(std::fma(va, ra, fixed)), g.low, g.high);
}

std::uint8_t defined_product(const BinaryArgs& g, std::uint8_t a, std::uint8_t b) {
  const volatile float both = g.a.scale * g.b.scale;
  const volatile float ratio = both / g.c.scale;
  const std::int32_t whole = (value_of(a, g.c.is_signed) - g.a.zero_point) * (value_of(b, g.c.is_signed) - g.b.zero_point);
  const volatile float scaled = static_cast<float>(whole) * ratio;
  return clipped(std::nearbyint(scaled + static_cast<float>(g.c.zero_point)), g.low, g.high);
}

void test_binary(const ElementwiseKernels& kernels, std::int64_t count, std::uint64_t seed) {
  Random random(seed);
  const bool single = seed % 3 == 0 && count > 1;
  BinaryArgs args;
  args.count = count;
  args.b_count = single ? 1 : count;
  Buffer<std::uint8_t> a(count), b(args.b_count > 0 ? args.b_count : 1), sum(count), product(count);
  for (std::int64_t i = 0; i < count; ++i) a[i] = static_cast<std::uint8_t>(random.next());
  for (std::int64_t i = 0; i < args.b_count; ++i) b[i] = static_cast<std::uint8_t>(random.next());
  const bool is_signed = seed % 2 == 0;
  args.low = is_signed ? -128 : 0;
  args.high = is_signed ? 127 : 255;
  const auto some = [&] {
    const auto zero = static_cast<std::int32_t>(random.between(args.low, args.high));
    return Quantization{random.real(0.003F, 0.08F), zero, is_signed};
  };
  args.a = some(), args.b = some(), args.c = some();
  if (seed % 5 == 0) args.low = args.c.zero_point;
  args.a_data = a.data(), args.b_data = b.data();
  args.c_data = sum.data();
  kernels.add(args);
  args.c_data = product.data();
  kernels.multiply(args);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint8_t other = b[single ? 0 : i];
    check(sum[i] == defined_sum(args, a[i], other, single), "add on %s: %ld of %ld", nas::level_name(kernels.level), i,
          count);
    check(product[i] == defined_product(args, a[i], other), "multiply on %s: %ld of %ld",
          nas::level_name(kernels.level), i, count);
  }
  check(sum.intact() && product.intact(), "add or multiply on %s write past the end", nas::level_name(kernels.level));
}

void test_conversions(const ElementwiseKernels& kernels, std::int64_t count, std::uint64_t seed) {
  Random random(seed);
  const bool is_signed = seed % 2 == 0;
  const std::int32_t low = is_signed ? -128 : 0;
  const Quantization q = {random.real(0.01F, 0.2F), static_cast<std::int32_t>(random.between(low, low + 255)), is_signed};
  Buffer<float> x(count), back(count);
  Buffer<std::uint8_t> bytes(count), mapped(count), table(256);
  float smallest = 0.0F, largest = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) {
    const float extremes[] = {INFINITY, -INFINITY, 1e30F, -1e-30F, q.scale * 0.5F, q.scale * 1.5F};
    x[i] = random.next() % 16 == 0 ? extremes[random.next() % 6] : random.real(-20.0F, 20.0F);
    smallest = x[i] < smallest ? x[i] : smallest;
    largest = x[i] > largest ? x[i] : largest;
  }
  for (std::int64_t i = 0; i < 256; ++i) table[i] = static_cast<std::uint8_t>(random.next());
  kernels.quantize(x.data(), count, q, bytes.data());
  kernels.dequantize(bytes.data(), count, q, back.data());
  kernels.lookup(bytes.data(), count, table.data(), mapped.data());
  for (std::int64_t i = 0; i < count; ++i) {
    const volatile float ratio = x[i] / q.scale;
    const float kept = ratio < -1000.0F ? -1000.0F : ratio > 1000.0F ? 1000.0F : static_cast<float>(ratio);
    const float shifted = std::nearbyint(kept) + static_cast<float>(q.zero_point);
    check(bytes[i] == clipped(shifted, low, low + 255), "quantize on %s: %ld of %ld", nas::level_name(kernels.level), i,
          count);
    const float real = static_cast<float>(value_of(bytes[i], is_signed) - q.zero_point) * q.scale;
    check(back[i] == real, "dequantize on %s: %ld of %ld", nas::level_name(kernels.level), i, count);
    check(mapped[i] == table[bytes[i]], "lookup on %s: %ld of %ld", nas::level_name(kernels.level), i, count);
  }
  float low_found = 1.0F, high_found = -1.0F;
  kernels.range(x.data(), count, &low_found, &high_found);
  check(low_found == smallest && high_found == largest, "range on %s of %ld", nas::level_name(kernels.level), count);
  check(bytes.intact() && back.intact() && mapped.intact(), "conversions on %s write past the end",
        nas::level_name(kernels.level));
}

void test_tables() {
  const Quantization from = {0.05F, 128, false}, to = {0.03F, -10, true};
  std::uint8_t table[256];
  nas::fill_table(nas::Function::gelu, 0.0F, 0.0F, from, to, table);
  check(static_cast<std::int8_t>(table[128]) == -10, "gelu(0) is 0");
  check(static_cast<std::int8_t>(table[255]) == 127, "gelu of a large value saturates");
  nas::fill_table(nas::Function::relu, 0.0F, 0.0F, from, from, table);
  for (int i = 0; i < 256; ++i) check(table[i] == (i < 128 ? 128 : i), "relu in the same quantization, byte %d", i);
}

}  // namespace

void elementwise_tests() {
  for_each_level([](Level level) {
    const ElementwiseKernels& kernels = nas::elementwise_kernels(level);
    check(nas::level_available(kernels.level), "elementwise kernels of %s are not available", nas::level_name(level));
    std::printf("elementwise %s elementwise_%s\n", nas::level_name(level), nas::level_name(kernels.level));
    std::uint64_t seed = 0;
    for (const std::int64_t count : kCounts) {
      for (int repeat = 0; repeat < 4; ++repeat, ++seed) {
        test_binary(kernels, count, seed);
        test_conversions(kernels, count, seed);
      }
    }
  });
  test_tables();
}

}  // namespace nas_test
