// What the kernels expect of the C++ library, and the functions of floats that have one correct result. Its own copies would
// bring in exceptions, their messages in all languages and a demangler for them.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "system.h"

template class std::basic_string<char>;

namespace std {
void __throw_length_error(const char*) { runner::out_of_memory(); }
void __throw_logic_error(const char*) { abort(); }
void __throw_bad_alloc() { runner::out_of_memory(); }
void __throw_bad_array_new_length() { runner::out_of_memory(); }
void __throw_out_of_range_fmt(const char*, ...) { abort(); }
}  // namespace std

namespace {

float no_sign(float x) { return __builtin_fabsf(x); }

// The sum of two doubles, rounded to odd: if anything was lost, the last bit is 1. Rounded once more to float, it is what one
// rounding of the exact sum gives, since a double has more than two bits in excess.
double sum_to_odd(double a, double b) {
  const double sum = a + b, of_b = sum - a;
  const double lost = (a - (sum - of_b)) + (b - of_b);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &sum, sizeof bits);
  if (lost == 0.0 || lost != lost || (bits & 1) != 0) return sum;
  bits += (lost > 0.0) == (sum > 0.0) ? 1 : -1;
  double odd = 0.0;
  std::memcpy(&odd, &bits, sizeof odd);
  return odd;
}

}  // namespace

extern "C" {

void __cxa_pure_virtual() { abort(); }

// Where the compiler knows an instruction for them it never calls these.
float nearbyintf(float x) noexcept {
  constexpr float kNoFractions = 8388608.0F;  // 2^23
  if (!(no_sign(x) < kNoFractions)) return x;
  return __builtin_copysignf(no_sign(x) + kNoFractions - kNoFractions, x);
}

// The product of two floats is exact in double.
float fmaf(float a, float b, float c) noexcept { return static_cast<float>(sum_to_odd(double(a) * double(b), double(c))); }

float fmaxf(float a, float b) noexcept { return a != a || a < b ? b : a; }
float fminf(float a, float b) noexcept { return a != a || b < a ? b : a; }

#pragma GCC push_options
#pragma GCC optimize("no-math-errno")
float sqrtf(float x) noexcept { return __builtin_sqrtf(x); }
double sqrt(double x) noexcept { return __builtin_sqrt(x); }
#pragma GCC pop_options

}  // extern "C"
