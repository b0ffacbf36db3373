// Every level against the portable one bit for bit, and that one against double precision.
#include <cmath>

#include "../../tests/check.h"
#include "nas/norm.h"

namespace nas_test {
namespace {

using nas::Level;
using nas::NormArgs;
using nas::NormKernels;
using nas::SoftmaxArgs;
using nas::Type;

struct Case {
  std::int64_t rows, width;
  Type in, out;
  bool rms, residual, affine;
};

int bytes_of(Type type) { return type == Type::f32 ? 4 : 1; }

// What an element of the output may differ by from the exact value: one quantum, or float's rounding.
bool near(double exact, const std::uint8_t* element, const nas::Output& y, double tolerance) {
  if (y.type == Type::f32) {
    float value;
    std::memcpy(&value, element, 4);
    return std::fabs(value - exact) <= tolerance * (1.0 + std::fabs(exact));
  }
  const int low = y.type == Type::s8 ? -128 : 0;
  const int byte = y.type == Type::s8 ? static_cast<std::int8_t>(*element) : *element;
  double q = exact / static_cast<double>(y.quantization.scale) + y.quantization.zero_point;
  q = q < low ? low : q > low + 255 ? low + 255 : q;
  return std::fabs(byte - q) <= 0.5 + 1e-3;
}

struct Data {
  Buffer<std::uint8_t> x;
  Buffer<float> residual, gamma, beta;
  nas::Input input;

