#include "vnni256.h"

namespace nas {

ConvU8* conv_u8_avx512vlvnni(const ConvU8Params& params) {
  if (params.shape.groups != 1 || !sums_fit(params)) return nullptr;
  return new BodyConv<Vnni256>(params, params.float_out ? "conv_u8s8f32_6x16_avx512vlvnni" : "conv_u8s8u8_6x16_avx512vlvnni");
}

}  // namespace nas
