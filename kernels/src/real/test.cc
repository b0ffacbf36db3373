// Functions of floats: near the C library's in long double, right at the ends, and the same bits on every machine.
#include <cmath>
#include <limits>

#include "../../tests/check.h"
#include "nas/functions.h"

namespace nas_test {
namespace {

using Double = double (*)(double);
using Single = float (*)(float);

struct Function {
  const char* name;
  Double ours;
  long double (*exact)(long double);
  double low, high;
};

const Function kFunctions[] = {
    {"exp", nas::real::exp, std::exp, -740.0, 709.0},
    {"expm1", nas::real::expm1, std::expm1, -40.0, 40.0},
    {"tanh", nas::real::tanh, std::tanh, -21.0, 21.0},
    {"erf", nas::real::erf, std::erf, -6.5, 6.5},
};

double units_off(double value, long double exact) {
  const double size = std::fabs(static_cast<double>(exact));
  const double unit = std::nextafter(size, std::numeric_limits<double>::infinity()) - size;
  return static_cast<double>(std::fabs(static_cast<long double>(value) - exact) / static_cast<long double>(unit));
}

// Every third argument is small, every third tiny.
double argument(const Function& function, Random& random) {
  const double share = static_cast<double>(random.next() >> 5) / 281474976710656.0;  // of 2^48
  const double x = function.low + (function.high - function.low) * share;
  const std::int64_t kind = random.between(0, 2);
  return kind == 0 ? x : kind == 1 ? x / 64.0 : x / 1048576.0;
}

void near_the_exact_values(const Function& function) {
  Random random(7);
  for (int i = 0; i < 3000; ++i) {
    const double x = argument(function, random);
    const double off = units_off(function.ours(x), function.exact(x));
    check(off <= 4.0, "%s(%.17g) is %.1f units off", function.name, x, off);
  }
}

void floats_near_the_exact_values() {
  struct Row {
    const char* name;
    Single ours;
    Double exact;
  };
  const Row rows[] = {{"exp", nas::real::exp, std::exp}, {"tanh", nas::real::tanh, std::tanh}, {"erf", nas::real::erf, std::erf}};
  Random random(8);
  for (const Row& row : rows) {
    for (int i = 0; i < 3000; ++i) {
      const float x = random.real(-110.0F, 110.0F) / static_cast<float>(std::int64_t{1} << random.between(0, 12));
      const float exact = static_cast<float>(row.exact(x)), ours = row.ours(x);
      const bool beside = ours == exact || ours == std::nextafterf(exact, ours);
      check(beside, "%s(%.9g) in float is %.9g, not %.9g", row.name, static_cast<double>(x), static_cast<double>(ours), static_cast<double>(exact));
    }
  }
}

void right_at_the_ends() {
  const double infinite = std::numeric_limits<double>::infinity(), none = std::numeric_limits<double>::quiet_NaN();
  for (const Function& function : kFunctions) {
    check(std::isnan(function.ours(none)), "%s of NaN", function.name);
    for (const double x : {-infinite, infinite, -1e300, 1e300, -746.0, 710.0, 0.0, 5e-324}) {
      const double exact = static_cast<double>(function.exact(x)), ours = function.ours(x);
      check(ours == exact, "%s(%g) is %g, not %g", function.name, x, ours, exact);
    }
    check(std::signbit(function.ours(-0.0)) == std::signbit(function.exact(-0.0L)), "%s of -0", function.name);
  }
  const float ends[] = {-200.0F, 200.0F, -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()};
  for (const float x : ends) {
    check(nas::real::exp(x) == std::exp(x), "exp(%g) in float", static_cast<double>(x));
    check(nas::real::erf(x) == std::erf(x), "erf(%g) in float", static_cast<double>(x));
  }
}

// FNV-1a over the bits of many results, written down once: another compiler or processor has to give them too.
void the_same_bits_everywhere() {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  const auto add = [&](const void* value, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<const std::uint8_t*>(value)[i]) * 0x100000001b3ULL;
  };
  Random random(9);
  for (const Function& function : kFunctions) {
    for (int i = 0; i < 2000; ++i) {
      const double value = function.ours(argument(function, random));
      add(&value, sizeof value);
    }
  }
  for (const Single function : {Single(nas::real::exp), Single(nas::real::tanh), Single(nas::real::erf)}) {
    for (int i = 0; i < 2000; ++i) {
      const float value = function(random.real(-12.0F, 12.0F));
      add(&value, sizeof value);
    }
  }
  constexpr std::uint64_t kExpected = 0x81bb5a8e2620c5e7ULL;
  check(hash == kExpected, "exp, expm1, tanh and erf give other bits here: 0x%016llx", static_cast<unsigned long long>(hash));
}

}  // namespace

void real_tests() {
  for (const Function& function : kFunctions) near_the_exact_values(function);
  floats_near_the_exact_values();
  right_at_the_ends();
  the_same_bits_everywhere();
}

}  // namespace nas_test
