#include "vnni256.h"

namespace nas {

const Int8Kernel dot_u8s8s32_12x32_avxvnni = {"avx_vnni", 12 * 32, dot_burst, dot};

}  // namespace nas
