#include "vnni256.h"

namespace nas {

const GemmKernel gemm_u8s8s32_4x24x4_avx512vlvnni = {Level::avx512vl_vnni, "gemm_u8s8s32_4x24x4_avx512vlvnni", packed_bytes<Quads>,
                                                     pack<Quads>, run<Quads>};

}  // namespace nas
