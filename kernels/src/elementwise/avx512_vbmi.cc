// The level avx512_vnni where the processor can also look bytes up (VBMI: all with VNNI but Cascade and Cooper Lake).
#include "body.h"

namespace nas {

extern const ElementwiseKernels elementwise_avx512_vbmi;
const ElementwiseKernels elementwise_avx512_vbmi = NAS_ELEMENTWISE_KERNELS(Level::avx512_vnni);

}  // namespace nas
