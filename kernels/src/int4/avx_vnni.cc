#include "vnni256.h"

namespace nas {

extern const Int4Kernel int4_avx_vnni;
const Int4Kernel int4_avx_vnni = {Level::avx_vnni, "int4_f32_1x32x8_avxvnni", int4_run<Vnni256>};

}  // namespace nas
