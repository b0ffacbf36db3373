// exp, expm1, tanh and erf without the C library, whose functions differ from version to version and with what a processor
// has: a model has to give the same bytes in Python, in nasq-run and on every board. Those of double are at most 4 units in
// the last place off; those of float are rounded correctly but for about one in a million.
#pragma once

#include <cstdint>
#include <cstring>

namespace nas {
namespace real {

double exp(double x);
double expm1(double x);
double tanh(double x);
double erf(double x);

// Static, so that the linker cannot take the copy of a file that needs AVX-512; not in a namespace without a name, which
// real::exp would not look into.

constexpr int kRoots = 32;

struct RootTable {
  double of[kRoots];
};

// 2^(i / 32), by the series of exp.
static constexpr RootTable make_root_table() {
  RootTable table{};
  for (int i = 0; i < kRoots; ++i) {
    const double x = 0.6931471805599453 * i / kRoots;
    double sum = 0.0;
    for (int k = 20; k > 0; --k) sum = (1.0 + sum) * x / k;
    table.of[i] = 1.0 + sum;
  }
  return table;
}

constexpr RootTable kRootTable = make_root_table();

// x = (whole / 32) ln 2 + r: a root of two from the table, the power of two into its exponent, the series up to r^4 / 4!.
[[maybe_unused]] static inline float exp(float x) {
  constexpr double kStep = 0.6931471805599453 / kRoots;
  constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52: what is added to it loses all bits behind the point
  if (!(x == x)) return x;
  const double bounded = x < -105.0F ? -105.0 : x > 90.0F ? 90.0 : static_cast<double>(x);  // 0 and infinity, as floats
  const double shifted = bounded * (1.0 / kStep) + kRounder;
  const double r = bounded - (shifted - kRounder) * kStep;
  std::uint64_t whole, bits;
  std::memcpy(&whole, &shifted, sizeof whole);
  std::memcpy(&bits, &kRootTable.of[whole % kRoots], sizeof bits);
  bits += (whole / kRoots) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof power);
  return static_cast<float>(power + power * (r + r * r * (0.5 + r * (1.0 / 6) + r * r * (1.0 / 24))));
}

[[maybe_unused]] static inline float tanh(float x) { return static_cast<float>(real::tanh(static_cast<double>(x))); }
// Taylor polynomials of erf around the middles of intervals of a quarter from 0.25 on.
struct ErfTable {
  static constexpr int kIntervals = 23, kTerms = 15;
  static constexpr double kFirst = 0.25, kWidth = 0.25, kEnd = kFirst + kIntervals * kWidth;
  double terms[kIntervals][kTerms];

  // `size` from kFirst to below kEnd; fewer terms are less exact.
  template <int COUNT>
  double at(double size) const {
    const int interval = static_cast<int>((size - kFirst) / kWidth);
    const double from_middle = size - (kFirst + (interval + 0.5) * kWidth);
    double sum = terms[interval][COUNT - 1];
    for (int k = COUNT - 2; k >= 0; --k) sum = sum * from_middle + terms[interval][k];
    return sum;
  }
};

extern const ErfTable kErfTable;

constexpr double kTwoOverRootPi = 1.1283791670955126;

// 10 terms are 1e-11 off, and so are 6 of the series at zero, sum of (-1)^k x^(2k) / (k! (2k + 1)).
[[maybe_unused]] static inline float erf(float x) {
  const double wide = x, size = x < 0.0F ? -wide : wide, square = wide * wide;
  if (size < ErfTable::kFirst) {
    const double sum = 1.0 + square * (-1.0 / 3 + square * (1.0 / 10 + square * (-1.0 / 42 + square * (1.0 / 216 - square / 1320))));
    return static_cast<float>(wide * (kTwoOverRootPi * sum));
  }
  if (!(size < ErfTable::kEnd)) return static_cast<float>(real::erf(wide));
  const double value = kErfTable.at<10>(size);
  return static_cast<float>(x < 0.0F ? -value : value);
}

}  // namespace real
}  // namespace nas
