// 1x1 convolutions and products with stored weights, as the planner has them, on the gemm of the level.
#include "product.h"

#include <cstdlib>

#include "nas/gemm.h"

namespace nas {
namespace {

class Product final : public ConvU8 {
 public:
  Product(const ConvU8Params& params, const GemmKernel& gemm, std::uint8_t* packed)
      : gemm_(gemm), packed_(packed) {
    const ConvShape& s = params.shape;
    args_.n = s.outputs;
    args_.k = args_.lda = s.channels;
    args_.packed = packed;
    args_.ldc = s.out_pixel;
    args_.epilogue.output = params.float_out ? GemmOutput::f32 : GemmOutput::u8;
    args_.epilogue.zero_point = params.zero_out;
    args_.epilogue.bias = params.bias;
    args_.epilogue.scale = params.multiplier;
  }
  ~Product() override { std::free(packed_); }
  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t*) const override {
    GemmArgs now = args_;
    now.m = std::int64_t(s.batch) * s.out_height * s.out_width;
    now.a = input;
    now.c = output;
    gemm_.run(now);
  }
  const char* kernel() const override { return gemm_.name; }

 private:
  const GemmKernel& gemm_;
  std::uint8_t* packed_;
  GemmArgs args_;
};

}  // namespace

ConvU8* product_u8(const ConvU8Params& params, Level level) {
  const ConvShape& s = params.shape;
  const GemmKernel& gemm = gemm_kernel(level);
  const bool dense = s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1 && s.groups == 1;
  const bool padded = s.pad_top != 0 || s.pad_left != 0 || s.pad_bottom != 0 || s.pad_right != 0;
  if (!dense || padded || gemm.level == Level::portable) return nullptr;
  const std::size_t bytes = (gemm.packed_bytes(s.outputs, s.channels) + kGemmAlign - 1) / kGemmAlign * kGemmAlign;
  void* memory = std::aligned_alloc(kGemmAlign, bytes);
  if (memory == nullptr) return nullptr;
  gemm.pack(params.weights, s.channels, 1, s.outputs, s.channels, memory);
  return new Product(params, gemm, static_cast<std::uint8_t*>(memory));
}

}  // namespace nas
