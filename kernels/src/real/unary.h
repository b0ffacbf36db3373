// Functions of one float, by the numbers of nas/runtime/plan/program.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "nas/functions.h"

namespace nas {
namespace {

enum Unary {
  kNone = 0,
  kClip = 1,
  kHardSwish = 2,
  kSiLU = 3,
  kSigmoid = 4,
  kGelu = 5,
  kTanh = 6,
  kLeakyRelu = 7,
  kHardSigmoid = 8,
  kSqrt = 9,
  kExp = 10,
  kErf = 11,
  kNeg = 12,
  kReciprocal = 13,
  kIdentity = 14,
  kUnaries = 15,
};

inline float hard_sigmoid(float x, float alpha, float beta) {
  return std::min(1.0F, std::max(0.0F, alpha * x + beta));
}

// Always part of its caller, where the switch goes for a code that is known.
[[maybe_unused]] inline __attribute__((always_inline)) float unary(int code, float alpha, float beta, float x) {
  switch (code) {
    case kClip:
      return std::min(beta, std::max(alpha, x));
    case kHardSwish:
      return x * hard_sigmoid(x, 1.0F / 6.0F, 0.5F);
    case kSiLU:
      return x / (1.0F + real::exp(-x));
    case kSigmoid:
      return 1.0F / (1.0F + real::exp(-x));
    case kGelu:
      return x * 0.5F * (1.0F + real::erf(x / 1.41421356237F));
    case kTanh:
      return real::tanh(x);
    case kLeakyRelu:
      return x < 0.0F ? alpha * x : x;
    case kHardSigmoid:
      return hard_sigmoid(x, alpha, beta);
    case kSqrt:
      return std::sqrt(x);
    case kExp:
      return real::exp(x);
    case kErf:
      return real::erf(x);
    case kNeg:
      return -x;
    case kReciprocal:
      return 1.0F / x;
    default:
      return x;
  }
}

template <int CODE>
inline void unary_row_of(float alpha, float beta, const float* x, std::size_t count, float* y) {
  for (std::size_t i = 0; i < count; ++i) y[i] = unary(CODE, alpha, beta, x[i]);
}

// The same function of many floats, asked for once; x and y may be one.
[[maybe_unused]] inline void unary_row(int code, float alpha, float beta, const float* x, std::size_t count, float* y) {
  switch (code) {
    case kClip:
      return unary_row_of<kClip>(alpha, beta, x, count, y);
    case kHardSwish:
      return unary_row_of<kHardSwish>(alpha, beta, x, count, y);
    case kSiLU:
      return unary_row_of<kSiLU>(alpha, beta, x, count, y);
    case kSigmoid:
      return unary_row_of<kSigmoid>(alpha, beta, x, count, y);
    case kGelu:
      return unary_row_of<kGelu>(alpha, beta, x, count, y);
    case kTanh:
      return unary_row_of<kTanh>(alpha, beta, x, count, y);
    case kHardSigmoid:
      return unary_row_of<kHardSigmoid>(alpha, beta, x, count, y);
    default:
      for (std::size_t i = 0; i < count; ++i) y[i] = unary(code, alpha, beta, x[i]);
  }
}

}  // namespace
}  // namespace nas
