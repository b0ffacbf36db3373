// Which kernels a level runs.
#include "layout.h"

namespace nas {

extern const AttentionKernels attention_portable;
#if defined(__x86_64__)
extern const AttentionKernels attention_avx2, attention_avx512, attention_avx512_vnni;
#elif defined(__aarch64__)
extern const AttentionKernels attention_neon;
#endif

const AttentionKernels& attention_kernels(Level level) {
  switch (level) {
#if defined(__x86_64__)
    case Level::avx2:
    case Level::avx_vnni:
    case Level::avx512vl_vnni:
      return attention_avx2;
    case Level::avx512:
      return attention_avx512;
    case Level::avx512_vnni:
      return attention_avx512_vnni;
#elif defined(__aarch64__)
    case Level::neon:
    case Level::neondot:
    case Level::neoni8mm:
      return attention_neon;
#endif
    default:
      return attention_portable;
  }
}

std::int64_t attention_units(const AttentionArgs& args) { return args.heads * units_of_head(args); }

std::size_t attention_scratch_bytes(const AttentionArgs& args) {
  if (one_by_one(args)) return std::size_t(whole_vectors(args.keys)) * sizeof(float);
  return in_floats(args) ? divide_float_scratch(args, nullptr).bytes : divide_short_scratch(args, nullptr).bytes;
}

void attention(const AttentionArgs& args, Level level) { attention_kernels(level).attention(args); }

}  // namespace nas
