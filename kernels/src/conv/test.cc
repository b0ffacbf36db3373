// Convolutions: every level against the reference, over shapes that reach every tile and every edge. Those on bytes have the
// same bits, those on floats add in other orders.
#include <cmath>
#include <memory>
#include <vector>

#include "../../tests/check.h"
#include "conv.h"
#include "slices.h"

namespace nas_test {
namespace {

using nas::ConvShape;
using nas::ConvU8;
using nas::ConvU8Params;
using nas::ConvSlice;
using nas::Cut;
using nas::Level;

// Inputs and frames may be read this far beyond their end, as arena and scratch of a program may.
constexpr std::size_t kGuard = 256;

struct Case {
  ConvShape shape;
  bool float_out, extreme;
};

ConvShape shaped(Random& random, int outputs, int channels, int kernel, int stride, int groups) {
  ConvShape s{};
  s.batch = int(random.between(1, 2));
  s.height = int(random.between(kernel, kernel + 6));
  s.width = int(random.between(kernel, kernel + 8));
  s.channels = channels;
  s.outputs = outputs;
  s.kernel_h = kernel;
  // A window need not be square.
  s.kernel_w = random.next() % 4 == 0 ? int(random.between(1, kernel)) : kernel;
  s.stride_h = stride;
  s.stride_w = random.next() % 4 == 0 ? int(random.between(1, 3)) : stride;
  s.pad_top = int(random.between(0, kernel / 2));
  s.pad_left = int(random.between(0, kernel / 2));
  s.pad_bottom = int(random.between(0, kernel / 2));
  s.pad_right = int(random.between(0, kernel / 2));
  s.groups = groups;
  s.in_pixel = channels;
  s.out_pixel = outputs;
  s.out_height = (s.height + s.pad_top + s.pad_bottom - s.kernel_h) / s.stride_h + 1;
  s.out_width = (s.width + s.pad_left + s.pad_right - s.kernel_w) / s.stride_w + 1;
  return s;
}

class Problem {
 public:
  Problem(const Case& c, Random& random) : case_(c) {
    const ConvShape& s = c.shape;
    const std::size_t taps = std::size_t(s.taps());
    input_.resize(s.inputs_size() + kGuard);
    for (std::uint8_t& byte : input_) byte = std::uint8_t(c.extreme ? 255 : random.between(0, 255));
    weights_.resize(taps * s.outputs);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      weights_[i] = std::int8_t(c.extreme ? (i / taps % 2 == 0 ? 127 : -128) : random.between(-128, 127));
    }
    params_.shape = s;
    params_.zero_in = std::int32_t(c.extreme ? random.next() % 2 * 255 : random.between(0, 255));
    params_.zero_out = std::int32_t(c.extreme ? random.next() % 2 * 255 : random.between(0, 255));
    params_.float_out = c.float_out;
    for (int output = 0; output < s.outputs; ++output) {
      bias_.push_back(std::int32_t(random.between(-40000, 40000)));
      // From everything to zero to everything saturated, exact halves among them; in some cases beyond 32 bits.
      const float scales[] = {0.5F, 0.25F, 1e-3F, 3e-5F, 700.0F, 3e20F};
      const bool odd = output % 4 == 0;
      multiplier_.push_back(odd ? scales[random.between(0, c.extreme ? 5 : 3)] : random.real(1e-4F, 1e-2F));
    }
    params_.weights = weights_.data();
    params_.bias = bias_.data();
    params_.multiplier = multiplier_.data();
  }

  std::int64_t output_bytes() const {
    const ConvShape& s = case_.shape;
    return std::int64_t(s.batch) * s.out_height * s.out_width * s.outputs * (case_.float_out ? 4 : 1);
  }

  const ConvU8Params& params() const { return params_; }

  void run(const ConvU8& conv, Buffer<std::uint8_t>& out) const {
    out.fill(0xA5);
    run_slice(conv, {case_.shape}, out);
  }

