#include "lanes_f32.h"

namespace nas {

ConvF32* conv_f32_avx2(const ConvF32Params& params) {
  return conv_in_lanes(params, "conv_f32_6x16_avx2", "depthwise_f32_6x16_avx2");
}

}  // namespace nas
