// The binary form of a planned program, read without trusting it. nas/runtime/plan/program.py writes it and holds the
// same numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace nas {

enum class Dtype : std::uint32_t { kU8 = 0, kF32 = 1, kI64 = 2, kBool = 3, kI32 = 4, kS8 = 5 };
constexpr std::uint32_t kDtypes = 6;
// Of constants only: 8-bit weights that the file holds in 4 bits. Once read they are kS8.
constexpr std::uint32_t kGroupedInt4 = 6;
std::size_t bytes_of(Dtype dtype);

enum class Kind : std::uint32_t {
  kQuantize = 1,
  kDequantize = 2,
  kTable = 3,
  kConvU8 = 4,
  kAddU8 = 5,
  kMulU8 = 6,
  kMeanU8 = 7,
  kConvF32 = 8,
  kBinaryF32 = 9,
  kUnaryF32 = 10,
  kMeanF32 = 11,
  kTranspose = 12,
  kPool = 13,
  kGather = 14,
  kWhere = 15,
  kLookupF32 = 16,
  kMatmulF32 = 17,
  kNormF32 = 18,
  kSoftmaxF32 = 19,
  kSlice = 20,
  kConcat = 21,
  kConstant = 22,
  kAttentionF32 = 23,
  kMatmulInt4 = 24,
  kAttentionCached = 25,
  kRowsAt = 26,
  kGatherS8 = 27,
  kGatherInt4 = 28,
};

// Name of a kind as the planner knows it, nullptr for an unknown number.
const char* kind_name(std::uint32_t kind);

constexpr std::uint32_t kMostAxes = 6;

// A tensor in the arena; dims beyond rank are 1.
struct TensorRecord {
  Dtype dtype;
  std::uint64_t offset;
  std::uint32_t rank;
  std::uint32_t dims[kMostAxes];
  std::uint64_t elements;
};

struct ConstantRecord {
  Dtype dtype;
  std::uint64_t elements;
  const std::uint8_t* data;  // aligned to 64 bytes, inside Plan::storage or Plan::expanded
};

struct OpRecord {
  Kind kind;
  std::string name;
  std::vector<std::uint32_t> inputs, outputs, constants;
  std::vector<std::int64_t> ints;
  std::vector<float> floats;
};

// Every index, offset and size in it was checked: tensors lie inside the arena, constants inside the blob.
struct Plan {
  std::uint64_t arena_bytes = 0;
  std::vector<TensorRecord> tensors;
  std::vector<ConstantRecord> constants;
  std::vector<OpRecord> ops;
  std::vector<std::uint32_t> inputs, outputs;
  std::vector<std::uint8_t> storage;
  std::vector<std::vector<std::uint8_t>> expanded;
};

// Reads `size` bytes into `plan` and returns an empty string, or what is wrong with them. Throws nothing itself.
std::string load_plan(const std::uint8_t* data, std::size_t size, Plan* plan);

}  // namespace nas
