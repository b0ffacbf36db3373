// One or two rows by 64 columns: weights are the unsigned side of the dot product, rounded activations the signed one.
#include "../requantize/avx512.h"
#include "body.h"

namespace nas {
namespace {

struct Avx512Vnni {
  using Sums = Ints::Part;
  using Reals = Floats::Part;
  struct Nibbles {
    __m512i low, high;
  };
  // Two sums per vector: one would have the latency of each instruction in its way.
  struct Partial {
    __m512i low, high;
  };
  static constexpr std::int64_t kLanes = 16, kBlock = 1 << 20;
  static constexpr int vectors(int) { return 4; }

  static Nibbles nibbles(const std::uint8_t* bytes) {
    const __m512i lower = _mm512_set1_epi8(15), both = _mm512_loadu_si512(bytes);
    return {_mm512_and_si512(both, lower), _mm512_and_si512(_mm512_srli_epi16(both, 4), lower)};
  }
  static void add(Partial& sums, const Nibbles& w, const std::int8_t* eight) {
    sums.low = dot(sums.low, w.low, _mm512_set1_epi32(four_bytes(eight)));
    sums.high = dot(sums.high, w.high, _mm512_set1_epi32(four_bytes(eight + 4)));
  }
  static void fold(Partial&) {}
  static Sums total(const Partial& sums) { return reinterpret_cast<Sums>(_mm512_add_epi32(sums.low, sums.high)); }
  static Reals fused(Reals a, Reals b, Reals c) { return fused_part(a, b, c); }
};

}  // namespace

extern const Int4Kernel int4_avx512_vnni;
const Int4Kernel int4_avx512_vnni = {Level::avx512_vnni, "int4_f32_2x64x8_avx512vnni", int4_run<Avx512Vnni>};

}  // namespace nas
