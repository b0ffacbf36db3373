// Every kernel against the portable one bit for bit, and that one against double precision with the same rounding of
// activations.
#include <cmath>

#include "../../tests/check.h"
#include "nas/int4.h"

namespace nas_test {
namespace {

using nas::Int4Args;
using nas::Int4Kernel;
using nas::Level;

void compare(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t group, bool with_zeros, std::uint64_t seed) {
  Random random(seed);
  // The largest sums that there are, which kernels that add up in 16 bits must hold.
  const bool extreme = seed % 7 == 3;
  const std::int64_t groups = (k + group - 1) / group;
  Buffer<float> a(m * k), scales(n * groups), shift(n), expected(m * n), got(m * n);
  Buffer<std::uint8_t> w(n * groups * group / 2), zeros(n * ((groups + 1) / 2));
  for (std::int64_t i = 0; i < m * k; ++i) {
    a[i] = extreme ? (seed % 2 == 0 ? -3.0F : 3.0F) : random.next() % 9 == 0 ? 0.0F : random.real(-2.0F, 2.0F);
  }
  for (std::int64_t i = 0; i < n * groups; ++i) scales[i] = random.real(0.001F, 0.05F);
  for (std::int64_t i = 0; i < n; ++i) shift[i] = random.real(-1.0F, 1.0F);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(w.bytes()); ++i) {
    w[i] = extreme ? 0xff : static_cast<std::uint8_t>(random.next());
  }
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(zeros.bytes()); ++i) {
    zeros[i] = static_cast<std::uint8_t>(random.next());
  }
  Buffer<std::uint8_t> packed(static_cast<std::int64_t>(nas::int4_packed_bytes(n, k, group)));
  nas::int4_pack({w.data(), scales.data(), with_zeros ? zeros.data() : nullptr}, n, k, group, packed.data());
  check(packed.intact(), "int4 packs past the end");
  Buffer<std::uint8_t> scratch(static_cast<std::int64_t>(nas::int4_scratch_bytes(m, k, group)));
  Int4Args args;
  args.m = m, args.n = n, args.k = k, args.group = group;
  args.a = a.data(), args.lda = k;
  args.packed = packed.data();
  args.shift = seed % 2 == 0 ? shift.data() : nullptr;
  args.c = expected.data(), args.ldc = n;
  args.scratch = scratch.data();
  nas::int4_kernel(Level::portable).run(args);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = args.shift != nullptr ? static_cast<double>(shift[j]) : 0.0;
      double size = std::fabs(sum);
      for (std::int64_t g = 0; g < groups; ++g) {
        const std::int64_t end = (g + 1) * group < k ? (g + 1) * group : k;
        float top = 0.0F;
        for (std::int64_t at = g * group; at < end; ++at) top = std::fmax(top, std::fabs(a[i * k + at]));
        const float inverse = top > 0.0F ? 127.0F / top : 0.0F;
        const int zero = with_zeros ? (zeros[j * ((groups + 1) / 2) + g / 2] >> (4 * (g % 2))) & 15 : 8;
        for (std::int64_t at = g * group; at < end; ++at) {
          const std::int64_t in_group = at - g * group;
          const std::uint8_t both = w[(j * groups + g) * group / 2 + in_group / 2];
          const int weight = (in_group % 2 == 0 ? both & 15 : both >> 4) - zero;
          const float product = a[i * k + at] * inverse;
          const double term = static_cast<double>(std::nearbyint(product)) * weight * static_cast<double>(top) / 127.0 *
                              static_cast<double>(scales[j * groups + g]);
          sum += term;
          size += std::fabs(term);
        }
      }
      const double error = std::fabs(sum - static_cast<double>(expected[i * n + j]));
      check(error <= 1e-6 * size, "int4 of m %ld n %ld k %ld group %ld is off by %g of %g", m, n, k, group, error, size);
    }
  }
  for_each_level([&](Level level) {
    const Int4Kernel& kernel = nas::int4_kernel(level);
    args.c = got.data();
    got.fill(0xA5);
    kernel.run(args);
    check(got.same(expected), "%s differs: m %ld n %ld k %ld group %ld", kernel.name, m, n, k, group);
    check(got.intact() && scratch.intact(), "%s writes past the end", kernel.name);
  });
}

}  // namespace

void int4_tests() {
  for_each_level([](Level level) {
    const Int4Kernel& kernel = nas::int4_kernel(level);
    check(nas::level_available(kernel.level), "the int4 product of %s is not available", nas::level_name(level));
    std::printf("int4 %s %s\n", nas::level_name(level), kernel.name);
  });
  std::uint64_t seed = 0;
  for (const std::int64_t group : {16, 32, 64, 128}) {
    for (const std::int64_t n : {1, 17, 64, 65, 130}) {
      for (const std::int64_t k : {1, 31, 128, 200}) {
        compare(static_cast<std::int64_t>(seed % 5) + 1, n, k, group, seed % 3 == 0, seed);
        ++seed;
      }
    }
  }
  for (seed = 3; seed < 3 + 7 * 4; seed += 7) compare(3, 70, 2100, 1024, seed % 2 == 0, seed);
}

}  // namespace nas_test
