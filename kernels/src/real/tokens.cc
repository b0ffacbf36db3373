// What networks on tokens compute in float beside their products with weights.
#include <algorithm>

#include "../execute/step.h"
#include "nas/norm.h"

namespace nas {
namespace {

bool floats_of_one_shape(const TensorRecord& in, const TensorRecord& out) {
  return is(in, Dtype::kF32) && is(out, Dtype::kF32) && same_shape(in, out) && in.rank > 0;
}

}  // namespace

StepPtr make_matmul_f32(const OpView& view) {
  if (!view.counts(2, 1, 0, 0, 0)) return nullptr;
  const TensorRecord a = view.input(0), b = view.input(1), out = view.output();
  if (!is(a, Dtype::kF32) || !is(b, Dtype::kF32) || !is(out, Dtype::kF32)) return nullptr;
  if (a.rank < 2 || a.rank != b.rank || a.rank != out.rank) return nullptr;
  std::size_t batch = 1;
  for (std::uint32_t axis = 0; axis + 2 < a.rank; ++axis) {
    if (a.dims[axis] != b.dims[axis] || a.dims[axis] != out.dims[axis]) return nullptr;
    batch *= a.dims[axis];
  }
  const std::size_t rows = a.dims[a.rank - 2], depth = a.dims[a.rank - 1], columns = b.dims[a.rank - 1];
  if (b.dims[a.rank - 2] != depth || out.dims[a.rank - 2] != rows || out.dims[a.rank - 1] != columns) return nullptr;
  const int parts = view.parts(double(batch * rows) * double(depth * columns) * kNsPerFloatMac);
  return shared_step("matmul_f32_portable", parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
    const Span here = share(std::int64_t(batch * rows), part);
    for (std::size_t row = std::size_t(here.first); row < std::size_t(here.end); ++row) {
      const float *x = at<float>(arena, a) + row * depth, *y = at<float>(arena, b) + row / rows * depth * columns;
      float* z = at<float>(arena, out) + row * columns;
      std::fill(z, z + columns, 0.0F);
      for (std::size_t k = 0; k < depth; ++k) {
        const float factor = x[k];
        for (std::size_t column = 0; column < columns; ++column) z[column] += factor * y[k * columns + column];
      }
    }
  });
}

StepPtr make_softmax_f32(const OpView& view) {
  if (!view.counts(1, 1, 0, 0, 0) || !floats_of_one_shape(view.input(0), view.output())) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const std::int64_t width = in.dims[in.rank - 1];
  const NormKernels& kernels = norm_kernels(view.level);
  const int parts = view.parts(double(in.elements) * kNsPerFunction);
  const auto run = [=, &kernels](std::uint8_t* arena, std::uint8_t* scratch, Part part) {
    const Span here = share(std::int64_t(in.elements) / width, part);
    SoftmaxArgs args;
    args.rows = here.size();
    args.width = width;
    args.x = {at<float>(arena, in) + here.first * width, width, Type::f32, {}};
    args.y = {at<float>(arena, out) + here.first * width, width, Type::f32, {}};
    args.scratch = reinterpret_cast<float*>(scratch);
    kernels.softmax(args);
  };
  return shared_step(std::string("softmax_f32_") + level_name(kernels.level), parts, run, std::size_t(width) * 4);
}

StepPtr make_norm_f32(const OpView& view) {
  if (!view.counts(1, 1, 2, 2, 2)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  if (!is(in, Dtype::kF32) || !same_shape(in, out) || in.rank == 0) return nullptr;
  const std::int64_t width = in.dims[in.rank - 1], zero = view.op.ints[1];
  const bool bytes = is(out, Dtype::kU8);
  const float out_scale = view.op.floats[1];
  if (!(bytes ? out_scale > 0.0F : is(out, Dtype::kF32)) || zero < 0 || zero > 255) return nullptr;
  const ConstantRecord &gain = view.constant(0), &bias = view.constant(1);
  if (gain.dtype != Dtype::kF32 || bias.dtype != Dtype::kF32) return nullptr;
  if (gain.elements != std::uint64_t(width) || bias.elements != std::uint64_t(width)) return nullptr;
  const bool centred = view.op.ints[0] != 0;
  const NormKernels& kernels = norm_kernels(view.level);
  NormArgs args;
  const std::int64_t rows = std::int64_t(in.elements) / width;
  args.width = width;
  args.gamma = values<float>(gain);
  args.beta = values<float>(bias);
  args.epsilon = view.op.floats[0];
  args.rms = !centred;
  args.x = {nullptr, width, Type::f32, {}};
  args.y = {nullptr, width, bytes ? Type::u8 : Type::f32, {bytes ? out_scale : 1.0F, std::int32_t(zero), false}};
  const std::int64_t out_row = width * std::int64_t(bytes_of(out.dtype));
  const int parts = view.parts(double(in.elements) * kNsPerFunction);
  const auto run = [=, &kernels](std::uint8_t* arena, std::uint8_t* scratch, Part part) {
    const Span here = share(rows, part);
    NormArgs now = args;
    now.rows = here.size();
    now.x.data = at<float>(arena, in) + here.first * width;
    now.y.data = arena + out.offset + here.first * out_row;
    now.scratch = reinterpret_cast<float*>(scratch);
    kernels.norm(now);
  };
  const std::string name = std::string(centred ? "layernorm_f32" : "rmsnorm_f32") + (bytes ? "u8_" : "_");
  return shared_step(name + level_name(kernels.level), parts, run, std::size_t(width) * 4);
}

}  // namespace nas
