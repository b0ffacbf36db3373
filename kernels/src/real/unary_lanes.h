// The functions of unary.h that have a form for 16 lanes, with the same bits on every instruction set.
#pragma once

#include "../lanes.h"
#include "unary.h"

namespace {

// The normal distribution's function: 0.5 + x p(x^2) on -4.5..4.5 and level beyond. p was fitted for the least largest error,
// 7.1e-7, in a variable that runs from -1 to 1, where its coefficients are small and rounding stays small.
inline Floats normal_of(Floats x) {
  constexpr float kEdge = 4.5F;
  constexpr float kFitted[] = {8.19344272e-4F,  -2.2591609e-3F, 3.07920804e-3F, -5.41325111e-3F, 1.1157047e-2F, -1.8914829e-2F,
                               2.83720721e-2F, -4.01344744e-2F, 5.46917526e-2F, -7.71922822e-2F, 1.56905088e-1F};
  const Floats kept_x = smaller(larger(x, splat(-kEdge)), splat(kEdge));
  const Floats t = fused(kept_x * kept_x, splat(2.0F / (kEdge * kEdge)), splat(-1.0F));
  Floats p = splat(kFitted[0]);
  for (int i = 1; i < 11; ++i) p = fused(p, t, splat(kFitted[i]));
  return fused(p, kept_x, splat(0.5F));
}

inline Floats gelu_of(const Floats& x) { return x * normal_of(x); }

// 1 / (1 + exp(-x)), from exp of what is not positive.
inline Floats logistic_of(const Floats& x) {
  const Floats power = exp_of_negative(smaller(x, -x));
  const Floats share = 1.0F / (power + 1.0F);
  return if_less(x, Floats{}, share * power, share);
}

inline bool has_lanes(int code) {
  switch (code) {
    case nas::kNone:
    case nas::kIdentity:
    case nas::kClip:
    case nas::kHardSwish:
    case nas::kSiLU:
    case nas::kSigmoid:
    case nas::kGelu:
    case nas::kLeakyRelu:
    case nas::kHardSigmoid:
      return true;
    default:
      return false;
  }
}

// For codes that have lanes.
[[maybe_unused]] inline Floats unary_lanes(int code, float alpha, float beta, const Floats& x) {
  const auto hard = [&](float slope, float shift) {
    return smaller(larger(x * slope + shift, Floats{}), splat(1.0F));
  };
  switch (code) {
    case nas::kClip:
      return smaller(larger(x, splat(alpha)), splat(beta));
    case nas::kHardSwish:
      return x * hard(1.0F / 6.0F, 0.5F);
    case nas::kSiLU:
      return x * logistic_of(x);
    case nas::kSigmoid:
      return logistic_of(x);
    case nas::kGelu:
      return gelu_of(x);
    case nas::kLeakyRelu:
      return if_less(x, Floats{}, x * alpha, x);
    case nas::kHardSigmoid:
      return hard(alpha, beta);
    default:
      return x;
  }
}

}  // namespace
