#include <algorithm>
#include <memory>
#include <vector>

#include "../execute/step.h"
#include "../real/unary.h"
#include "conv.h"
#include "slices.h"

namespace nas {
namespace {

constexpr std::int64_t kMostElements = std::int64_t{1} << 30;

// Fills the shape from an operator whose first nine ints describe its window; false where anything does not fit.
bool conv_shape_of(const OpView& view, const TensorRecord& in, const TensorRecord& out, ConvShape* shape) {
  if (in.rank != 4 || out.rank != 4 || in.elements > kMostElements || out.elements > kMostElements) return false;
  const auto& ints = view.op.ints;
  for (int index = 0; index < 9; ++index) {
    if (ints[index] < 0 || ints[index] > 65535) return false;
  }
  ConvShape& s = *shape;
  s = {int(in.dims[0]),  int(in.dims[1]),  int(in.dims[2]),  int(in.dims[3]), int(out.dims[1]), int(out.dims[2]),
       int(out.dims[3]), int(ints[0]),     int(ints[1]),     int(ints[2]),    int(ints[3]),     int(ints[4]),
       int(ints[5]),     int(ints[6]),     int(ints[7]),     int(ints[8]),    int(in.dims[3]),   int(out.dims[3])};
  if (s.kernel_h < 1 || s.kernel_w < 1 || s.stride_h < 1 || s.stride_w < 1 || s.groups < 1) return false;
  if (s.channels % s.groups != 0 || s.outputs % s.groups != 0 || std::int64_t(out.dims[0]) != s.batch) return false;
  const std::int64_t padded_h = std::int64_t(s.height) + s.pad_top + s.pad_bottom;
  const std::int64_t padded_w = std::int64_t(s.width) + s.pad_left + s.pad_right;
  if (padded_h * padded_w * s.channels > kMostElements) return false;
  if (padded_h < s.kernel_h || padded_w < s.kernel_w) return false;
  if ((padded_h - s.kernel_h) / s.stride_h + 1 != s.out_height) return false;
  if ((padded_w - s.kernel_w) / s.stride_w + 1 != s.out_width) return false;
  return std::int64_t(s.kernel_h) * s.kernel_w * s.group_channels() <= kMostElements / s.outputs;
}

bool holds(const ConstantRecord& constant, Dtype dtype, std::uint64_t elements) {
  return constant.dtype == dtype && constant.elements == elements;
}

// The parts of a convolution, which share one kernel or have one each. `In` and `Out` are what its maps hold.
template <class Conv, typename In, typename Out>
class ConvStep final : public Step {
 public:
  // make(slice) returns the kernel for a slice's outputs, which the step owns.
  template <class Params, class Make>
  ConvStep(const OpView& view, const Params& params, double ns, const Make& make)
      : in_(view.input(0)), out_(view.output()), element_(std::ptrdiff_t(bytes_of(out_.dtype))) {
    const int parts = view.parts(ns);
    const Cut cut = best_cut(params.shape, parts);
    slices_ = slices_of(params.shape, cut, parts);
    for (const ConvSlice& slice : slices_) {
      if (cut != Cut::outputs && !convs_.empty()) break;
      Params own = params;
      own.shape = cut == Cut::outputs ? slice.shape : params.shape;
      own.weights += slice.first_output * params.shape.taps();
      own.bias += slice.first_output;
      convs_.emplace_back(make(own, slice.first_output));
      scratch_ = std::max(scratch_, convs_.back()->scratch_bytes());
    }
  }
  void run(std::uint8_t* arena, std::uint8_t* scratch, Part part) const override {
    const ConvSlice& slice = slices_[std::size_t(part.index)];
    const Conv& conv = *convs_[convs_.size() == 1 ? 0 : std::size_t(part.index)];
    void* out = arena + out_.offset + slice.out * element_;
    conv.run(slice.shape, at<In>(arena, in_) + slice.in, static_cast<Out*>(out), scratch);
  }
  int parts() const override { return int(slices_.size()); }
  std::size_t scratch_bytes() const override { return scratch_; }
  const char* kernel() const override { return convs_[0]->kernel(); }

 private:
  TensorRecord in_, out_;
  std::ptrdiff_t element_;
  std::vector<ConvSlice> slices_;
  std::vector<std::unique_ptr<Conv>> convs_;
  std::size_t scratch_ = 0;
};

double bytes_moved(const OpView& view) { return bytes_of(view.input(0)) + bytes_of(view.output()); }

}  // namespace

StepPtr make_conv_u8(const OpView& view) {
  if (!view.counts(1, 1, 3, 11, 0)) return nullptr;
  const TensorRecord &in = view.input(0), &out = view.output();
  ConvU8Params params{};
  if (!is(in, Dtype::kU8) || !(is(out, Dtype::kU8) || is(out, Dtype::kF32))) return nullptr;
  if (!conv_shape_of(view, in, out, &params.shape)) return nullptr;
  const ConvShape& shape = params.shape;
  const std::uint64_t outputs = std::uint64_t(shape.outputs);
  if (!holds(view.constant(0), Dtype::kS8, outputs * shape.taps())) return nullptr;
  if (!holds(view.constant(1), Dtype::kI32, outputs) || !holds(view.constant(2), Dtype::kF32, outputs)) return nullptr;
  const std::int64_t zero_in = view.op.ints[9], zero_out = view.op.ints[10];
  if (zero_in < 0 || zero_in > 255 || zero_out < 0 || zero_out > 255) return nullptr;
  params.weights = values<std::int8_t>(view.constant(0));
  params.bias = values<std::int32_t>(view.constant(1));
  params.multiplier = values<float>(view.constant(2));
  params.zero_in = std::int32_t(zero_in);
  params.zero_out = std::int32_t(zero_out);
  params.float_out = is(out, Dtype::kF32);
  const double ns = macs_of(shape) * (shape.groups == 1 ? kNsPerMac : kNsPerDepthwiseMac) + bytes_moved(view) * kNsPerByte;
  return StepPtr(new ConvStep<ConvU8, std::uint8_t, void>(view, params, ns, [&](ConvU8Params own, std::int64_t first) {
    own.multiplier += first;
    return conv_u8(own, view.level);
  }));
}

StepPtr make_conv_f32(const OpView& view) {
  if (!view.counts(1, 1, 2, 10, 2)) return nullptr;
  const TensorRecord &in = view.input(0), &out = view.output();
  ConvF32Params params{};
  if (!is(in, Dtype::kF32) || !is(out, Dtype::kF32) || !conv_shape_of(view, in, out, &params.shape)) return nullptr;
  const ConvShape& shape = params.shape;
  const std::uint64_t outputs = std::uint64_t(shape.outputs);
  if (!holds(view.constant(0), Dtype::kF32, outputs * shape.taps())) return nullptr;
  if (!holds(view.constant(1), Dtype::kF32, outputs)) return nullptr;
  if (view.op.ints[9] < 0 || view.op.ints[9] >= kUnaries) return nullptr;
  params.weights = values<float>(view.constant(0));
  params.bias = values<float>(view.constant(1));
  params.activation = int(view.op.ints[9]);
  params.alpha = view.op.floats[0];
  params.beta = view.op.floats[1];
  const double ns = macs_of(shape) * kNsPerFloatMac + bytes_moved(view) * kNsPerByte;
  return StepPtr(new ConvStep<ConvF32, float, float>(view, params, ns, [&](const ConvF32Params& own, std::int64_t) {
    return conv_f32(own, view.level);
  }));
}

}  // namespace nas
