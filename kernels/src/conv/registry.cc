// Which kernel of a convolution on bytes a level runs.
#include "../gemm/product.h"
#include "conv.h"

namespace nas {

ConvU8* conv_u8(const ConvU8Params& params, Level level) {
  ConvU8* found = nullptr;
  // Each in turn until one takes the shape.
  const auto by = [&](ConvU8* (*make)(const ConvU8Params&)) {
    if (found == nullptr) found = make(params);
  };
#if defined(__aarch64__)
  if (level == Level::neondot) by(conv_u8_neondot);
#endif
  if (found == nullptr) found = product_u8(params, level);
#if defined(__x86_64__)
  if (level == Level::avx512_vnni) {
    by(depthwise3x3_u8_avx512vnni);
    by(depthwise_u8_avx512vnni);
    by(conv_u8_avx512vnni);
  } else if (level == Level::avx_vnni) {
    by(depthwise_u8_avxvnni);
    by(conv_u8_avxvnni);
  } else if (level == Level::avx512vl_vnni) {
    by(depthwise_u8_avx512vlvnni);
    by(conv_u8_avx512vlvnni);
  } else if (level >= Level::avx2) {
    by(depthwise_u8_avx2);
    by(conv_u8_avx2);
  }
#elif defined(__aarch64__)
  if (level == Level::neoni8mm) {
    by(depthwise_u8_neoni8mm);
    by(conv_u8_neoni8mm);
  } else if (level == Level::neondot) {
    by(depthwise_u8_neondot);
  } else if (level == Level::neon) {
    by(depthwise_u8_neon);
    by(conv_u8_neon);
  }
#endif
  by(conv_u8_portable);
  return found;
}

ConvF32* conv_f32(const ConvF32Params& params, Level level) {
  ConvF32* conv = nullptr;
#if defined(__x86_64__)
  if (level == Level::avx512_vnni) {
    conv = conv_f32_avx512(params);
  } else if (level >= Level::avx2) {
    conv = conv_f32_avx2(params);
  }
#elif defined(__aarch64__)
  if (level >= Level::neon) conv = conv_f32_neon(params);
#endif
  return conv != nullptr ? conv : conv_f32_portable(params);
}

}  // namespace nas
