// Billion multiply-accumulates per second of every gemm that runs here, for the shapes of well-known networks.
#include <cstdio>

#include "../../tests/check.h"
#include "../../tests/timing.h"
#include "nas/gemm.h"

using nas_test::Buffer;

namespace {

struct Shape {
  const char* where;
  std::int64_t m, n, k;
};

constexpr Shape kShapes[] = {
    {"mobilenetv2 224 expand", 12544, 96, 16},  {"mobilenetv2 224 project", 12544, 16, 32},
    {"mobilenetv2 224 project", 3136, 24, 96},  {"mobilenetv2 224 expand", 3136, 144, 24},
    {"mobilenetv2 224 expand", 784, 192, 32},   {"mobilenetv2 224 project", 784, 32, 192},
    {"mobilenetv2 224 expand", 196, 384, 64},   {"mobilenetv2 224 project", 196, 64, 384},
    {"mobilenetv2 224 project", 196, 96, 576},  {"mobilenetv2 224 expand", 49, 960, 160},
    {"mobilenetv2 224 project", 49, 160, 960},  {"mobilenetv2 224 last", 49, 1280, 320},
    {"mobilenetv2 96 expand", 9, 960, 160},     {"mobilenetv2 96 project", 9, 160, 960},
    {"resnet18 stage 2, unrolled", 784, 128, 1152}, {"resnet18 stage 4, unrolled", 49, 512, 4608},
    {"vit tiny qkv", 197, 576, 192},            {"vit tiny mlp", 197, 768, 192},
    {"vit tiny mlp", 197, 192, 768},            {"deit small mlp", 128, 1536, 384},
    {"deit small mlp", 128, 384, 1536},         {"classifier", 1, 1000, 1280},
    {"square", 512, 512, 512},
};

void bench(const nas::GemmKernel& kernel, const Shape& s, nas::GemmOutput output) {
  nas_test::Random random(1);
  Buffer<std::uint8_t> a(s.m * s.k);
  Buffer<std::int8_t> w(s.n * s.k);
  Buffer<float> scale(s.n), c(s.m * s.n);
  Buffer<std::int32_t> bias(s.n);
  for (std::int64_t i = 0; i < s.m * s.k; ++i) a[i] = static_cast<std::uint8_t>(random.next());
  for (std::int64_t i = 0; i < s.n * s.k; ++i) w[i] = static_cast<std::int8_t>(random.next());
  for (std::int64_t i = 0; i < s.n; ++i) scale[i] = 1e-3F, bias[i] = 0;
  Buffer<std::uint8_t> packed(static_cast<std::int64_t>(kernel.packed_bytes(s.n, s.k)));
  kernel.pack(w.data(), s.k, 1, s.n, s.k, packed.data());
  nas::GemmArgs args;
  args.m = s.m, args.n = s.n, args.k = s.k;
  args.a = a.data(), args.lda = s.k;
  args.packed = packed.data();
  args.c = c.data(), args.ldc = s.n;
  args.epilogue.output = output;
  args.epilogue.zero_point = 128;
  args.epilogue.scale = scale.data(), args.epilogue.bias = bias.data();
  const nas_test::Seconds t = nas_test::timed([&] { kernel.run(args); });
  const double macs = static_cast<double>(s.m) * static_cast<double>(s.n * s.k);
  std::printf("%-42s %-28s %5ld %5ld %5ld %9.1f %7.1f\n", kernel.name, s.where, s.m, s.n, s.k, t.median * 1e6,
              macs / t.median / 1e9);
}

}  // namespace

int main() {
  nas_test::pin();
  std::printf("%-42s %-28s %5s %5s %5s %9s %7s\n", "kernel", "where", "m", "n", "k", "us", "GMAC/s");
  nas_test::for_each_level([](nas::Level level) {
    const nas::GemmKernel& kernel = nas::gemm_kernel(level);
    if (kernel.level != level || level == nas::Level::portable) return;
    for (const Shape& shape : kShapes) bench(kernel, shape, nas::GemmOutput::u8);
    bench(kernel, kShapes[17], nas::GemmOutput::f32);
  });
  return 0;
}
