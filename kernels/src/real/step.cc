// Float operators around the quantized ones, written plainly; the compiler vectorizes their inner loops.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../execute/step.h"
#include "../pool/pool.h"
#include "nas/elementwise.h"
#include "nas/norm.h"
#include "unary.h"

namespace nas {
namespace {

struct Strides {
  std::size_t of[kMostAxes];
};

// Elements to advance per axis of `out` when `in` is broadcast to it, axes aligned at the end.
bool broadcast(const TensorRecord& in, const TensorRecord& out, Strides* strides) {
  if (in.rank > out.rank) return false;
  std::size_t step = 1;
  for (std::uint32_t back = 0; back < out.rank; ++back) {
    const std::uint32_t axis = out.rank - 1 - back;
    const std::uint32_t size = back < in.rank ? in.dims[in.rank - 1 - back] : 1;
    if (size != 1 && size != out.dims[axis]) return false;
    strides->of[axis] = size == 1 ? 0 : step;
    step *= size;
  }
  return true;
}

std::int64_t rows_of(const TensorRecord& out) {
  return out.rank > 0 ? std::int64_t(out.elements / out.dims[out.rank - 1]) : 1;
}

// Calls row(out offset, offsets of the inputs) for each of some runs along the last axis.
template <std::size_t N, typename Row>
void each_row(const TensorRecord& out, const Strides (&strides)[N], Span rows, const Row& row) {
  const std::uint32_t outer = out.rank > 0 ? out.rank - 1 : 0;
  const std::size_t width = out.rank > 0 ? out.dims[outer] : 1;
  std::uint32_t index[kMostAxes] = {};
  std::size_t from[N] = {};
  std::size_t rest = std::size_t(rows.first);
  for (std::uint32_t axis = outer; axis-- > 0; rest /= out.dims[axis]) {
    index[axis] = std::uint32_t(rest % out.dims[axis]);
    for (std::size_t k = 0; k < N; ++k) from[k] += strides[k].of[axis] * index[axis];
  }
  for (std::size_t start = std::size_t(rows.first) * width; start < std::size_t(rows.end) * width; start += width) {
    row(start, width, from);
    for (std::uint32_t axis = outer; axis-- > 0;) {
      for (std::size_t k = 0; k < N; ++k) from[k] += strides[k].of[axis];
      if (++index[axis] < out.dims[axis]) break;
      for (std::size_t k = 0; k < N; ++k) from[k] -= strides[k].of[axis] * out.dims[axis];
      index[axis] = 0;
    }
  }
}

template <typename Operation>
StepPtr binary_step(const OpView& view, const Strides& a_strides, const Strides& b_strides, Operation operation) {
  const TensorRecord a = view.input(0), b = view.input(1), out = view.output();
  const int parts = view.parts(double(out.elements) * kNsPerElement);
  return shared_step("binary_f32_portable", parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
    const float *pa = at<float>(arena, a), *pb = at<float>(arena, b);
    float* to = at<float>(arena, out);
    const std::uint32_t last = out.rank > 0 ? out.rank - 1 : 0;
    const std::size_t step_a = out.rank > 0 ? a_strides.of[last] : 0, step_b = out.rank > 0 ? b_strides.of[last] : 0;
    const Strides both[2] = {a_strides, b_strides};
    each_row(out, both, share(rows_of(out), part), [&](std::size_t start, std::size_t width, const std::size_t* from) {
      const float *x = pa + from[0], *y = pb + from[1];
      float* z = to + start;
      if (step_a == 1 && step_b == 1) {
        for (std::size_t i = 0; i < width; ++i) z[i] = operation(x[i], y[i]);
      } else {
        for (std::size_t i = 0; i < width; ++i) z[i] = operation(x[i * step_a], y[i * step_b]);
      }
    });
  });
}

bool one_float_to_one(const OpView& view) {
  return is(view.input(0), Dtype::kF32) && is(view.output(), Dtype::kF32) &&
         view.input(0).elements == view.output().elements;
}

}  // namespace

