// The packed layout of 4-bit weights: panels of 64 columns; in a panel one part per group along k:
//   group / 8 steps of 64 columns x 4 bytes, whose lower halves hold k to k + 3 and upper halves k + 4 to k + 7
//   64 scales (float)
//   64 zero points (int32)
// Columns past n have the scale 0, elements past k the value of the zero point.
#pragma once

#include <cstddef>
#include <cstdint>

namespace {

constexpr std::int64_t kInt4Columns = 64;

[[maybe_unused]] inline std::int64_t int4_groups(std::int64_t k, std::int64_t group) { return (k + group - 1) / group; }

[[maybe_unused]] inline std::int64_t int4_part_bytes(std::int64_t group) {
  return group / 2 * kInt4Columns + 2 * 4 * kInt4Columns;
}

// Activations in 8 bits, each row filled up to whole groups with zeros.
struct Int4Activations {
  std::int8_t* values;  // m x groups * group
  float* scales;        // m x groups
  std::int32_t* sums;   // m x groups
};

[[maybe_unused]] inline Int4Activations int4_activations(void* scratch, std::int64_t m, std::int64_t k,
                                                         std::int64_t group) {
  const std::int64_t groups = int4_groups(k, group);
  std::uint8_t* memory = static_cast<std::uint8_t*>(scratch);
  const std::int64_t values = (m * groups * group + 63) / 64 * 64;
  const std::int64_t scales = (m * groups * 4 + 63) / 64 * 64;
  return {reinterpret_cast<std::int8_t*>(memory), reinterpret_cast<float*>(memory + values),
          reinterpret_cast<std::int32_t*>(memory + values + scales)};
}

}  // namespace
