// The kernels of nas/norm.h for one instruction set, that of the file that includes this.
#pragma once

#include "../real/unary_lanes.h"
#include "../writer.h"

namespace {

// Copies of the arguments, here and below, are known not to change while results are stored.
NAS_WHOLE void norm(const nas::NormArgs& given) {
  const nas::NormArgs args = given;
  const float count = static_cast<float>(args.width);
  const Writer write(args.y);
  for (std::int64_t row = 0; row < args.rows; ++row) {
    Floats sums = {};
    each_vector(args.width, [&](std::int64_t i, std::int64_t lanes) {
      Floats value = row_from(args.x, row, i, lanes);
      if (args.residual != nullptr) value += floats_from(args.residual + row * args.residual_stride, i, lanes);
      lanes == kLanes ? store(args.scratch + i, value) : store_some(args.scratch + i, value, lanes);
      if (args.sum != nullptr) {
        float* to = args.sum + row * args.sum_stride + i;
        lanes == kLanes ? store(to, value) : store_some(to, value, lanes);
      }
      sums += kept(value, lanes);
    });
    const float mean = args.rms ? 0.0F : sum_of(sums) / count;
    Floats squares = {};
    each_vector(args.width, [&](std::int64_t i, std::int64_t lanes) {
      const Floats off = kept(floats_from(args.scratch, i, lanes) - mean, lanes);
      squares += off * off;
    });
    const float inverse = 1.0F / std::sqrt(sum_of(squares) / count + args.epsilon);
    each_vector(args.width, [&](std::int64_t i, std::int64_t lanes) {
      Floats value = (floats_from(args.scratch, i, lanes) - mean) * inverse;
      if (args.gamma != nullptr) value *= floats_from(args.gamma, i, lanes);
      if (args.beta != nullptr) value += floats_from(args.beta, i, lanes);
      write(row, i, value, lanes);
    });
  }
}

NAS_WHOLE void softmax(const nas::SoftmaxArgs& given) {
  const nas::SoftmaxArgs args = given;
  const Writer write(args.y);
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::int64_t width = args.visible != nullptr ? args.visible[row] : args.width;
    Floats largest = splat(-INFINITY);
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      const Floats value = row_from(args.x, row, i, lanes) * args.scale;
      lanes == kLanes ? store(args.scratch + i, value) : store_some(args.scratch + i, value, lanes);
      const Floats seen = lanes == kLanes ? value : value + (kept(splat(1.0F), lanes) - 1.0F) * 1e38F;
      largest = larger(seen, largest);
    });
    const float top = max_of(largest);
    Floats sums = {};
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      const Floats power = kept(exp_of_negative(floats_from(args.scratch, i, lanes) - top), lanes);
      lanes == kLanes ? store(args.scratch + i, power) : store_some(args.scratch + i, power, lanes);
      sums += power;
    });
    const float inverse = 1.0F / sum_of(sums);
    each_vector(width, [&](std::int64_t i, std::int64_t lanes) {
      write(row, i, floats_from(args.scratch, i, lanes) * inverse, lanes);
    });
    for (std::int64_t i = width; i < args.width; ++i) write(row, i, Floats{}, 1);
  }
}

NAS_WHOLE void gelu(const float* x, std::int64_t count, float* y) {
  each_vector(count, [&](std::int64_t i, std::int64_t lanes) {
    const Floats value = floats_from(x, i, lanes);
    const Floats result = gelu_of(value);
    lanes == kLanes ? store(y + i, result) : store_some(y + i, result, lanes);
  });
}

NAS_WHOLE void silu(const float* x, std::int64_t count, float* y) {
  each_vector(count, [&](std::int64_t i, std::int64_t lanes) {
    const Floats value = floats_from(x, i, lanes);
    const Floats result = value * logistic_of(value);
    lanes == kLanes ? store(y + i, result) : store_some(y + i, result, lanes);
  });
}

}  // namespace

#define NAS_NORM_KERNELS(level) {level, norm, softmax, gelu, silu}
