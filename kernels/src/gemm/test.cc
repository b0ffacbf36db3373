// Every kernel against the portable one, and the portable one against the definition in nas/gemm.h.
#include <cmath>

#include "../../tests/check.h"
#include "nas/gemm.h"

namespace nas_test {
namespace {

using nas::GemmArgs;
using nas::GemmEpilogue;
using nas::GemmKernel;
using nas::GemmOutput;
using nas::Level;

struct Case {
  std::int64_t m, n, k;
  GemmOutput output;
  bool a_signed, transposed, extreme, with_rows;
};

int element_bytes(GemmOutput output) { return output == GemmOutput::u8 || output == GemmOutput::s8 ? 1 : 4; }

// One problem with its own exact buffers.
class Problem {
 public:
  Problem(const Case& c, std::uint64_t seed)
      : case_(c), lda_(c.k + static_cast<std::int64_t>(seed % 3) * 5), ldc_(c.n + static_cast<std::int64_t>(seed % 2) * 7),
        a_(c.m > 0 ? (c.m - 1) * lda_ + c.k : 0), w_(c.n * c.k), bias_(c.n), rows_(c.m), scale_(c.n), shift_(c.n) {
    Random random(seed);
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(a_.bytes()); ++i) {
      a_[i] = static_cast<std::uint8_t>(c.extreme ? (c.a_signed ? 0x80 : 0xff) : random.between(0, 255));
    }
    for (std::int64_t i = 0; i < c.n * c.k; ++i) {
      w_[i] = static_cast<std::int8_t>(c.extreme ? (i % 3 == 0 ? 127 : -128) : random.between(-128, 127));
    }
    for (std::int64_t j = 0; j < c.n; ++j) {
      bias_[j] = static_cast<std::int32_t>(random.between(-40000, 40000));
      // From rounding everything to zero to saturating everything, exact halves among them; beyond 1 in some cases only,
      // since kernels may treat a problem with such scales apart.
      const float scales[] = {0.5F, 0.25F, 1e-3F, 3e-5F, 1.0F, 700.0F, 3e20F};
      scale_[j] = j % 4 == 0 ? scales[random.between(0, seed % 3 == 0 ? 6 : 3)] : random.real(1e-4F, 1e-2F);
      shift_[j] = random.real(-3.0F, 3.0F);
    }
    for (std::int64_t i = 0; i < c.m; ++i) rows_[i] = static_cast<std::int32_t>(random.between(-9000, 9000));
    GemmEpilogue& e = args_.epilogue;
    e.output = c.output;
    const bool is_signed = c.output == GemmOutput::s8;
    e.low = is_signed ? -128 : 0;
    e.high = is_signed ? 127 : 255;
    e.zero_point = static_cast<std::int32_t>(random.between(e.low, e.high));
    if (seed % 4 == 1) e.low = e.zero_point;  // ReLU
    if (seed % 8 == 5) e.high = static_cast<std::int32_t>(random.between(e.low, e.high));
    e.bias = seed % 5 == 0 ? nullptr : bias_.data();
    e.row_term = c.with_rows ? rows_.data() : nullptr;
    e.scale = c.output == GemmOutput::s32 ? nullptr : scale_.data();
    e.shift = seed % 3 == 0 ? nullptr : shift_.data();
    args_.m = c.m;
    args_.n = c.n;
    args_.k = c.k;
    args_.a = a_.data();
    args_.lda = lda_;
    args_.a_signed = c.a_signed;
    args_.ldc = ldc_;
  }

  std::int64_t stride_n() const { return case_.transposed ? 1 : case_.k; }
  std::int64_t stride_k() const { return case_.transposed ? case_.n : 1; }
  std::int64_t output_bytes() const {
    return (case_.m > 0 ? (case_.m - 1) * ldc_ + case_.n : 0) * element_bytes(case_.output);
  }

  void run(const GemmKernel& kernel, Buffer<std::uint8_t>& out) {
    Buffer<std::uint8_t> packed(static_cast<std::int64_t>(kernel.packed_bytes(case_.n, case_.k)));
    kernel.pack(w_.data(), stride_n(), stride_k(), case_.n, case_.k, packed.data());
    check(packed.intact(), "%s packs past the end", kernel.name);
    out.fill(0xA5);
    args_.packed = packed.data();
    args_.c = out.data();
    kernel.run(args_);
    check(out.intact(), "%s writes past the end: m %ld n %ld k %ld", kernel.name, case_.m, case_.n, case_.k);
  }

