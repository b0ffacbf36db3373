// What the gemms with panels of 16 columns and tiles of 4 rows share: the epilogue's arrays filled up to a whole panel, and
// the walk over tiles. For one instruction set: the file that includes this brings its own vectors.
#pragma once

#include <cstring>

#include "nas/gemm.h"

namespace {

constexpr std::int64_t kPanel = 16;
constexpr std::int64_t kTileRows = 4;

struct PanelEpilogue {
  alignas(64) std::int32_t start[kPanel];
  alignas(64) float scale[kPanel];
  alignas(64) float shift[kPanel];
  std::int64_t columns;
};

// `column_sums` (or null) times `factor` is added to the bias: what a kernel takes back that shifted its activations.
[[maybe_unused]] inline void fill_epilogue(const nas::GemmEpilogue& e, std::int64_t first, std::int64_t n,
                                           const std::int32_t* column_sums, std::int32_t factor, PanelEpilogue* out) {
  out->columns = n - first < kPanel ? n - first : kPanel;
  for (std::int64_t j = 0; j < kPanel; ++j) {
    const bool inside = j < out->columns;
    std::uint32_t start = inside && e.bias != nullptr ? static_cast<std::uint32_t>(e.bias[first + j]) : 0;
    if (column_sums != nullptr) {
      start += static_cast<std::uint32_t>(column_sums[first + j]) * static_cast<std::uint32_t>(factor);
    }
    out->start[j] = static_cast<std::int32_t>(start);
    out->scale[j] = inside && e.scale != nullptr ? e.scale[first + j] : 0.0F;
    out->shift[j] = inside && e.shift != nullptr ? e.shift[first + j] : 0.0F;
  }
}

// Calls tile(rows) for 4 rows at a time and one of 1 to 3, whose number the compiler knows.
template <typename Tile>
inline void each_tile(std::int64_t m, Tile tile) {
  std::int64_t row = 0;
  for (; row + 4 <= m; row += 4) tile(std::integral_constant<int, 4>{}, row);
  switch (m - row) {
    case 3:
      tile(std::integral_constant<int, 3>{}, row);
      break;
    case 2:
      tile(std::integral_constant<int, 2>{}, row);
      break;
    case 1:
      tile(std::integral_constant<int, 1>{}, row);
      break;
    default:
      break;
  }
}

}  // namespace
