// What work takes on one thread, in nanoseconds, to decide which steps are worth sharing.
//
// Both these figures and the thresholds in nas/program.h were measured on a core with AVX512-VNNI: fifteen networks ran on one
// thread and, with eight thresholds, on two whose cores were near each other, in turns, under real-time priority. From 400 ns
// on all gained or stayed as they were; lower ones slow networks of 12 us down, higher ones lose up to a quarter on those
// of 30 us, since a step that is not shared fetches half of its input from the other core's cache. Where cores are far
// apart no threshold helps small networks; see trial.h. Other processors need longer for the same
// work and about as long to hand it over, so what is worth sharing here is worth sharing there.
#pragma once

namespace nas {

constexpr double kNsPerMac = 0.003;           // products of bytes with weights
constexpr double kNsPerDepthwiseMac = 0.01;
constexpr double kNsPerInt4Mac = 0.005;
constexpr double kNsPerAttentionMac = 0.007;  // products of 16 bits, softmax included
constexpr double kNsPerFloatAttentionMac = 0.012;  // many queries at once, softmax included
constexpr double kNsPerFloatMac = 0.015;
constexpr double kNsPerByte = 0.01;           // read or written in order
constexpr double kNsPerElement = 0.07;        // one addition, product or rounding each
constexpr double kNsPerFunction = 0.3;        // a float through exp, erf or a division
constexpr double kNsPerScalar = 1.0;          // an element for which there is no vector instruction

}  // namespace nas
