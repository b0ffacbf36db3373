// Where a convolution is a product.
#pragma once

#include "../conv/conv.h"
#include "nas/level.h"

namespace nas {

// nullptr where the window is not 1x1 with stride 1, or the level has no gemm of its own.
ConvU8* product_u8(const ConvU8Params& params, Level level);

}  // namespace nas
