// The reference: what every other kernel must equal bit for bit.
#include <cmath>

#include "nas/gemm.h"

namespace nas {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint32_t;
using std::uint8_t;

constexpr int64_t kColumns = 16;

// Panels of 16 columns, each k rows of 16 bytes; columns past n are zero.
std::size_t packed_bytes(int64_t n, int64_t k) {
  return static_cast<std::size_t>((n + kColumns - 1) / kColumns * kColumns * k);
}

void pack(const int8_t* w, int64_t stride_n, int64_t stride_k, int64_t n, int64_t k, void* packed) {
  int8_t* out = static_cast<int8_t*>(packed);
  for (int64_t first = 0; first < n; first += kColumns) {
    for (int64_t row = 0; row < k; ++row) {
      for (int64_t j = first; j < first + kColumns; ++j) *out++ = j < n ? w[j * stride_n + row * stride_k] : int8_t{0};
    }
  }
}

int32_t requantized(uint32_t sum, float scale, const GemmEpilogue& e) {
  // Clipped before the conversion, which is undefined beyond 32 bits; the bounds are integers, so rounding commutes.
  float value = static_cast<float>(static_cast<int32_t>(sum)) * scale;
  value = std::fmin(std::fmax(value, static_cast<float>(e.low - e.zero_point)),
                    static_cast<float>(e.high - e.zero_point));
  return static_cast<int32_t>(std::nearbyint(value)) + e.zero_point;
}

void store(const GemmArgs& args, int64_t i, int64_t j, uint32_t sum) {
  const GemmEpilogue& e = args.epilogue;
  if (e.bias != nullptr) sum += static_cast<uint32_t>(e.bias[j]);
  if (e.row_term != nullptr) sum += static_cast<uint32_t>(e.row_term[i]);
  const int64_t at = i * args.ldc + j;
  switch (e.output) {
    case GemmOutput::u8:
      static_cast<uint8_t*>(args.c)[at] = static_cast<uint8_t>(requantized(sum, e.scale[j], e));
      break;
    case GemmOutput::s8:
      static_cast<int8_t*>(args.c)[at] = static_cast<int8_t>(requantized(sum, e.scale[j], e));
      break;
    case GemmOutput::f32: {
      const float value = static_cast<float>(static_cast<int32_t>(sum)) * e.scale[j];
      static_cast<float*>(args.c)[at] = e.shift != nullptr ? value + e.shift[j] : value;
      break;
    }
    case GemmOutput::s32:
      static_cast<int32_t*>(args.c)[at] = static_cast<int32_t>(sum);
      break;
  }
}

void run(const GemmArgs& args) {
  const uint8_t* a = static_cast<const uint8_t*>(args.a);
  const int8_t* packed = static_cast<const int8_t*>(args.packed);
  for (int64_t first = 0; first < args.n; first += kColumns) {
    const int8_t* panel = packed + first * args.k;
    const int64_t columns = args.n - first < kColumns ? args.n - first : kColumns;
    for (int64_t i = 0; i < args.m; ++i) {
      const uint8_t* row = a + i * args.lda;
      uint32_t sums[kColumns] = {};
      for (int64_t k = 0; k < args.k; ++k) {
        const int32_t value = args.a_signed ? static_cast<int8_t>(row[k]) : row[k];
        for (int64_t j = 0; j < kColumns; ++j) sums[j] += static_cast<uint32_t>(value * panel[k * kColumns + j]);
      }
      for (int64_t j = 0; j < columns; ++j) store(args, i, first + j, sums[j]);
    }
  }
}

}  // namespace

const GemmKernel gemm_u8s8s32_portable = {Level::portable, "gemm_u8s8s32_portable", packed_bytes, pack, run};

}  // namespace nas
