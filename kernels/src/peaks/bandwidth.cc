#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "nas/peaks.h"

namespace nas {
namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

// A pass takes milliseconds, so one that another process disturbed is common; the best of a few is not.
constexpr int kMinPasses = 8;

std::size_t buffer_bytes() {
  std::size_t cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  cache = static_cast<std::size_t>(std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE)));
#endif
  const std::size_t wanted = std::max(4 * cache, 64 * kMebibyte);
  const long pages = sysconf(_SC_AVPHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return wanted;
  const std::size_t quarter = static_cast<std::size_t>(pages) * static_cast<std::size_t>(page_bytes) / 4;
  return std::clamp(wanted, std::min(wanted, 16 * kMebibyte), std::max(quarter, 16 * kMebibyte));
}

// Eight sums, so that additions never wait for each other; the baseline's vectors are enough, memory is the limit.
std::uint64_t sum_words(const std::vector<std::uint64_t>& words) {
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i + 8 <= words.size(); i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

double read_bandwidth_gbs(double seconds) {
  using Clock = std::chrono::steady_clock;
  const std::vector<std::uint64_t> words(buffer_bytes() / sizeof(std::uint64_t), 1);  // written, so really mapped
  const double bytes = static_cast<double>(words.size() * sizeof(std::uint64_t));
  double best = 0.0;
  double spent = 0.0;
  for (int pass = 0; pass < kMinPasses || spent < seconds; ++pass) {
    const auto start = Clock::now();
    volatile std::uint64_t sink = sum_words(words);
    static_cast<void>(sink);
    const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, bytes / elapsed / 1e9);
    spent += elapsed;
  }
  return best;
}

}  // namespace nas