StepPtr make_binary_f32(const OpView& view) {
  if (!view.counts(2, 1, 0, 1, 0)) return nullptr;
  Strides a, b;
  if (!is(view.input(0), Dtype::kF32) || !is(view.input(1), Dtype::kF32) || !is(view.output(), Dtype::kF32)) return nullptr;
  if (!broadcast(view.input(0), view.output(), &a) || !broadcast(view.input(1), view.output(), &b)) return nullptr;
  switch (view.op.ints[0]) {
    case 0:
      return binary_step(view, a, b, [](float x, float y) { return x + y; });
    case 1:
      return binary_step(view, a, b, [](float x, float y) { return x - y; });
    case 2:
      return binary_step(view, a, b, [](float x, float y) { return x * y; });
    case 3:
      return binary_step(view, a, b, [](float x, float y) { return x / y; });
    default:
      return nullptr;
  }
}

// A function whose floats become bytes at once, piece by piece, so that they never leave the first-level cache.
StepPtr make_unary_u8(const OpView& view) {
  constexpr std::int64_t kPiece = 2048;
  const TensorRecord in = view.input(0), out = view.output();
  const std::int64_t code = view.op.ints[0], zero = view.op.ints[1];
  const float alpha = view.op.floats[0], beta = view.op.floats[1], scale = view.op.floats[2];
  if (!is(in, Dtype::kF32) || !is(out, Dtype::kU8) || in.elements != out.elements || code < 0 || code >= kUnaries) return nullptr;
  if (!(scale > 0.0F) || zero < 0 || zero > 255) return nullptr;
  const NormKernels& norm = norm_kernels(view.level);
  const ElementwiseKernels& elementwise = elementwise_kernels(view.level);
  const auto function = code == kGelu ? norm.gelu : code == kSiLU ? norm.silu : nullptr;
  const Quantization to = {scale, std::int32_t(zero), false};
  const std::string name = code == kGelu ? "gelu_f32u8_" : code == kSiLU ? "silu_f32u8_" : "unary_f32u8_";
  const auto run = [=, &elementwise](std::uint8_t* arena, std::uint8_t* scratch, Part part) {
    float* piece = reinterpret_cast<float*>(scratch);
    const Span mine = elements_of(in, part);
    for (std::int64_t first = mine.first; first < mine.end; first += kPiece) {
      const std::int64_t here = std::min(kPiece, mine.end - first);
      const float* x = at<float>(arena, in) + first;
      if (function != nullptr) {
        function(x, here, piece);
      } else {
        unary_row(int(code), alpha, beta, x, std::size_t(here), piece);
      }
      elementwise.quantize(piece, here, to, arena + out.offset + first);
    }
  };
  const int parts = view.parts(double(in.elements) * (function != nullptr ? kNsPerFunction : kNsPerScalar));
  return shared_step(name + level_name(norm.level), parts, run, kPiece * sizeof(float));
}

StepPtr make_unary_f32(const OpView& view) {
  if (view.counts(1, 1, 0, 2, 3)) return make_unary_u8(view);
  if (!view.counts(1, 1, 0, 1, 2) && !view.counts(1, 1, 0, 1, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const std::int64_t code = view.op.ints[0];
  if (code == kIdentity && in.dtype == out.dtype && in.elements == out.elements) {
    const std::size_t bytes = in.elements * bytes_of(in.dtype);
    return step_of("copy_portable", [=](std::uint8_t* arena, std::uint8_t*) { std::memmove(arena + out.offset, arena + in.offset, bytes); });
  }
  if (!one_float_to_one(view) || code < 0 || code >= kUnaries || view.op.floats.size() != 2) return nullptr;
  const float alpha = view.op.floats[0], beta = view.op.floats[1];
  if (code == kClip) {
    const int parts = view.parts((bytes_of(in) + bytes_of(out)) * kNsPerByte);
    return shared_step("clip_f32_portable", parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
      const Span here = elements_of(in, part);
      const float* x = at<float>(arena, in);
      float* y = at<float>(arena, out);
      for (std::int64_t i = here.first; i < here.end; ++i) y[i] = std::min(beta, std::max(alpha, x[i]));
    });
  }
  if (code == kGelu || code == kSiLU) {
    const NormKernels& kernels = norm_kernels(view.level);
    const auto function = code == kGelu ? kernels.gelu : kernels.silu;
    const std::string name = std::string(code == kGelu ? "gelu_f32_" : "silu_f32_") + level_name(kernels.level);
    const int parts = view.parts(double(in.elements) * kNsPerFunction);
    return shared_step(name, parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
      const Span here = elements_of(in, part);
      function(at<float>(arena, in) + here.first, here.size(), at<float>(arena, out) + here.first);
    });
  }
  const int parts = view.parts(double(in.elements) * kNsPerScalar);
  return shared_step("unary_f32_portable", parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
    const Span here = elements_of(in, part);
    unary_row(int(code), alpha, beta, at<float>(arena, in) + here.first, std::size_t(here.size()), at<float>(arena, out) + here.first);
  });
}

