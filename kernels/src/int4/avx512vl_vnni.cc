#include "vnni256.h"

namespace nas {

extern const Int4Kernel int4_avx512vl_vnni;
const Int4Kernel int4_avx512vl_vnni = {Level::avx512vl_vnni, "int4_f32_1x32x8_avx512vlvnni", int4_run<Vnni256>};

}  // namespace nas
