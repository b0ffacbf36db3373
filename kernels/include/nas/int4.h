// Products of float activations with 4-bit weights that share a scale per group along k: MatMulNBits of ONNX Runtime with
// accuracy level 4.
//
// Activations are rounded to 8 bits per row and group (largest magnitude 127), groups are summed exactly, and their sums are
// added up in float in order of k. Every level gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nas/level.h"

namespace nas {

// c[i][j] = shift[j] + (over groups g) float(sum) * (a_scale[i][g] * w_scale[j][g]), with one rounding per addition.
struct Int4Args {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t group = 128;  // a multiple of 16, as given to pack
  const float* a = nullptr;
  std::int64_t lda = 0;  // elements
  const void* packed = nullptr;
  const float* shift = nullptr;  // n entries, or null for zeros
  float* c = nullptr;
  std::int64_t ldc = 0;
  void* scratch = nullptr;  // int4_scratch_bytes(m, k, group), aligned to 64 bytes
};

// Layout of the weights as ONNX stores them: (n, groups, group / 2) bytes, the lower half of a byte first; scales (n, groups);
// zero points (n, (groups + 1) / 2) bytes in the same order, or null, which stands for 8.
struct Int4Weights {
  const std::uint8_t* values = nullptr;
  const float* scales = nullptr;
  const std::uint8_t* zero_points = nullptr;
};

struct Int4Kernel {
  Level level;
  const char* name;
  void (*run)(const Int4Args& args);
};

const Int4Kernel& int4_kernel(Level level);

// The packed layout is the same for all kernels; its memory is aligned to 64 bytes. Columns from a multiple of
// int4_panel_columns on lie int4_packed_bytes of the columns before them behind the start.
std::int64_t int4_panel_columns();
std::size_t int4_packed_bytes(std::int64_t n, std::int64_t k, std::int64_t group);
void int4_pack(const Int4Weights& weights, std::int64_t n, std::int64_t k, std::int64_t group, void* packed);
std::size_t int4_scratch_bytes(std::int64_t m, std::int64_t k, std::int64_t group);

}  // namespace nas