StepPtr make_mean_f32(const OpView& view) {
  if (!view.counts(1, 1, 0, 0, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  if (!is(in, Dtype::kF32) || !is(out, Dtype::kF32) || in.rank != 4) return nullptr;
  if (out.elements != std::uint64_t(in.dims[0]) * in.dims[3]) return nullptr;
  const std::size_t pixels = std::size_t(in.dims[1]) * in.dims[2], channels = in.dims[3];
  return step_of("mean_f32_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    for (std::size_t image = 0; image < in.dims[0]; ++image) {
      const float* from = at<float>(arena, in) + image * pixels * channels;
      float* to = at<float>(arena, out) + image * channels;
      std::fill(to, to + channels, 0.0F);
      for (std::size_t pixel = 0; pixel < pixels; ++pixel, from += channels) {
        for (std::size_t c = 0; c < channels; ++c) to[c] += from[c];
      }
      for (std::size_t c = 0; c < channels; ++c) to[c] /= float(pixels);
    }
  });
}

StepPtr make_pool(const OpView& view) {
  if (!view.counts(1, 1, 0, 11, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const auto& ints = view.op.ints;
  const bool average = ints[9] != 0, counts_padding = ints[10] != 0, bytes = is(in, Dtype::kU8);
  if (in.rank != 4 || out.rank != 4 || in.dtype != out.dtype || !(bytes || is(in, Dtype::kF32))) return nullptr;
  if ((bytes && average) || in.dims[0] != out.dims[0] || in.dims[3] != out.dims[3]) return nullptr;
  for (int index = 0; index < 8; ++index) {
    if (ints[index] < (index < 4 ? 1 : 0) || ints[index] > 65535) return nullptr;
  }
  const std::int64_t kh = ints[0], kw = ints[1], sh = ints[2], sw = ints[3], top = ints[4], left = ints[5];
  const std::int64_t height = in.dims[1], width = in.dims[2], channels = in.dims[3];
  // Each window must hold a pixel that is no padding.
  if (top >= kh || left >= kw || ints[6] >= kh || ints[7] >= kw) return nullptr;
  if ((height + top + ints[6] - kh) / sh + 1 != out.dims[1] || height + top + ints[6] < kh) return nullptr;
  if ((width + left + ints[7] - kw) / sw + 1 != out.dims[2] || width + left + ints[7] < kw) return nullptr;
  void (*largest)(const PoolShape&, const std::uint8_t*, std::uint8_t*) = nullptr;
#if defined(__x86_64__)
  if (view.vnni()) largest = max_u8_avx512;
  const char* largest_kernel = "max_u8_avx512";
#elif defined(__aarch64__)
  if (view.level >= Level::neon) largest = max_u8_neon;
  const char* largest_kernel = "max_u8_neon";
#else
  const char* largest_kernel = "";
#endif
  if (bytes && largest != nullptr) {
    const PoolShape shape{height, width, channels, 0, out.dims[1], out.dims[2], kh, kw, sh, sw, top, left};
    const int parts = view.parts(double(out.elements) * double(kh * kw) * kNsPerByte);
    return shared_step(largest_kernel, parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
      const Span lines = share(out.dims[1], part);
      PoolShape here = shape;
      here.first_line = lines.first, here.end_line = lines.end;
      for (std::size_t image = 0; image < in.dims[0]; ++image) {
        largest(here, arena + in.offset + image * (in.elements / in.dims[0]),
                arena + out.offset + image * (out.elements / out.dims[0]));
      }
    });
  }
  const int parts = view.parts(double(out.elements) * double(kh * kw) * kNsPerByte);
  const auto pool = [=](std::uint8_t* arena, Part part, auto* type, auto lowest) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* from = at<T>(arena, in);
    const Span lines = share(out.dims[1], part);
    for (std::size_t image = 0; image < in.dims[0]; ++image, from += height * width * channels) {
      T* to = at<T>(arena, out) + (std::int64_t(image) * out.dims[1] + lines.first) * out.dims[2] * channels;
      for (std::int64_t y = lines.first; y < lines.end; ++y) {
        for (std::int64_t x = 0; x < out.dims[2]; ++x, to += channels) {
          std::fill(to, to + channels, average ? T(0) : lowest);
          std::int64_t count = 0;
          for (std::int64_t row = std::max<std::int64_t>(y * sh - top, 0); row < std::min(y * sh - top + kh, height); ++row) {
            for (std::int64_t column = std::max<std::int64_t>(x * sw - left, 0);
                 column < std::min(x * sw - left + kw, width); ++column, ++count) {
              const T* __restrict pixel = from + (row * width + column) * channels;
              T* __restrict best = to;
              if (average) {
                for (std::int64_t c = 0; c < channels; ++c) best[c] += pixel[c];
              } else {
                for (std::int64_t c = 0; c < channels; ++c) best[c] = best[c] < pixel[c] ? pixel[c] : best[c];
              }
            }
          }
          const T parts = T(counts_padding ? kh * kw : count);
          for (std::int64_t c = 0; average && c < channels; ++c) to[c] = T(to[c] / parts);
        }
      }
    }
  };
  if (bytes) {
    return shared_step("max_u8_portable", parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
      pool(arena, part, (std::uint8_t*)nullptr, std::uint8_t(0));
    });
  }
  const char* kernel = average ? "average_f32_portable" : "max_f32_portable";
  return shared_step(kernel, parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
    pool(arena, part, (float*)nullptr, -std::numeric_limits<float>::infinity());
  });
}

