// Which kernel a level runs, and the arithmetic that needs no kernel.
#include "nas/gemm.h"

namespace nas {

const GemmKernel& gemm_kernel(Level level) {
  switch (level) {
#if defined(__x86_64__)
    case Level::avx512_vnni:
      return gemm_u8s8s32_6x64x4_avx512vnni;
    case Level::avx_vnni:
      return gemm_u8s8s32_4x24x4_avxvnni;
    case Level::avx512vl_vnni:
      return gemm_u8s8s32_4x24x4_avx512vlvnni;
    case Level::avx2:
    case Level::avx512:
      return gemm_u8s8s32_4x24x2_avx2;
#elif defined(__aarch64__)
    case Level::neon:
      return gemm_u8s8s32_4x16x1_neon;
    case Level::neondot:
      return gemm_u8s8s32_4x16x4_neondot;
    case Level::neoni8mm:
      return gemm_u8s8s32_4x16x8_neoni8mm;
#endif
    default:
      return gemm_u8s8s32_portable;
  }
}

void gemm_fold_bias(const std::int8_t* w, std::int64_t stride_n, std::int64_t stride_k, std::int64_t n, std::int64_t k,
                    std::int32_t a_zero, std::int32_t w_zero, const std::int32_t* bias_in, std::int32_t* bias) {
  const std::uint32_t zero = static_cast<std::uint32_t>(a_zero);
  const std::uint32_t constant = static_cast<std::uint32_t>(k) * zero * static_cast<std::uint32_t>(w_zero);
  for (std::int64_t j = 0; j < n; ++j) {
    std::uint32_t sum = 0;
    for (std::int64_t i = 0; i < k; ++i) sum += static_cast<std::uint32_t>(std::int32_t{w[j * stride_n + i * stride_k]});
    const std::uint32_t given = bias_in != nullptr ? static_cast<std::uint32_t>(bias_in[j]) : 0;
    bias[j] = static_cast<std::int32_t>(given - zero * sum + constant);
  }
}

void gemm_row_terms(const void* a, std::int64_t lda, bool a_signed, std::int64_t m, std::int64_t k, std::int32_t w_zero,
                    std::int32_t* row_term) {
  const std::uint8_t* bytes = static_cast<const std::uint8_t*>(a);
  for (std::int64_t i = 0; i < m; ++i) {
    const std::uint8_t* row = bytes + i * lda;
    std::uint32_t sum = 0;
    if (a_signed) {
      for (std::int64_t j = 0; j < k; ++j) sum += static_cast<std::uint32_t>(std::int32_t{static_cast<std::int8_t>(row[j])});
    } else {
      for (std::int64_t j = 0; j < k; ++j) sum += row[j];
    }
    row_term[i] = static_cast<std::int32_t>(0U - static_cast<std::uint32_t>(w_zero) * sum);
  }
}

void gemm_requantize_scales(float a_scale, const float* w_scale, bool per_channel, float out_scale, std::int64_t n,
                            float* scale) {
  for (std::int64_t j = 0; j < n; ++j) scale[j] = a_scale * w_scale[per_channel ? j : 0] / out_scale;
}

}  // namespace nas
