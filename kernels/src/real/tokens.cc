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
  return step_of("matmul_f32_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    const float *x = at<float>(arena, a), *y = at<float>(arena, b);
    float* z = at<float>(arena, out);
    for (std::size_t index = 0; index < batch; ++index, y += depth * columns) {
      for (std::size_t row = 0; row < rows; ++row, x += depth, z += columns) {
        std::fill(z, z + columns, 0.0F);
        for (std::size_t k = 0; k < depth; ++k) {
          const float factor = x[k];
          for (std::size_t column = 0; column < columns; ++column) z[column] += factor * y[k * columns + column];
        }
      }
    }
  });
}

StepPtr make_softmax_f32(const OpView& view) {
  if (!view.counts(1, 1, 0, 0, 0) || !floats_of_one_shape(view.input(0), view.output())) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const std::int64_t width = in.dims[in.rank - 1];
  const NormKernels& kernels = norm_kernels(view.level);
  const auto run = [=, &kernels](std::uint8_t* arena, std::uint8_t* scratch) {
    SoftmaxArgs args;
    args.rows = std::int64_t(in.elements) / width;
    args.width = width;
    args.x = {arena + in.offset, width, Type::f32, {}};
    args.y = {arena + out.offset, width, Type::f32, {}};
    args.scratch = reinterpret_cast<float*>(scratch);
    kernels.softmax(args);
  };
  return step_of(std::string("softmax_f32_") + level_name(kernels.level), run, std::size_t(width) * 4);
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
  args.rows = std::int64_t(in.elements) / width;
  args.width = width;
  args.gamma = values<float>(gain);
  args.beta = values<float>(bias);
  args.epsilon = view.op.floats[0];
  args.rms = !centred;
  args.x = {nullptr, width, Type::f32, {}};
  args.y = {nullptr, width, bytes ? Type::u8 : Type::f32, {bytes ? out_scale : 1.0F, std::int32_t(zero), false}};
  const auto run = [=, &kernels](std::uint8_t* arena, std::uint8_t* scratch) {
    NormArgs now = args;
    now.x.data = arena + in.offset;
    now.y.data = arena + out.offset;
    now.scratch = reinterpret_cast<float*>(scratch);
    kernels.norm(now);
  };
  const std::string name = std::string(centred ? "layernorm_f32" : "rmsnorm_f32") + (bytes ? "u8_" : "_");
  return step_of(name + level_name(kernels.level), run, std::size_t(width) * 4);
}

}  // namespace nas
