// Operators that move memory, and gathering.
#include <cstring>

#include "../execute/step.h"

namespace nas {
namespace {

struct Order {
  std::size_t stride[kMostAxes];  // of the input, per axis of the output
};

template <typename T>
void permute(const T* from, T* to, const TensorRecord& out, const Order& order) {
  const std::uint32_t last = out.rank - 1;
  const std::size_t width = out.dims[last], step = order.stride[last];
  std::uint32_t index[kMostAxes] = {};
  for (std::size_t start = 0; start < out.elements; start += width) {
    for (std::size_t i = 0; i < width; ++i) to[start + i] = from[i * step];
    for (std::uint32_t axis = last; axis-- > 0;) {
      from += order.stride[axis];
      if (++index[axis] < out.dims[axis]) break;
      from -= order.stride[axis] * out.dims[axis];
      index[axis] = 0;
    }
  }
}

}  // namespace

StepPtr make_transpose(const OpView& view) {
  if (!view.counts(1, 1, 0, view.op.ints.size(), 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  if (view.op.ints.size() != in.rank || in.rank != out.rank || in.rank == 0 || in.dtype != out.dtype) return nullptr;
  std::size_t strides[kMostAxes];
  std::size_t step = 1;
  for (std::uint32_t axis = in.rank; axis-- > 0;) {
    strides[axis] = step;
    step *= in.dims[axis];
  }
  Order order{};
  bool seen[kMostAxes] = {};
  for (std::uint32_t axis = 0; axis < in.rank; ++axis) {
    const std::int64_t from = view.op.ints[axis];
    if (from < 0 || from >= std::int64_t(in.rank) || seen[from] || out.dims[axis] != in.dims[from]) return nullptr;
    seen[from] = true;
    order.stride[axis] = strides[from];
  }
  if (bytes_of(in.dtype) == 1) {
    return step_of("transpose_b8_portable", [=](std::uint8_t* arena, std::uint8_t*) { permute(arena + in.offset, arena + out.offset, out, order); });
  }
  if (bytes_of(in.dtype) != 4) return nullptr;
  return step_of("transpose_b32_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    permute(at<std::uint32_t>(arena, in), at<std::uint32_t>(arena, out), out, order);
  });
}

StepPtr make_slice(const OpView& view) {
  if (!view.counts(1, 1, 0, 2, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const std::int64_t axis = view.op.ints[0], start = view.op.ints[1];
  if (in.rank != out.rank || in.dtype != out.dtype || axis < 0 || axis >= std::int64_t(in.rank) || start < 0) return nullptr;
  if (start > std::int64_t(in.dims[axis]) - std::int64_t(out.dims[axis])) return nullptr;
  std::size_t outer = 1, inner = bytes_of(in.dtype);
  for (std::int64_t other = 0; other < std::int64_t(in.rank); ++other) {
    if (other != axis && in.dims[other] != out.dims[other]) return nullptr;
    if (other < axis) outer *= in.dims[other];
    if (other > axis) inner *= in.dims[other];
  }
  const std::size_t from_row = in.dims[axis] * inner, to_row = out.dims[axis] * inner, skip = std::size_t(start) * inner;
  return step_of("slice_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    for (std::size_t row = 0; row < outer; ++row) {
      std::memmove(arena + out.offset + row * to_row, arena + in.offset + row * from_row + skip, to_row);
    }
  });
}

StepPtr make_concat(const OpView& view) {
  if (view.op.inputs.empty() || !view.counts(view.op.inputs.size(), 1, 0, 1, 0)) return nullptr;
  const TensorRecord out = view.output();
  const std::int64_t axis = view.op.ints[0];
  if (axis < 0 || axis >= std::int64_t(out.rank)) return nullptr;
  std::size_t outer = 1, inner = bytes_of(out.dtype), joined = 0;
  for (std::int64_t other = 0; other < std::int64_t(out.rank); ++other) {
    if (other < axis) outer *= out.dims[other];
    if (other > axis) inner *= out.dims[other];
  }
  struct Part {
    std::size_t offset, row;
  };
  std::vector<Part> parts;
  for (std::size_t index = 0; index < view.op.inputs.size(); ++index) {
    const TensorRecord& in = view.input(index);
    if (in.rank != out.rank || in.dtype != out.dtype) return nullptr;
    for (std::int64_t other = 0; other < std::int64_t(out.rank); ++other) {
      if (other != axis && in.dims[other] != out.dims[other]) return nullptr;
    }
    joined += in.dims[axis];
    parts.push_back({std::size_t(in.offset), in.dims[axis] * inner});
  }
  if (joined != out.dims[axis]) return nullptr;
  return step_of("concat_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    std::uint8_t* to = arena + out.offset;
    for (std::size_t row = 0; row < outer; ++row) {
      for (const Part& part : parts) {
        std::memmove(to, arena + part.offset + row * part.row, part.row);
        to += part.row;
      }
    }
  });
}

StepPtr make_gather(const OpView& view) {
  if (!view.counts(1, 1, 1, 2, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const ConstantRecord& table = view.constant(0);
  const std::int64_t rows = view.op.ints[0], width = view.op.ints[1];
  if (!is(in, Dtype::kI64) || !is(out, Dtype::kF32) || table.dtype != Dtype::kF32 || rows < 1 || width < 1) return nullptr;
  if (rows > std::int64_t(table.elements) || width != std::int64_t(table.elements) / rows) return nullptr;
  if (std::uint64_t(rows) * width != table.elements || in.elements * std::uint64_t(width) != out.elements) return nullptr;
  const float* entries = values<float>(table);
  return step_of("gather_f32_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    const std::int64_t* index = at<std::int64_t>(arena, in);
    float* to = at<float>(arena, out);
    for (std::size_t i = 0; i < in.elements; ++i, to += width) {
      // Negative numbers count from the end, as ONNX has it; what lies outside gives zeros.
      const std::int64_t row = index[i] < 0 ? index[i] + rows : index[i];
      if (row < 0 || row >= rows) {
        std::memset(to, 0, width * sizeof(float));
      } else {
        std::memcpy(to, entries + row * width, width * sizeof(float));
      }
    }
  });
}

// Rows in 8 bits with a scale each become floats: (a row's byte) * (its scale).
StepPtr make_gather_s8(const OpView& view) {
  if (!view.counts(1, 1, 2, 2, 0)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const ConstantRecord &table = view.constant(0), &scales = view.constant(1);
  const std::int64_t rows = view.op.ints[0], width = view.op.ints[1];
  if (!is(in, Dtype::kI64) || !is(out, Dtype::kF32) || table.dtype != Dtype::kS8 || rows < 1 || width < 1) return nullptr;
  if (rows > std::int64_t(table.elements) || width != std::int64_t(table.elements) / rows) return nullptr;
  if (std::uint64_t(rows) * width != table.elements || in.elements * std::uint64_t(width) != out.elements) return nullptr;
  if (scales.dtype != Dtype::kF32 || scales.elements != std::uint64_t(rows)) return nullptr;
  const std::int8_t* entries = values<std::int8_t>(table);
  const float* steps = values<float>(scales);
  return step_of("gather_s8_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    const std::int64_t* index = at<std::int64_t>(arena, in);
    float* to = at<float>(arena, out);
    for (std::size_t i = 0; i < in.elements; ++i, to += width) {
      const std::int64_t row = index[i] < 0 ? index[i] + rows : index[i];
      const bool inside = row >= 0 && row < rows;
      for (std::int64_t j = 0; j < width; ++j) to[j] = inside ? float(entries[row * width + j]) * steps[row] : 0.0F;
    }
  });
}

StepPtr make_constant(const OpView& view) {
  if (!view.counts(0, 1, 1, 0, 0)) return nullptr;
  const TensorRecord out = view.output();
  const ConstantRecord constant = view.constant(0);
  if (constant.dtype != out.dtype || constant.elements != out.elements) return nullptr;
  const std::size_t bytes = out.elements * bytes_of(out.dtype);
  return step_of("constant_portable", [=](std::uint8_t* arena, std::uint8_t*) { std::memcpy(arena + out.offset, constant.data, bytes); });
}

}  // namespace nas
