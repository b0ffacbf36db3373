// exp, expm1, tanh and erf by Taylor polynomials: short, and the same operations in the same order everywhere. Nothing here
// may be contracted to fused products, which -ffp-contract=off sees to.
#include "nas/functions.h"

#include <cstdint>
#include <cstring>
#include <limits>

namespace nas {
namespace real {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52: what is added to it loses all bits behind the point
// ln 2 in two parts; the first ends in 21 zero bits, so that its product with a whole number below 2^21 is exact.
constexpr double kLn2High = 0.6931471803691238, kLn2Low = 1.9082149292705877e-10;

double power_of_two(std::int64_t exponent) {  // from -1022 to 1023
  const std::uint64_t bits = static_cast<std::uint64_t>(exponent + 1023) << 52;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// (exp(r) - 1 - r) / r^2 for |r| <= ln 2 / 2: the series up to r^13 / 13!, even and odd powers apart.
double beyond_linear(double r) {
  const double square = r * r;
  double even = 1.0 / 479001600, odd = 1.0 / 6227020800;
  even = even * square + 1.0 / 3628800, odd = odd * square + 1.0 / 39916800;
  even = even * square + 1.0 / 40320, odd = odd * square + 1.0 / 362880;
  even = even * square + 1.0 / 720, odd = odd * square + 1.0 / 5040;
  even = even * square + 1.0 / 24, odd = odd * square + 1.0 / 120;
  even = even * square + 1.0 / 2, odd = odd * square + 1.0 / 6;
  return even + r * odd;
}

// erf(m) and its slope 2 / sqrt(pi) * exp(-m^2) at each middle.
constexpr double kMiddles[ErfTable::kIntervals][2] = {
    {0.4041169094348223, 0.9803528095459079},
    {0.623240882188418, 0.7634995357606049},
    {0.7840750610598597, 0.5247450452901482},
    {0.8883882317017078, 0.3182739585007693},
    {0.9481700727820903, 0.1703597736875156},
    {0.9784437332399837, 0.08047225902251116},
    {0.9919900576701199, 0.03354582842421607},
    {0.9973459706405177, 0.012340820614333696},
    {0.9992170617821089, 0.004006477861670219},
    {0.9997946242638588, 0.001147875125882675},
    {0.9999521451602562, 0.00029022828286249803},
    {0.9999901032653747, 6.475868323471298e-05},
    {0.9999981847185726, 1.2751740799765088e-05},
    {0.9999997048598075, 2.2159202846331124e-06},
    {0.999999957486056, 3.398223817809154e-07},
    {0.9999999945765992, 4.598995828846052e-08},
    {0.9999999993875167, 5.492717228853464e-09},
    {0.9999999999387839, 5.789281366587474e-10},
    {0.9999999999945866, 5.384870492099458e-11},
    {0.9999999999995766, 4.4201708693385726e-12},
    {0.9999999999999707, 3.2019610382476225e-13},
    {0.9999999999999982, 2.046945208423793e-14},
    {0.9999999999999999, 1.154807464350253e-15},
};

// The slope g satisfies g' = -2 x g, hence (k + 1) g[k + 1] = -2 (m g[k] + g[k - 1]) for its Taylor coefficients.
constexpr ErfTable make_erf_table() {
  ErfTable table{};
  for (int interval = 0; interval < ErfTable::kIntervals; ++interval) {
    const double middle = ErfTable::kFirst + (interval + 0.5) * ErfTable::kWidth;
    double before = 0.0, slope = kMiddles[interval][1];
    table.terms[interval][0] = kMiddles[interval][0];
    for (int k = 1; k < ErfTable::kTerms; ++k) {
      table.terms[interval][k] = slope / k;
      const double next = -2.0 * (middle * slope + before) / k;
      before = slope;
      slope = next;
    }
  }
  return table;
}

// sum of (-1)^k x^(2k) / (k! (2k + 1)), for x^2 <= 1/16.
double erf_series(double square) {
  double sum = 1.0 / (40320 * 17);
  sum = sum * square - 1.0 / (5040 * 15);
  sum = sum * square + 1.0 / (720 * 13);
  sum = sum * square - 1.0 / (120 * 11);
  sum = sum * square + 1.0 / (24 * 9);
  sum = sum * square - 1.0 / (6 * 7);
  sum = sum * square + 1.0 / (2 * 5);
  sum = sum * square - 1.0 / 3;
  return sum * square + 1.0;
}

}  // namespace

extern constexpr ErfTable kErfTable = make_erf_table();

double exp(double x) {
  if (x != x) return x;
  if (x > 709.8) return std::numeric_limits<double>::infinity();
  if (x < -745.2) return 0.0;
  const double whole = (x * kLog2E + kRounder) - kRounder;
  const double r = (x - whole * kLn2High) - whole * kLn2Low;
  const double value = 1.0 + (r + r * r * beyond_linear(r));
  // In two steps, since the power alone may leave the range of normal numbers.
  const std::int64_t exponent = static_cast<std::int64_t>(whole), half = exponent / 2;
  return value * power_of_two(half) * power_of_two(exponent - half);
}

double expm1(double x) {
  if (x > -0.34 && x < 0.34) return x * (1.0 + x * beyond_linear(x));  // keeps the sign of a zero
  return exp(x) - 1.0;
}

double tanh(double x) {
  const double size = x < 0.0 ? -x : x;
  if (size > 20.0) return x < 0.0 ? -1.0 : 1.0;
  const double grown = expm1(2.0 * size), value = grown / (grown + 2.0);
  return x < 0.0 ? -value : value;
}

double erf(double x) {
  const double size = x < 0.0 ? -x : x;
  if (size < ErfTable::kFirst) return x * (kTwoOverRootPi * erf_series(x * x));
  if (x != x) return x;
  if (size >= ErfTable::kEnd) return x < 0.0 ? -1.0 : 1.0;
  const double value = kErfTable.at<ErfTable::kTerms>(size);
  return x < 0.0 ? -value : value;
}

}  // namespace real
}  // namespace nas
