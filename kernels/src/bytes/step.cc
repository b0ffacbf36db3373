#include <cmath>
#include <cstring>

#include "../execute/step.h"
#include "bytes.h"
#include "nas/cpu.h"

namespace nas {
namespace {

const ByteKernels& kernels_for(const OpView& view) { return byte_kernels(view.level); }

std::string named(const char* kind, const ByteKernels& kernels) { return std::string(kind) + "_" + kernels.isa; }

bool scale_is_good(float scale) { return std::isfinite(scale) && scale > 0.0F; }
bool is_zero_point(std::int64_t zero) { return zero >= 0 && zero <= 255; }

}  // namespace

StepPtr make_quantize(const OpView& view) {
  if (!view.counts(1, 1, 0, 2, 1)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const float scale = view.op.floats[0];
  const std::int64_t zero = view.op.ints[0];
  const bool planes = view.op.ints[1] != 0;
  if (!is(in, Dtype::kF32) || !is(out, Dtype::kU8) || in.elements != out.elements) return nullptr;
  if (!scale_is_good(scale) || !is_zero_point(zero)) return nullptr;
  if (planes && (out.rank != 4 || in.elements % out.dims[0] != 0)) return nullptr;
  const ByteKernels& k = kernels_for(view);
  if (!planes) {
    const int parts = view.parts(double(in.elements) * kNsPerElement);
    return shared_step(named("quantize", k), parts, [=, &k](std::uint8_t* arena, std::uint8_t*, Part part) {
      const Span here = elements_of(in, part);
      k.quantize(at<float>(arena, in) + here.first, at<std::uint8_t>(arena, out) + here.first, std::size_t(here.size()), scale,
                 std::int32_t(zero));
    });
  }
  const std::size_t channels = out.dims[3], pixels = std::size_t(out.dims[1]) * out.dims[2];
  const int parts = view.parts(double(in.elements) * kNsPerElement);
  return shared_step(named("quantize_planes", k), parts, [=, &k](std::uint8_t* arena, std::uint8_t*, Part part) {
    const Span here = share(std::int64_t(pixels), part, 64);
    for (std::size_t image = 0; image < out.dims[0]; ++image) {
      const float* from = at<float>(arena, in) + image * pixels * channels + here.first;
      std::uint8_t* to = at<std::uint8_t>(arena, out) + (image * pixels + std::size_t(here.first)) * channels;
      k.quantize_planes(from, to, std::size_t(here.size()), channels, pixels, scale, std::int32_t(zero));
    }
  });
}

StepPtr make_dequantize(const OpView& view) {
  if (!view.counts(1, 1, 0, 1, 1)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const float scale = view.op.floats[0];
  const std::int64_t zero = view.op.ints[0];
  if (!is(in, Dtype::kU8) || !is(out, Dtype::kF32) || in.elements != out.elements) return nullptr;
  if (!scale_is_good(scale) || !is_zero_point(zero)) return nullptr;
  const ByteKernels& k = kernels_for(view);
  const int parts = view.parts(double(out.elements) * kNsPerElement);
  return shared_step(named("dequantize", k), parts, [=, &k](std::uint8_t* arena, std::uint8_t*, Part part) {
    const Span here = elements_of(in, part);
    k.dequantize(at<std::uint8_t>(arena, in) + here.first, at<float>(arena, out) + here.first, std::size_t(here.size()), scale,
                 std::int32_t(zero));
  });
}

StepPtr make_table(const OpView& view) {
  if (!view.counts(1, 1, 1, 0, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const ConstantRecord& constant = view.constant(0);
  if (!is(in, Dtype::kU8) || !is(out, Dtype::kU8) || in.elements != out.elements) return nullptr;
  if (constant.dtype != Dtype::kU8 || constant.elements != 256) return nullptr;
  const ByteKernels& k = kernels_for(view);
  const std::uint8_t* entries = constant.data;
  const int parts = view.parts((bytes_of(in) + bytes_of(out)) * kNsPerByte);
#if defined(__x86_64__)
  if (view.vnni() && cpu_features().avx512vbmi) {
    return shared_step("table_avx512vbmi", parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
      const Span here = elements_of(in, part);
      table_avx512vbmi(arena + in.offset + here.first, arena + out.offset + here.first, std::size_t(here.size()), entries);
    });
  }
#endif
  return shared_step(named("table", k), parts, [=, &k](std::uint8_t* arena, std::uint8_t*, Part part) {
    const Span here = elements_of(in, part);
    k.table(at<std::uint8_t>(arena, in) + here.first, at<std::uint8_t>(arena, out) + here.first, std::size_t(here.size()), entries);
  });
}

StepPtr make_lookup(const OpView& view) {
  if (!view.counts(1, 1, 1, 0, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const ConstantRecord& constant = view.constant(0);
  if (!is(in, Dtype::kU8) || !is(out, Dtype::kF32) || in.elements != out.elements) return nullptr;
  if (constant.dtype != Dtype::kF32 || constant.elements != 256) return nullptr;
  const ByteKernels& k = kernels_for(view);
  const float* entries = values<float>(constant);
  const int parts = view.parts(double(out.elements) * kNsPerElement);
  return shared_step(named("lookup", k), parts, [=, &k](std::uint8_t* arena, std::uint8_t*, Part part) {
    const Span here = elements_of(in, part);
    k.lookup(at<std::uint8_t>(arena, in) + here.first, at<float>(arena, out) + here.first, std::size_t(here.size()), entries);
  });
}

StepPtr make_binary_u8(const OpView& view) {
  if (!view.counts(2, 1, 0, 3, 3)) return nullptr;
  const TensorRecord a = view.input(0), b = view.input(1), out = view.output();
  if (!is(a, Dtype::kU8) || !is(b, Dtype::kU8) || !is(out, Dtype::kU8) || !same_shape(a, out)) return nullptr;
  for (int index = 0; index < 3; ++index) {
    if (!scale_is_good(view.op.floats[index]) || !is_zero_point(view.op.ints[index])) return nullptr;
  }
  const float scale_a = view.op.floats[0], scale_b = view.op.floats[1], scale = view.op.floats[2];
  const float zero_a = float(view.op.ints[0]), zero_b = float(view.op.ints[1]), zero = float(view.op.ints[2]);
  const ByteKernels& k = kernels_for(view);
  if (view.op.kind == Kind::kAddU8) {
    if (!same_shape(a, b)) return nullptr;
    AddParams p{scale_a / scale, scale_b / scale, 0.0F};
    p.fixed = zero - std::fma(p.ratio_a, zero_a, p.ratio_b * zero_b);
    const int parts = view.parts(double(out.elements) * kNsPerElement);
    return shared_step(named("add_u8", k), parts, [=, &k](std::uint8_t* arena, std::uint8_t*, Part part) {
      const Span here = elements_of(out, part);
      arena += here.first;
      k.add(arena + a.offset, arena + b.offset, arena + out.offset, std::size_t(here.size()), p);
    });
  }
  const MulParams p{zero_a, zero_b, scale_a * scale_b / scale, zero};
  std::size_t images = 1, pixels = 1, channels = out.elements;
  if (!same_shape(a, b)) {
    if (a.rank != 4 || b.rank != 4 || b.dims[0] != a.dims[0] || b.dims[1] != 1 || b.dims[2] != 1) return nullptr;
    if (b.dims[3] != a.dims[3]) return nullptr;
    images = a.dims[0];
    pixels = std::size_t(a.dims[1]) * a.dims[2];
    channels = a.dims[3];
  }
  // Equal shapes are one pixel of very many channels.
  const bool equal = same_shape(a, b);
  const int parts = view.parts(double(out.elements) * kNsPerElement);
  return shared_step(named("mul_u8", k), parts, [=, &k](std::uint8_t* arena, std::uint8_t*, Part part) {
    if (equal) {
      const Span here = elements_of(out, part);
      arena += here.first;
      k.multiply(arena + a.offset, arena + b.offset, arena + out.offset, 1, std::size_t(here.size()), p);
      return;
    }
    const Span here = share(std::int64_t(pixels), part);
    for (std::size_t image = 0; image < images; ++image) {
      const std::size_t start = (image * pixels + std::size_t(here.first)) * channels;
      k.multiply(arena + a.offset + start, arena + b.offset + image * channels, arena + out.offset + start,
                 std::size_t(here.size()), channels, p);
    }
  });
}

StepPtr make_mean_u8(const OpView& view) {
  if (!view.counts(1, 1, 0, 2, 1)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  if (!is(in, Dtype::kU8) || !is(out, Dtype::kU8) || in.rank != 4 || out.elements != in.dims[0] * std::uint64_t(in.dims[3])) {
    return nullptr;
  }
  const std::int64_t zero_in = view.op.ints[0], zero_out = view.op.ints[1];
  const float multiplier = view.op.floats[0];
  const std::size_t pixels = std::size_t(in.dims[1]) * in.dims[2], channels = in.dims[3];
  // The largest sum must stay below 2^31.
  if (!is_zero_point(zero_in) || !is_zero_point(zero_out) || !std::isfinite(multiplier) || pixels > (1U << 22)) {
    return nullptr;
  }
  const ByteKernels& k = kernels_for(view);
  const auto body = [=, &k](std::uint8_t* arena, std::uint8_t* scratch) {
    for (std::size_t image = 0; image < in.dims[0]; ++image) {
      k.mean(arena + in.offset + image * pixels * channels, arena + out.offset + image * channels, pixels, channels,
             reinterpret_cast<std::int32_t*>(scratch), multiplier, std::int32_t(zero_in), std::int32_t(zero_out));
    }
  };
  return step_of(named("mean_u8", k), body, channels * sizeof(std::int32_t) + 64);
}

}  // namespace nas
