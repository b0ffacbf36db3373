// One token through the products of a language model of 6 layers, width 384 and 8192 words, with 4-bit weights.
#include <cstdio>
#include <memory>
#include <vector>

#include "../../tests/check.h"
#include "../../tests/timing.h"
#include "nas/int4.h"

using nas_test::Buffer;

int main() {
  nas_test::pin();
  nas_test::for_each_level([](nas::Level level) {
    const nas::Int4Kernel& kernel = nas::int4_kernel(level);
    if (kernel.level != level) return;
    for (const std::int64_t rows : {1, 128}) {
      if (rows > 1 && level == nas::Level::portable) return;
      std::vector<std::unique_ptr<Buffer<std::uint8_t>>> packed;
      std::vector<nas::Int4Args> products;
      Buffer<float> a(rows * 1536), c(rows * 8192);
      Buffer<std::uint8_t> scratch(static_cast<std::int64_t>(nas::int4_scratch_bytes(rows, 1536, 128)));
      for (std::int64_t i = 0; i < rows * 1536; ++i) a[i] = static_cast<float>(i % 7);
      double macs = 0.0, bytes = 0.0;
      const auto add = [&](std::int64_t k, std::int64_t n) {
        const auto size = static_cast<std::int64_t>(nas::int4_packed_bytes(n, k, 128));
        packed.push_back(std::make_unique<Buffer<std::uint8_t>>(size));
        packed.back()->fill(0x31);
        nas::Int4Args args;
        args.m = rows, args.n = n, args.k = k, args.group = 128;
        args.a = a.data(), args.lda = k;
        args.packed = packed.back()->data();
        args.c = c.data(), args.ldc = n;
        args.scratch = scratch.data();
        products.push_back(args);
        macs += static_cast<double>(rows * n * k);
        bytes += static_cast<double>(size);
      };
      for (int layer = 0; layer < 6; ++layer) add(384, 1152), add(384, 384), add(384, 1536), add(1536, 384);
      add(384, 8192);
      const nas_test::Seconds t = nas_test::timed([&] {
        for (const nas::Int4Args& args : products) kernel.run(args);
      });
      std::printf("%-30s %4ld rows %9.1f us %7.1f GMAC/s %7.1f GB/s of weights\n", kernel.name, rows, t.median * 1e6,
                  macs / t.median / 1e9, bytes / t.median / 1e9);
    }
  });
  return 0;
}
