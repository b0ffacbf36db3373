// Every level against the portable one bit for bit, and that one against attention in double precision.
#include <cmath>
#include <vector>

#include "../../tests/check.h"
#include "nas/attention.h"

namespace nas_test {
namespace {

using nas::AttentionArgs;
using nas::Level;
using nas::Type;

struct Case {
  std::int64_t queries, keys, heads, kv_heads, head_dim;
  bool causal;
  Type out;
  bool exact = false;
};

class Problem {
 public:
  Problem(const Case& c, std::uint64_t seed)
      : case_(c), q_(c.queries * c.heads * c.head_dim), k_(c.keys * c.kv_heads * c.head_dim),
        v_(c.keys * c.kv_heads * c.head_dim) {
    Random random(seed);
    for (std::int64_t i = 0; i < c.queries * c.heads * c.head_dim; ++i) q_[i] = random.real(-1.5F, 1.5F);
    for (std::int64_t i = 0; i < c.keys * c.kv_heads * c.head_dim; ++i) {
      k_[i] = random.real(-1.5F, 1.5F);
      v_[i] = random.real(-2.0F, 2.0F);
    }
    args_.queries = c.queries, args_.keys = c.keys;
    args_.heads = c.heads, args_.kv_heads = c.kv_heads, args_.head_dim = c.head_dim;
    // Queries by token as a projection leaves them, keys and values by head as a cache holds them.
    args_.q = {q_.data(), c.heads * c.head_dim, c.head_dim};
    args_.k = {k_.data(), c.head_dim, c.keys * c.head_dim};
    args_.v = {v_.data(), c.head_dim, c.keys * c.head_dim};
    args_.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
    args_.causal = c.causal;
    args_.exact = c.exact;
    args_.y.stride = c.heads * c.head_dim;
    args_.y.type = c.out;
    args_.y.quantization = {0.02F, c.out == Type::s8 ? 4 : 130, c.out == Type::s8};
  }
  std::int64_t output_bytes() const {
    return case_.queries * case_.heads * case_.head_dim * (case_.out == Type::f32 ? 4 : 1);
  }
  void run(Level level, Buffer<std::uint8_t>& out) {
    Buffer<std::uint8_t> scratch(static_cast<std::int64_t>(nas::attention_scratch_bytes(args_)));
    args_.scratch = scratch.data();
    args_.y.data = out.data();
    nas::attention(args_, level);
    check(out.intact() && scratch.intact(), "attention on %s writes past the end", nas::level_name(level));
  }
  // Largest error as a share of the values' magnitude.
  double error(const Buffer<std::uint8_t>& out) const {
    double worst = 0.0;
    for (std::int64_t h = 0; h < case_.heads; ++h) {
      for (std::int64_t t = 0; t < case_.queries; ++t) {
        const std::vector<double> exact = defined(t, h);
        for (std::int64_t d = 0; d < case_.head_dim; ++d) {
          const std::int64_t at = t * args_.y.stride + h * case_.head_dim + d;
          worst = std::fmax(worst, std::fabs(value(out, at) - exact[static_cast<std::size_t>(d)]) / 2.0);
        }
      }
    }
    return worst;
  }

 private:
  double value(const Buffer<std::uint8_t>& out, std::int64_t at) const {
    if (case_.out == Type::f32) {
      float real;
      std::memcpy(&real, out.data() + 4 * at, 4);
      return static_cast<double>(real);
    }
    const int byte = case_.out == Type::s8 ? static_cast<std::int8_t>(out.data()[at]) : out.data()[at];
    return static_cast<double>(args_.y.quantization.scale) * (byte - args_.y.quantization.zero_point);
  }
  std::vector<double> defined(std::int64_t t, std::int64_t h) const {
    const std::int64_t kv = h / (case_.heads / case_.kv_heads);
    const std::int64_t seen = case_.causal ? case_.keys - case_.queries + t + 1 : case_.keys;
    std::vector<double> weights, sums(static_cast<std::size_t>(case_.head_dim));
    double top = -1e300, total = 0.0;
    for (std::int64_t j = 0; j < seen; ++j) {
      double dot = 0.0;
      for (std::int64_t d = 0; d < case_.head_dim; ++d) {
        dot += static_cast<double>(q_.data()[(t * case_.heads + h) * case_.head_dim + d]) *
               static_cast<double>(k_.data()[(kv * case_.keys + j) * case_.head_dim + d]);
      }
      weights.push_back(dot * static_cast<double>(args_.scale));
      top = std::fmax(top, weights.back());
    }
    for (double& weight : weights) total += weight = std::exp(weight - top);
    for (std::int64_t j = 0; j < seen; ++j) {
      for (std::int64_t d = 0; d < case_.head_dim; ++d) {
        sums[static_cast<std::size_t>(d)] += weights[static_cast<std::size_t>(j)] / total *
                                            static_cast<double>(v_.data()[(kv * case_.keys + j) * case_.head_dim + d]);
      }
    }
    return sums;
  }

  Case case_;
  Buffer<float> q_, k_, v_;
  AttentionArgs args_;
};

}  // namespace

void attention_tests() {
  for_each_level([](Level level) {
    const Level own = nas::attention_kernels(level).level;
    check(nas::level_available(own), "attention of %s is not available", nas::level_name(level));
    std::printf("attention %s attention_%s\n", nas::level_name(level), nas::level_name(own));
  });
  const Case cases[] = {
      {197, 197, 3, 3, 64, false, Type::f32}, {50, 50, 4, 2, 24, false, Type::u8}, {33, 33, 2, 1, 17, true, Type::f32},
      {5, 40, 4, 1, 32, true, Type::s8},      {1, 129, 6, 6, 64, true, Type::f32}, {3, 20, 4, 2, 40, true, Type::u8},
      {1, 1, 1, 1, 1, true, Type::f32},       {7, 7, 1, 1, 5, false, Type::f32},   {2, 2, 2, 2, 16, true, Type::f32},
      {4, 4, 2, 2, 16, true, Type::f32},      {2, 300, 8, 2, 48, true, Type::s8},
      {197, 197, 3, 3, 64, false, Type::f32, true}, {50, 50, 4, 2, 24, false, Type::u8, true},
      {33, 33, 2, 1, 17, true, Type::f32, true},    {5, 40, 4, 1, 32, true, Type::s8, true},
      {4, 4, 2, 2, 16, true, Type::f32, true},      {7, 7, 1, 1, 5, false, Type::f32, true},
      {6, 16, 1, 1, 8, false, Type::f32, true},     {13, 31, 2, 2, 1, true, Type::f32, true},
  };
  std::uint64_t seed = 40;
  for (const Case& c : cases) {
    Problem problem(c, ++seed);
    Buffer<std::uint8_t> portable(problem.output_bytes()), got(problem.output_bytes());
    problem.run(Level::portable, portable);
    // A query, a key, a weight and a value in 12 bits or more each; the output's own quantum (0.02 / 2 / 2 of magnitude 2).
    const double allowed = (c.queries < 4 || c.exact ? 1e-5 : 2e-4) + (c.out == Type::f32 ? 0.0 : 0.006);
    const double error = problem.error(portable);
    check(error <= allowed, "attention of %ld queries, %ld keys is off by %g of the values' magnitude", c.queries, c.keys,
          error);
    for_each_level([&](Level level) {
      problem.run(level, got);
      check(got.same(portable), "attention on %s differs: %ld queries, %ld keys, head of %ld, exact %d",
            nas::level_name(level), c.queries, c.keys, c.head_dim, int(c.exact));
    });
  }
}

}  // namespace nas_test
