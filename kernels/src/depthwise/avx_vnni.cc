#include "vnni256.h"

namespace nas {

ConvU8* depthwise_u8_avxvnni(const ConvU8Params& params) {
  if (!params.shape.depthwise() || params.float_out || !sums_fit(params)) return nullptr;
  return new YmmDepthwise<Quads>(params, "depthwise_u8s8u8_1x32_avxvnni");
}

}  // namespace nas
