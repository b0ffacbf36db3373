#include "lanes_f32.h"

namespace nas {

ConvF32* conv_f32_neon(const ConvF32Params& params) {
  return conv_in_lanes(params, "conv_f32_6x16_neon", "depthwise_f32_6x16_neon");
}

}  // namespace nas