  // Its parts one after the other, the last first. Returns how many there were.
  std::size_t run_parts(Level level, Cut cut, int parts, Buffer<std::uint8_t>& out) const {
    out.fill(0xA5);
    const std::vector<ConvSlice> slices = nas::slices_of(case_.shape, cut, parts);
    for (std::size_t index = slices.size(); index-- > 0;) {
      const ConvSlice& slice = slices[index];
      ConvU8Params params = params_;
      if (cut == Cut::outputs) params.shape = slice.shape;
      params.weights += slice.first_output * case_.shape.taps();
      params.bias += slice.first_output;
      params.multiplier += slice.first_output;
      run_slice(*std::unique_ptr<ConvU8>(nas::conv_u8(params, level)), slice, out);
    }
    return slices.size();
  }

 private:
  void run_slice(const ConvU8& conv, const ConvSlice& slice, Buffer<std::uint8_t>& out) const {
    std::vector<std::uint8_t> scratch(conv.scratch_bytes() + kGuard + 64, 0xA5);
    std::uint8_t* aligned = scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64);
    conv.run(slice.shape, input_.data() + slice.in, out.data() + slice.out * (case_.float_out ? 4 : 1), aligned);
  }

  Case case_;
  ConvU8Params params_{};
  std::vector<std::uint8_t> input_;
  std::vector<std::int8_t> weights_;
  std::vector<std::int32_t> bias_;
  std::vector<float> multiplier_;
};

void compare(const Case& c, Random& random) {
  const Problem problem(c, random);
  const ConvShape& s = c.shape;
  Buffer<std::uint8_t> expected(problem.output_bytes()), got(problem.output_bytes());
  const std::unique_ptr<ConvU8> reference(nas::conv_u8_portable(problem.params()));
  problem.run(*reference, expected);
  for_each_level([&](Level level) {
    const std::unique_ptr<ConvU8> conv(nas::conv_u8(problem.params(), level));
    problem.run(*conv, got);
    check(got.same(expected), "%s differs: %dx%dx%d to %d, window %dx%d, stride %d %d, groups %d, float %d, extreme %d",
          conv->kernel(), s.height, s.width, s.channels, s.outputs, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.groups,
          c.float_out, c.extreme);
    check(got.intact(), "%s writes past the end: %dx%dx%d to %d", conv->kernel(), s.height, s.width, s.channels, s.outputs);
    for (int parts = 2; parts <= 3; ++parts) {
      for (const Cut cut : {Cut::lines, Cut::outputs}) {
        if (!nas::can_cut(s, cut, parts)) continue;
        problem.run_parts(level, cut, parts, got);
        check(got.same(expected) && got.intact(), "%s in %d parts by %s differs: %dx%dx%d to %d, window %dx%d, stride %d %d, groups %d",
              conv->kernel(), parts, cut == Cut::lines ? "lines" : "outputs", s.height, s.width, s.channels, s.outputs,
              s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.groups);
      }
    }
  });
}

// The largest error is a rounding per addition: of the sum of magnitudes, which is at most `taps` here.
void compare_floats(const ConvShape& s, int activation, Random& random) {
  const auto drawn = [&](std::size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = random.real(-1.0F, 1.0F);
    return values;
  };
  const std::vector<float> input = drawn(s.inputs_size()), weights = drawn(std::size_t(s.taps()) * s.outputs);
  const std::vector<float> bias = drawn(std::size_t(s.outputs));
  const nas::ConvF32Params params{s, weights.data(), bias.data(), activation, 0.0F, 6.0F};
  const std::int64_t count = std::int64_t(s.batch) * s.out_height * s.out_width * s.outputs;
  Buffer<float> expected(count), got(count);
  const std::unique_ptr<nas::ConvF32> reference(nas::conv_f32_portable(params));
  reference->run(s, input.data(), expected.data(), nullptr);
  for_each_level([&](Level level) {
    const std::unique_ptr<nas::ConvF32> conv(nas::conv_f32(params, level));
    Buffer<float> scratch(std::int64_t(conv->scratch_bytes() / sizeof(float)));
    conv->run(s, input.data(), got.data(), reinterpret_cast<std::uint8_t*>(scratch.data()));
    float error = 0.0F;
    for (std::int64_t i = 0; i < count; ++i) error = std::fmax(error, std::fabs(got.data()[i] - expected.data()[i]));
    check(error <= 1.2e-7F * float(s.taps() + 1) && got.intact() && scratch.intact(),
          "%s is off by %g: %dx%dx%d to %d, window %dx%d, stride %d %d, groups %d", conv->kernel(), double(error), s.height,
          s.width, s.channels, s.outputs, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.groups);
  });
}

