// What work takes on one thread, in nanoseconds, to decide which steps are worth sharing.
//
// Measured on one core with AVX512-VNNI; other processors take longer for the same work, but not to hand it over, so
// that what is worth sharing here is worth sharing there.
#pragma once

namespace nas {

constexpr double kNsPerMac = 0.006;           // 8-bit products with weights
constexpr double kNsPerDepthwiseMac = 0.02;
constexpr double kNsPerFloatMac = 0.02;
constexpr double kNsPerInt4Mac = 0.01;
constexpr double kNsPerAttentionMac = 0.02;    // 8-bit scores, softmax included
constexpr double kNsPerByte = 0.02;           // read or written, in order
constexpr double kNsPerFunction = 0.25;       // a float through exp, erf or a division
constexpr double kNsPerScalar = 1.0;          // an element that no vector instruction is used for

}  // namespace nas