  // The definition, word for word, in 64 bits.
  void define(Buffer<std::uint8_t>& out) {
    out.fill(0xA5);
    const GemmEpilogue& e = args_.epilogue;
    for (std::int64_t i = 0; i < case_.m; ++i) {
      for (std::int64_t j = 0; j < case_.n; ++j) {
        std::int64_t sum = (e.bias ? e.bias[j] : 0) + std::int64_t{e.row_term ? e.row_term[i] : 0};
        for (std::int64_t k = 0; k < case_.k; ++k) {
          const std::uint8_t byte = a_[i * lda_ + k];
          sum += std::int64_t{case_.a_signed ? static_cast<std::int8_t>(byte) : byte} * w_[j * stride_n() + k * stride_k()];
        }
        put(out.data() + (i * ldc_ + j) * element_bytes(case_.output), static_cast<std::int32_t>(sum), j);
      }
    }
  }

 private:
  void put(std::uint8_t* to, std::int32_t sum, std::int64_t j) const {
    const GemmEpilogue& e = args_.epilogue;
    if (e.output == GemmOutput::s32) {
      std::memcpy(to, &sum, 4);
    } else if (e.output == GemmOutput::f32) {
      volatile float value = static_cast<float>(sum) * e.scale[j];
      if (e.shift != nullptr) value = value + e.shift[j];
      const float result = value;
      std::memcpy(to, &result, 4);
    } else {
      volatile float value = static_cast<float>(sum) * e.scale[j];
      double q = std::nearbyint(static_cast<double>(value)) + e.zero_point;
      q = q < e.low ? e.low : q > e.high ? e.high : q;
      *to = static_cast<std::uint8_t>(static_cast<std::int32_t>(q));
    }
  }

  Case case_;
  std::int64_t lda_, ldc_;
  Buffer<std::uint8_t> a_;
  Buffer<std::int8_t> w_;
  Buffer<std::int32_t> bias_, rows_;
  Buffer<float> scale_, shift_;
  GemmArgs args_;
};

void compare(const Case& c, std::uint64_t seed) {
  Problem problem(c, seed);
  Buffer<std::uint8_t> defined(problem.output_bytes()), portable(problem.output_bytes()), got(problem.output_bytes());
  problem.define(defined);
  problem.run(nas::gemm_kernel(Level::portable), portable);
  check(portable.same(defined), "portable gemm differs from the definition: m %ld n %ld k %ld output %d signed %d", c.m,
        c.n, c.k, static_cast<int>(c.output), c.a_signed);
  for_each_level([&](Level level) {
    const GemmKernel& kernel = nas::gemm_kernel(level);
    problem.run(kernel, got);
    check(got.same(portable), "%s differs: m %ld n %ld k %ld output %d signed %d transposed %d extreme %d rows %d",
          kernel.name, c.m, c.n, c.k, static_cast<int>(c.output), c.a_signed, c.transposed, c.extreme, c.with_rows);
  });
}

}  // namespace

void gemm_tests() {
  for_each_level([](Level level) {
    const GemmKernel& kernel = nas::gemm_kernel(level);
    check(nas::level_available(kernel.level), "the gemm of %s needs %s", nas::level_name(level),
          nas::level_name(kernel.level));
    std::printf("gemm %s %s\n", nas::level_name(level), kernel.name);
  });
  const GemmOutput outputs[] = {GemmOutput::u8, GemmOutput::s8, GemmOutput::f32, GemmOutput::s32};
  Random random(4);
  std::uint64_t seed = 0;
  const auto one = [&](std::int64_t m, std::int64_t n, std::int64_t k) {
    for (int variant = 0; variant < 2; ++variant, ++seed) {
      compare({m, n, k, outputs[seed % 4], random.next() % 2 == 0, random.next() % 2 == 0, random.next() % 8 == 0,
               random.next() % 4 == 0},
              seed);
    }
  };
  for (std::int64_t n = 1; n <= 70; ++n) one(random.between(1, 14), n, random.between(1, 40));
  for (std::int64_t m = 1; m <= 26; ++m) one(m, random.between(1, 140), random.between(1, 40));
  for (std::int64_t k = 1; k <= 40; ++k) one(random.between(1, 14), random.between(1, 80), k);
  one(3, 5, 0);
  one(1, 200, 1000);
  one(2, 17, 70000);  // sums beyond 31 bits
  one(130, 33, 1027);
}

}  // namespace nas_test