void float_tests() {
  Random random(10);
  constexpr int kNone = 0, kClip = 1;
  for (const int outputs : {1, 5, 15, 16, 17, 31, 32, 40, 64, 65}) {
    compare_floats(shaped(random, outputs, int(random.between(1, 40)), 1, 1, 1), kNone, random);
    compare_floats(shaped(random, outputs, int(random.between(1, 9)), 3, int(random.between(1, 3)), 1), kClip, random);
  }
  for (const int kernel : {1, 2, 3, 5, 7}) {
    for (const int channels : {2, 8, 15, 16, 17, 33, 48}) {
      compare_floats(shaped(random, channels, channels, kernel, int(random.between(1, 3)), channels), kClip, random);
    }
  }
  compare_floats(shaped(random, 6, 4, 3, 1, 2), kNone, random);
  const nas::ConvShape plain = shaped(random, 16, 16, 1, 1, 1);
  const std::vector<float> weights(256), bias(16);
  for_each_level([&](Level level) {
    const std::unique_ptr<nas::ConvF32> conv(nas::conv_f32({plain, weights.data(), bias.data(), kNone, 0.0F, 0.0F}, level));
    std::printf("conv_f32 %s %s\n", nas::level_name(level), conv->kernel());
  });
}

// Prints which kernel a level runs for a plain window.
void name(const char* family, int channels, int outputs, int kernel, int groups) {
  Random random(1);
  Case c{shaped(random, outputs, channels, kernel, 1, groups), false, false};
  c.shape.kernel_w = kernel;
  c.shape.stride_w = 1;
  c.shape.out_width = c.shape.width + c.shape.pad_left + c.shape.pad_right - kernel + 1;
  const Problem problem(c, random);
  for_each_level([&](Level level) {
    const std::unique_ptr<ConvU8> conv(nas::conv_u8(problem.params(), level));
    std::printf("%s %s %s\n", family, nas::level_name(level), conv->kernel());
  });
}

}  // namespace

void conv_tests() {
  name("conv", 16, 32, 3, 1);
  name("depthwise", 32, 32, 3, 32);
  Random random(9);
  const auto dense = [&](int outputs, int channels, int kernel, int stride) {
    const bool float_out = random.next() % 4 == 0;
    compare({shaped(random, outputs, channels, kernel, stride, 1), float_out, random.next() % 5 == 0}, random);
  };
  for (int outputs = 1; outputs <= 100; outputs += 1 + outputs / 40) {
    dense(outputs, int(random.between(1, 40)), 1, 1);
    dense(outputs, int(random.between(1, 9)), 3, int(random.between(1, 3)));
  }
  for (int channels = 1; channels <= 33; ++channels) dense(int(random.between(1, 50)), channels, int(random.between(1, 2)), 2);
  dense(5, 3, 7, 2);
  dense(144, 24, 1, 1);
  dense(320, 100, 1, 1);
  for (const int kernel : {1, 2, 3, 3, 3, 5, 7}) {
    for (int channels = 2; channels <= 66; channels += kernel == 3 ? 3 : 7) {
      const ConvShape s = shaped(random, channels, channels, kernel, int(random.between(1, 3)), channels);
      compare({s, false, random.next() % 5 == 0}, random);
    }
  }
  // Neither dense nor depthwise.
  compare({shaped(random, 6, 4, 3, 1, 2), false, false}, random);
  compare({shaped(random, 8, 4, 3, 1, 4), true, false}, random);
  float_tests();
}

}  // namespace nas_test
