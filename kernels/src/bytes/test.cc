// Operators on bytes: every level against the portable one.
#include <limits>
#include <vector>

#include "../../tests/check.h"
#include "bytes.h"

namespace nas_test {
namespace {

using nas::ByteKernels;
using nas::Level;

struct Given {
  std::vector<float> floats;
  std::vector<std::uint8_t> a, b, table;
  std::vector<float> lookup;
  std::size_t pixels, channels;
  float scale, other;
  std::int32_t zero, zero_out;

  Given(std::size_t pixels_, std::size_t channels_, Random& random) : pixels(pixels_), channels(channels_) {
    const std::size_t n = pixels * channels;
    const float odd[] = {0.0F, -0.0F, 1e30F, -1e30F, std::numeric_limits<float>::infinity(),
                         std::numeric_limits<float>::quiet_NaN(), 0.5F, 1.5F, -2.5F};
    for (std::size_t i = 0; i < n; ++i) {
      floats.push_back(random.next() % 6 == 0 ? odd[random.between(0, 8)] : random.real(-9.0F, 9.0F));
      a.push_back(std::uint8_t(random.between(0, 255)));
      b.push_back(std::uint8_t(random.between(0, 255)));
    }
    for (int i = 0; i < 256; ++i) {
      table.push_back(std::uint8_t(random.between(0, 255)));
      lookup.push_back(random.real(-1.0F, 1.0F));
    }
    scale = random.next() % 4 == 0 ? 1.0F : random.real(1e-3F, 0.1F);
    other = random.real(1e-3F, 0.1F);
    zero = std::int32_t(random.between(0, 255));
    zero_out = std::int32_t(random.next() % 2 == 0 ? random.between(0, 255) : random.next() % 2 * 255);
  }
};

// All operators of one set of kernels, one output behind the other.
void run(const ByteKernels& k, const Given& g, Buffer<std::uint8_t>& out) {
  const std::size_t n = g.pixels * g.channels;
  std::uint8_t* to = out.data();
  out.fill(0xA5);
  k.quantize(g.floats.data(), to, n, g.scale, g.zero);
  // In two pieces, as threads do it.
  const std::size_t half = g.pixels / 2;
  k.quantize_planes(g.floats.data(), to += n, half, g.channels, g.pixels, g.scale, g.zero);
  k.quantize_planes(g.floats.data() + half, to + half * g.channels, g.pixels - half, g.channels, g.pixels, g.scale, g.zero);
  k.table(g.a.data(), to += n, n, g.table.data());
  const nas::AddParams sum{g.scale / 0.05F, g.other / 0.05F, float(g.zero_out) - 11.25F};
  k.add(g.a.data(), g.b.data(), to += n, n, sum);
  const nas::MulParams product{float(g.zero), float(g.zero_out), g.scale * g.other, float(g.zero)};
  k.multiply(g.a.data(), g.b.data(), to += n, g.pixels, g.channels, product);
  std::vector<std::int32_t> sums(g.channels + 16);
  k.mean(g.a.data(), to += n, g.pixels, g.channels, sums.data(), g.scale, g.zero, g.zero_out);
  to += (g.channels + 3) / 4 * 4;
  std::vector<float> floats(n);
  k.dequantize(g.a.data(), floats.data(), n, g.scale, g.zero);
  std::memcpy(to, floats.data(), 4 * n);
  k.lookup(g.a.data(), floats.data(), n, g.lookup.data());
  std::memcpy(to + 4 * n, floats.data(), 4 * n);
}

}  // namespace

void bytes_tests() {
  for_each_level([](Level level) {
    std::printf("bytes %s bytes_%s\n", nas::level_name(level), nas::byte_kernels(level).isa);
  });
  Random random(11);
  for (int round = 0; round < 150; ++round) {
    const std::size_t pixels = std::size_t(random.between(1, round % 10 == 0 ? 600 : 40));
    const Given given(pixels, std::size_t(round % 3 == 0 ? 3 : random.between(1, 70)), random);
    const std::int64_t n = std::int64_t(given.pixels * given.channels);
    const std::int64_t bytes = 13 * n + (std::int64_t(given.channels) + 3) / 4 * 4;
    Buffer<std::uint8_t> expected(bytes), got(bytes);
    run(nas::byte_kernels_portable, given, expected);
    for_each_level([&](Level level) {
      run(nas::byte_kernels(level), given, got);
      check(got.same(expected), "bytes of %s differ: %ld pixels of %ld channels", nas::level_name(level),
            long(given.pixels), long(given.channels));
      check(got.intact(), "bytes of %s write past the end", nas::level_name(level));
    });
  }
}

}  // namespace nas_test
