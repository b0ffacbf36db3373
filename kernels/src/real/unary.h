// Functions of one float, by the numbers of nas/runtime/plan/program.py.
#pragma once

#include <algorithm>
#include <cmath>

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

[[maybe_unused]] inline float unary(int code, float alpha, float beta, float x) {
  switch (code) {
    case kClip:
      return std::min(beta, std::max(alpha, x));
    case kHardSwish:
      return x * hard_sigmoid(x, 1.0F / 6.0F, 0.5F);
    case kSiLU:
      return x / (1.0F + std::exp(-x));
    case kSigmoid:
      return 1.0F / (1.0F + std::exp(-x));
    case kGelu:
      return x * 0.5F * (1.0F + std::erf(x / 1.41421356237F));
    case kTanh:
      return std::tanh(x);
    case kLeakyRelu:
      return x < 0.0F ? alpha * x : x;
    case kHardSigmoid:
      return hard_sigmoid(x, alpha, beta);
    case kSqrt:
      return std::sqrt(x);
    case kExp:
      return std::exp(x);
    case kErf:
      return std::erf(x);
    case kNeg:
      return -x;
    case kReciprocal:
      return 1.0F / x;
    default:
      return x;
  }
}

}  // namespace
}  // namespace nas