  Data(const Case& c, std::uint64_t seed)
      : x(c.rows * c.width * bytes_of(c.in)), residual(c.rows * c.width), gamma(c.width), beta(c.width) {
    Random random(seed);
    for (std::int64_t i = 0; i < c.rows * c.width; ++i) {
      const float value = random.real(-4.0F, 4.0F);
      if (c.in == Type::f32) {
        std::memcpy(x.data() + 4 * i, &value, 4);
      } else {
        x[i] = static_cast<std::uint8_t>(random.next());
      }
      residual[i] = random.real(-2.0F, 2.0F);
    }
    for (std::int64_t i = 0; i < c.width; ++i) gamma[i] = random.real(0.1F, 2.0F), beta[i] = random.real(-1.0F, 1.0F);
    input.data = x.data();
    input.stride = c.width;
    input.type = c.in;
    input.quantization = {0.03F, c.in == Type::s8 ? -3 : 121, c.in == Type::s8};
  }
  double value(std::int64_t i) const {
    if (input.type == Type::f32) {
      float real;
      std::memcpy(&real, x.data() + 4 * i, 4);
      return real;
    }
    const int byte = input.type == Type::s8 ? static_cast<std::int8_t>(x.data()[i]) : x.data()[i];
    return static_cast<double>(input.quantization.scale) * (byte - input.quantization.zero_point);
  }
};

nas::Output output_of(const Case& c, Buffer<std::uint8_t>& to, float scale) {
  nas::Output y;
  y.data = to.data();
  y.stride = c.width;
  y.type = c.out;
  y.quantization = {scale, c.out == Type::s8 ? 5 : 100, c.out == Type::s8};
  return y;
}

void compare_norm(const Case& c, std::uint64_t seed) {
  Data data(c, seed);
  const std::int64_t count = c.rows * c.width;
  Buffer<std::uint8_t> expected(count * bytes_of(c.out)), got(count * bytes_of(c.out));
  Buffer<float> sum(count), expected_sum(count), scratch(c.width);
  NormArgs args;
  args.rows = c.rows, args.width = c.width;
  args.x = data.input;
  args.residual = c.residual ? data.residual.data() : nullptr, args.residual_stride = c.width;
  args.sum = expected_sum.data(), args.sum_stride = c.width;
  args.gamma = c.affine ? data.gamma.data() : nullptr, args.beta = c.affine && !c.rms ? data.beta.data() : nullptr;
  args.rms = c.rms;
  args.scratch = scratch.data();
  args.y = output_of(c, expected, 0.04F);
  nas::norm_kernels(Level::portable).norm(args);
  for (std::int64_t row = 0; row < c.rows; ++row) {
    const auto v = [&](std::int64_t i) {
      const std::int64_t at = row * c.width + i;
      return data.value(at) + (c.residual ? static_cast<double>(data.residual[at]) : 0.0);
    };
    double mean = 0.0, variance = 0.0;
    for (std::int64_t i = 0; i < c.width; ++i) mean += v(i) / static_cast<double>(c.width);
    if (c.rms) mean = 0.0;
    for (std::int64_t i = 0; i < c.width; ++i) variance += (v(i) - mean) * (v(i) - mean) / static_cast<double>(c.width);
    for (std::int64_t i = 0; i < c.width; ++i) {
      double exact = (v(i) - mean) / std::sqrt(variance + static_cast<double>(args.epsilon));
      if (args.gamma != nullptr) exact *= static_cast<double>(args.gamma[i]);
      if (args.beta != nullptr) exact += static_cast<double>(args.beta[i]);
      const std::int64_t at = row * c.width + i;
      check(near(exact, expected.data() + at * bytes_of(c.out), args.y, 2e-4), "norm of width %ld, rms %d", c.width, c.rms);
    }
  }
  for_each_level([&](Level level) {
    args.y = output_of(c, got, 0.04F);
    args.sum = sum.data();
    nas::norm_kernels(level).norm(args);
    check(got.same(expected) && sum.same(expected_sum), "norm on %s differs: rows %ld width %ld in %d out %d rms %d",
          nas::level_name(level), c.rows, c.width, static_cast<int>(c.in), static_cast<int>(c.out), c.rms);
    check(got.intact() && sum.intact() && scratch.intact(), "norm on %s writes past the end", nas::level_name(level));
  });
}

void compare_softmax(const Case& c, std::uint64_t seed) {
  Data data(c, seed);
  const std::int64_t count = c.rows * c.width;
  Buffer<std::uint8_t> expected(count * bytes_of(c.out)), got(count * bytes_of(c.out));
  Buffer<float> scratch(c.width);
  Buffer<std::int64_t> visible(c.rows);
  for (std::int64_t row = 0; row < c.rows; ++row) visible[row] = (row * 7 + static_cast<std::int64_t>(seed)) % c.width + 1;
  SoftmaxArgs args;
  args.rows = c.rows, args.width = c.width;
  args.scale = 1.5F;
  args.visible = c.residual ? visible.data() : nullptr;
  args.x = data.input;
  args.scratch = scratch.data();
  args.y = output_of(c, expected, 1.0F / 255.0F);
  nas::norm_kernels(Level::portable).softmax(args);
  for (std::int64_t row = 0; row < c.rows; ++row) {
    const std::int64_t seen = c.residual ? visible[row] : c.width;
    double top = -1e300, total = 0.0;
    for (std::int64_t i = 0; i < seen; ++i) top = std::fmax(top, 1.5 * data.value(row * c.width + i));
    for (std::int64_t i = 0; i < seen; ++i) total += std::exp(1.5 * data.value(row * c.width + i) - top);
    for (std::int64_t i = 0; i < c.width; ++i) {
      const std::int64_t at = row * c.width + i;
      const double exact = i < seen ? std::exp(1.5 * data.value(at) - top) / total : 0.0;
      check(near(exact, expected.data() + at * bytes_of(c.out), args.y, 2e-6), "softmax of width %ld, column %ld", c.width,
            i);
    }
  }
  for_each_level([&](Level level) {
    args.y = output_of(c, got, 1.0F / 255.0F);
    nas::norm_kernels(level).softmax(args);
    check(got.same(expected), "softmax on %s differs: rows %ld width %ld in %d out %d", nas::level_name(level), c.rows,
          c.width, static_cast<int>(c.in), static_cast<int>(c.out));
    check(got.intact() && scratch.intact(), "softmax on %s writes past the end", nas::level_name(level));
  });
}

void compare_activations() {
  constexpr std::int64_t kCount = 4001;
  Buffer<float> x(kCount), expected(kCount), got(kCount);
  for (std::int64_t i = 0; i < kCount; ++i) x[i] = static_cast<float>(i - 2000) * 0.01F;
  x[0] = -200.0F, x[1] = 200.0F;
  using Activation = void (*)(const float*, std::int64_t, float*);
  const auto compare = [&](const char* name, Activation NormKernels::*which, double allowed, double (*exact)(double)) {
    (nas::norm_kernels(Level::portable).*which)(x.data(), kCount, expected.data());
    for (std::int64_t i = 0; i < kCount; ++i) {
      const double value = static_cast<double>(x[i]);
      const double error = std::fabs(static_cast<double>(expected[i]) - exact(value));
      check(error <= allowed * std::fmax(1.0, std::fabs(value)), "%s(%g) is off by %g", name, value, error);
    }
    for_each_level([&](Level level) {
      (nas::norm_kernels(level).*which)(x.data(), kCount, got.data());
      check(got.same(expected) && got.intact(), "%s on %s differs", name, nas::level_name(level));
    });
  };
  compare("gelu", &NormKernels::gelu, 4e-6, [](double v) { return 0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0))); });
  compare("silu", &NormKernels::silu, 3e-7, [](double v) { return v / (1.0 + std::exp(-v)); });
}

}  // namespace

void norm_tests() {
  for_each_level([](Level level) {
    const NormKernels& kernels = nas::norm_kernels(level);
    check(nas::level_available(kernels.level), "norm kernels of %s are not available", nas::level_name(level));
    std::printf("norm %s norm_%s\n", nas::level_name(level), nas::level_name(kernels.level));
  });
  const Type types[] = {Type::f32, Type::u8, Type::s8};
  std::uint64_t seed = 0;
  for (const std::int64_t width : {1, 2, 15, 16, 17, 33, 96, 192, 197, 384}) {
    for (int repeat = 0; repeat < 9; ++repeat, ++seed) {
      const Case c = {static_cast<std::int64_t>(seed % 5) + 1, width,          types[repeat % 3], types[repeat / 3],
                      seed % 2 == 0,                           seed % 4 < 2, seed % 3 != 0};
      compare_norm(c, seed);
      compare_softmax(c, seed);
    }
  }
  compare_activations();
}

}  // namespace nas_test
