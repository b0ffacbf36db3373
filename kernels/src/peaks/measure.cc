#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>

#include "nas/isa.h"

namespace nas {
namespace {

// 0.1 to 1 ms per burst: long against the clock's resolution, short against a time slice.
constexpr std::int64_t kVectorIterations = 20000;

// GMAC/s of the fastest burst; `right` checks what a burst returned.
template <typename Kernel, typename Right>
double best_gmacs(const Kernel& kernel, std::int64_t iterations, double seconds, Right right) {
  using Clock = std::chrono::steady_clock;
  const double macs = static_cast<double>(kernel.macs_per_iteration * iterations);
  double best = 0.0;
  double spent = 0.0;
  do {
    const auto start = Clock::now();
    const auto sum = kernel.burst(iterations);
    const double burst = std::chrono::duration<double>(Clock::now() - start).count();
    if (!right(sum)) {
      throw std::runtime_error(std::string("the ") + kernel.isa + " kernel computed a wrong sum; its time means nothing");
    }
    best = std::max(best, macs / burst / 1e9);
    spent += burst;
  } while (spent < seconds);
  return best;
}

}  // namespace

MeasuredPeaks measure_peaks(double seconds) {
  if (!std::isfinite(seconds) || seconds <= 0.0 || seconds > 60.0) {
    throw std::invalid_argument("seconds is " + std::to_string(seconds) + "; expected more than 0 and at most 60.");
  }
  const IsaLevel& level = chosen_isa();
  const double share = seconds / 3.0;
  const double fp32_sum = static_cast<double>(level.fp32->macs_per_iteration * kVectorIterations);
  const std::int64_t int8_macs = level.int8->macs_per_iteration * kVectorIterations;
  const auto int8_sum = static_cast<std::uint32_t>(int8_macs * kBurstU8 * kBurstS8);
  MeasuredPeaks peaks{};
  peaks.fp32_isa = level.fp32->isa;
  peaks.int8_isa = level.int8->isa;
  peaks.fp32_gmacs = best_gmacs(*level.fp32, kVectorIterations, share, [=](double sum) { return sum == fp32_sum; });
  peaks.int8_gmacs =
      best_gmacs(*level.int8, kVectorIterations, share, [=](std::uint32_t sum) { return sum == int8_sum; });
  peaks.bandwidth_gbs = read_bandwidth_gbs(share);
  return peaks;
}

}  // namespace nas
