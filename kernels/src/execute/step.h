// What the makers of steps share: a checked view of one operator, and their declarations.
#pragma once

#include <memory>
#include <string>
#include <type_traits>

#include "cost.h"
#include "nas/level.h"
#include "nas/program.h"

namespace nas {

struct OpView {
  const Plan& plan;
  const OpRecord& op;
  Level level;
  const Cache* cache;  // of the program, for as long as its steps live
  Threads threads;
  double* shared_ns;  // sum over the steps in parts

  // Parts of a step that takes one thread so many nanoseconds.
  int parts(double ns) const {
    if (threads.count < 2 || ns < threads.split_ns) return 1;
    *shared_ns += ns;
    return threads.count;
  }

  // The AVX-512 kernels of this folder need VNNI beside them; every level above avx2 includes it.
  bool vnni() const { return level == Level::avx512_vnni; }
  bool avx2() const { return level >= Level::avx2 && level < Level::avx512_vnni; }

  const TensorRecord& input(std::size_t index) const { return plan.tensors[op.inputs[index]]; }
  const TensorRecord& output(std::size_t index = 0) const { return plan.tensors[op.outputs[index]]; }
  const ConstantRecord& constant(std::size_t index) const { return plan.constants[op.constants[index]]; }
  bool counts(std::size_t inputs, std::size_t outputs, std::size_t constants, std::size_t ints,
              std::size_t floats) const {
    return op.inputs.size() == inputs && op.outputs.size() == outputs && op.constants.size() == constants &&
           op.ints.size() == ints && op.floats.size() == floats;
  }
};

template <typename T>
const T* values(const ConstantRecord& constant) {
  return reinterpret_cast<const T*>(constant.data);
}

using StepPtr = std::unique_ptr<Step>;

// Each returns nullptr where the operator's record does not fit its kind.
StepPtr make_quantize(const OpView& view);
StepPtr make_dequantize(const OpView& view);
StepPtr make_table(const OpView& view);
StepPtr make_lookup(const OpView& view);
StepPtr make_conv_u8(const OpView& view);
StepPtr make_binary_u8(const OpView& view);
StepPtr make_mean_u8(const OpView& view);
StepPtr make_conv_f32(const OpView& view);
StepPtr make_binary_f32(const OpView& view);
StepPtr make_unary_f32(const OpView& view);
StepPtr make_mean_f32(const OpView& view);
StepPtr make_transpose(const OpView& view);
StepPtr make_pool(const OpView& view);
StepPtr make_gather(const OpView& view);
StepPtr make_where(const OpView& view);
StepPtr make_matmul_f32(const OpView& view);
StepPtr make_norm_f32(const OpView& view);
StepPtr make_softmax_f32(const OpView& view);
StepPtr make_slice(const OpView& view);
StepPtr make_concat(const OpView& view);
StepPtr make_constant(const OpView& view);
StepPtr make_attention_f32(const OpView& view);
StepPtr make_matmul_int4(const OpView& view);
StepPtr make_attention_cached(const OpView& view);
StepPtr make_rows_at(const OpView& view);
StepPtr make_gather_s8(const OpView& view);
StepPtr make_gather_int4(const OpView& view);

inline bool is(const TensorRecord& tensor, Dtype dtype) { return tensor.dtype == dtype; }
inline bool same_shape(const TensorRecord& a, const TensorRecord& b) {
  if (a.rank != b.rank) return false;
  for (std::uint32_t axis = 0; axis < kMostAxes; ++axis) {
    if (a.dims[axis] != b.dims[axis]) return false;
  }
  return true;
}

// A step whose body is a function of arena, scratch and, where it can be shared among threads, part.
template <typename Body>
class BodyStep final : public Step {
 public:
  BodyStep(std::string kernel, std::size_t scratch, int parts, Body body)
      : kernel_(std::move(kernel)), scratch_(scratch), parts_(parts), body_(std::move(body)) {}
  void run(std::uint8_t* arena, std::uint8_t* scratch, [[maybe_unused]] Part part) const override {
    if constexpr (std::is_invocable_v<Body, std::uint8_t*, std::uint8_t*, Part>) {
      body_(arena, scratch, part);
    } else {
      body_(arena, scratch);
    }
  }
  int parts() const override { return parts_; }
  std::size_t scratch_bytes() const override { return scratch_; }
  const char* kernel() const override { return kernel_.c_str(); }

 private:
  std::string kernel_;
  std::size_t scratch_;
  int parts_;
  Body body_;
};

template <typename Body>
StepPtr step_of(std::string kernel, Body body, std::size_t scratch = 0) {
  return StepPtr(new BodyStep<Body>(std::move(kernel), scratch, 1, std::move(body)));
}

// One whose body takes a part: `parts` of them.
template <typename Body>
StepPtr shared_step(std::string kernel, int parts, Body body, std::size_t scratch = 0) {
  static_assert(std::is_invocable_v<Body, std::uint8_t*, std::uint8_t*, Part>);
  return StepPtr(new BodyStep<Body>(std::move(kernel), scratch, parts, std::move(body)));
}

// Elements of a part, in multiples of a cache line of bytes.
inline Span elements_of(const TensorRecord& tensor, Part part) { return share(std::int64_t(tensor.elements), part, 64); }

inline double bytes_of(const TensorRecord& tensor) { return double(tensor.elements * bytes_of(tensor.dtype)); }

template <typename T>
T* at(std::uint8_t* arena, const TensorRecord& tensor) {
  return reinterpret_cast<T*>(arena + tensor.offset);
}

}  // namespace nas
