// Upper bounds of one core: multiply-accumulates per second in fp32 and int8, and bytes read per second from memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nas {

// Multiplies and accumulates in registers. Every operand is 1.0f, so the sum of all accumulators, which burst returns,
// equals the number of multiply-accumulates, exactly as long as `iterations` stays below 2^24.
struct Fp32Kernel {
  const char* isa;
  std::int64_t macs_per_iteration;
  double (*burst)(std::int64_t iterations);
};

// What every u8 and s8 operand of Int8Kernel::burst holds.
constexpr std::uint8_t kBurstU8 = 3;
constexpr std::int8_t kBurstS8 = 5;

// burst returns the sum of all accumulators modulo 2^32, which is kBurstU8 * kBurstS8 per multiply-accumulate.
// dot returns the sum of a[i] * b[i] for n <= kDotChunk elements, with the same instructions and without saturation.
struct Int8Kernel {
  const char* isa;
  std::int64_t macs_per_iteration;
  std::uint32_t (*burst)(std::int64_t iterations);
  std::int32_t (*dot)(const std::uint8_t* a, const std::int8_t* b, std::size_t n);
};

// The most elements whose dot product surely fits in 32 bits: 32768 * 255 * 128 < 2^31.
constexpr std::size_t kDotChunk = 32768;

extern const Fp32Kernel fma_f32_8x4_portable;
extern const Fp32Kernel fma_f32_12x8_avx2;
extern const Fp32Kernel fma_f32_12x16_avx512;
extern const Fp32Kernel fma_f32_12x4_neon;

extern const Int8Kernel dot_u8s8s32_portable;
extern const Int8Kernel dot_u8s8s32_8x32_avx2;
extern const Int8Kernel dot_u8s8s32_12x32_avxvnni;
extern const Int8Kernel dot_u8s8s32_12x32_avx512vlvnni;
extern const Int8Kernel dot_u8s8s32_12x64_avx512vnni;
extern const Int8Kernel dot_u8s8s32_8x16_neon;
extern const Int8Kernel dot_u8s8s32_12x16_neondot;

// The dot product of any length, 64 bits wide.
std::int64_t dot_u8s8(const Int8Kernel& kernel, const std::uint8_t* a, const std::int8_t* b, std::size_t n);

struct MeasuredPeaks {
  double fp32_gmacs;
  double int8_gmacs;
  double bandwidth_gbs;
  const char* fp32_isa;
  const char* int8_isa;
};

// Best of many short bursts, a third of `seconds` for each figure. Throws std::runtime_error when a kernel computed a
// wrong sum, std::bad_alloc when the buffer of the bandwidth figure does not fit.
MeasuredPeaks measure_peaks(double seconds);

// Billion bytes read per second from a buffer of 4 times the last-level cache (64 MiB at least, a quarter of the free
// memory at most), best of the passes that fit in `seconds` and of 8 at least.
double read_bandwidth_gbs(double seconds);

}  // namespace nas