StepPtr make_where(const OpView& view) {
  if (!view.counts(3, 1, 0, 0, 0)) return nullptr;
  const TensorRecord choice = view.input(0), yes = view.input(1), no = view.input(2), out = view.output();
  if (!is(choice, Dtype::kBool) || !is(yes, Dtype::kF32) || !is(no, Dtype::kF32) || !is(out, Dtype::kF32)) return nullptr;
  Strides strides[3];
  for (int index = 0; index < 3; ++index) {
    if (!broadcast(view.input(index), out, &strides[index])) return nullptr;
  }
  const Strides a = strides[0], b = strides[1], c = strides[2];
  const int parts = view.parts(double(out.elements) * kNsPerScalar);
  return shared_step("where_f32_portable", parts, [=](std::uint8_t* arena, std::uint8_t*, Part part) {
    const Strides all[3] = {a, b, c};
    const std::uint32_t last = out.rank > 0 ? out.rank - 1 : 0;
    const std::size_t step[3] = {out.rank ? a.of[last] : 0, out.rank ? b.of[last] : 0, out.rank ? c.of[last] : 0};
    each_row(out, all, share(rows_of(out), part), [&](std::size_t start, std::size_t width, const std::size_t* from) {
      for (std::size_t i = 0; i < width; ++i) {
        const bool chosen = arena[choice.offset + from[0] + i * step[0]] != 0;
        at<float>(arena, out)[start + i] = chosen ? at<float>(arena, yes)[from[1] + i * step[1]]
                                                  : at<float>(arena, no)[from[2] + i * step[2]];
      }
    });
  });
}

}  // namespace nas
