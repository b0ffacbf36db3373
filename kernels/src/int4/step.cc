// Products with 4-bit weights, and rows of 4-bit tables, as operators of a planned program: weights, scales and zero points as
// ONNX stores them.
#include <cstdlib>

#include "../execute/step.h"
#include "nas/int4.h"

namespace nas {
namespace {

// Per row and group sums stay within 32 bits for groups of this many.
constexpr std::int64_t kMostGroup = 1024;
constexpr std::int64_t kManyRows = 8;  // for each part
constexpr std::uint64_t kMostWeights = std::uint64_t{1} << 31;

class Product final : public Step {
 public:
  Product(const Int4Kernel& kernel, const Int4Args& args, std::uint8_t* packed, std::uint64_t in, std::uint64_t out, int parts)
      : kernel_(kernel), args_(args), packed_(packed), in_(in), out_(out), parts_(parts) {
    args_.packed = packed;
  }
  ~Product() override { std::free(packed_); }
  // Rows where there are many; else columns, for which every part rounds the few rows itself.
  void run(std::uint8_t* arena, std::uint8_t* scratch, Part part) const override {
    Int4Args now = args_;
    now.a = reinterpret_cast<const float*>(arena + in_);
    now.c = reinterpret_cast<float*>(arena + out_);
    now.scratch = scratch;
    if (args_.m >= kManyRows * part.count) {
      const Span rows = share(args_.m, part, 2);
      now.m = rows.size();
      now.a += rows.first * now.lda;
      now.c += rows.first * now.ldc;
    } else {
      const Span columns = share(args_.n, part, int4_panel_columns());
      now.n = columns.size();
      now.packed = packed_ + int4_packed_bytes(columns.first, args_.k, args_.group);
      now.shift += columns.first;
      now.c += columns.first;
    }
    kernel_.run(now);
  }
  int parts() const override { return parts_; }
  std::size_t scratch_bytes() const override { return int4_scratch_bytes(args_.m, args_.k, args_.group); }
  const char* kernel() const override { return kernel_.name; }

 private:
  const Int4Kernel& kernel_;
  Int4Args args_;
  std::uint8_t* packed_;
  std::uint64_t in_, out_;
  int parts_;
};

}  // namespace

StepPtr make_matmul_int4(const OpView& view) {
  if (!view.counts(1, 1, 4, 1, 0)) return nullptr;
  const TensorRecord &in = view.input(0), &out = view.output();
  if (!is(in, Dtype::kF32) || !is(out, Dtype::kF32) || in.rank != 2 || out.rank != 2) return nullptr;
  Int4Args args;
  args.m = in.dims[0], args.k = args.lda = in.dims[1], args.n = args.ldc = out.dims[1], args.group = view.op.ints[0];
  if (out.dims[0] != in.dims[0] || args.group < 16 || args.group > kMostGroup || args.group % 16 != 0) return nullptr;
  const std::uint64_t n = std::uint64_t(args.n), groups = std::uint64_t((args.k + args.group - 1) / args.group);
  if (groups * std::uint64_t(args.group) > kMostWeights / n) return nullptr;
  const ConstantRecord &weights = view.constant(0), &scales = view.constant(1), &zeros = view.constant(2);
  const ConstantRecord& bias = view.constant(3);
  if (weights.dtype != Dtype::kU8 || weights.elements != n * groups * std::uint64_t(args.group) / 2) return nullptr;
  if (scales.dtype != Dtype::kF32 || scales.elements != n * groups) return nullptr;
  if (zeros.dtype != Dtype::kU8 || zeros.elements != n * ((groups + 1) / 2)) return nullptr;
  if (bias.dtype != Dtype::kF32 || bias.elements != n) return nullptr;
  args.shift = values<float>(bias);
  void* packed = std::aligned_alloc(64, int4_packed_bytes(args.n, args.k, args.group));
  if (packed == nullptr) return nullptr;
  int4_pack({values<std::uint8_t>(weights), values<float>(scales), values<std::uint8_t>(zeros)}, args.n, args.k, args.group,
            packed);
  const int parts = view.parts(double(args.m) * double(args.n) * double(args.k) * kNsPerInt4Mac);
  return StepPtr(new Product(int4_kernel(view.level), args, static_cast<std::uint8_t*>(packed), in.offset, out.offset, parts));
}

// Rows of a table of 4-bit values: (value - 8) * scale, one scale per group along a row; ints: rows, width, group.
StepPtr make_gather_int4(const OpView& view) {
  if (!view.counts(1, 1, 2, 3, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const ConstantRecord &table = view.constant(0), &scales = view.constant(1);
  const std::int64_t rows = view.op.ints[0], width = view.op.ints[1], group = view.op.ints[2];
  if (!is(in, Dtype::kI64) || !is(out, Dtype::kF32) || table.dtype != Dtype::kU8 || scales.dtype != Dtype::kF32) return nullptr;
  const std::int64_t most = std::int64_t(kMostWeights);
  if (rows < 1 || width < 2 || rows > most / width || width % 2 != 0 || group < 16 || group > kMostGroup || group % 2 != 0) return nullptr;
  const std::int64_t groups = (width + group - 1) / group;
  if (table.elements != std::uint64_t(rows * width / 2) || scales.elements != std::uint64_t(rows * groups)) return nullptr;
  if (in.elements * std::uint64_t(width) != out.elements) return nullptr;
  const std::uint8_t* entries = values<std::uint8_t>(table);
  const float* steps = values<float>(scales);
  return step_of("gather_int4_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    const std::int64_t* index = at<std::int64_t>(arena, in);
    float* to = at<float>(arena, out);
    for (std::size_t i = 0; i < in.elements; ++i, to += width) {
      const std::int64_t row = index[i] < 0 ? index[i] + rows : index[i];
      const bool inside = row >= 0 && row < rows;
      for (std::int64_t j = 0; j < width; j += 2) {
        const int both = inside ? entries[(row * width + j) / 2] : 0x88;
        const float step = inside ? steps[row * groups + j / group] : 0.0F;
        to[j] = float((both & 15) - 8) * step;
        to[j + 1] = float((both >> 4) - 8) * step;
      }
    }
  });
}

}  // namespace nas
