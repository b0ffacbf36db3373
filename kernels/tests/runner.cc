// What nasq-run brings in the place of a C library, tested where it runs: this program has none either.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../runner/system.h"
#include "../runner/text.h"
#include "nas/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

long checks = 0, failures = 0;

void check(bool holds, const std::string& what) {
  ++checks;
  if (holds || ++failures > 20) return;
  runner::print("FAILED: " + what + "\n");
}

std::uint64_t state = 0x9E3779B97F4A7C15ULL;
std::uint64_t draw() {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state >> 11;
}

// Through pointers, so that the compiler puts no instructions of its own in their place.
void* (*volatile move)(void*, const void*, std::size_t) = std::memmove;
void* (*volatile fill)(void*, int, std::size_t) = std::memset;
int (*volatile compare)(const void*, const void*, std::size_t) = std::memcmp;
float (*volatile fused)(float, float, float) = fmaf;
float (*volatile nearest)(float) = nearbyintf;

void moving_and_filling() {
  constexpr std::size_t kSize = 1400;
  std::vector<std::uint8_t> given(kSize), moved(kSize), expected(kSize);
  for (std::size_t size = 0; size <= 600; size += size < 280 ? 1 : 37) {
    for (const std::size_t to : {std::size_t(300), std::size_t(301), 300 + size / 2, 300 + size, std::size_t(333), std::size_t(90)}) {
      for (std::uint8_t& byte : given) byte = std::uint8_t(draw());
      moved = given;
      expected = given;
      for (std::size_t i = 0; i < size; ++i) expected[to + i] = given[300 + i];
      check(move(moved.data() + to, moved.data() + 300, size) == moved.data() + to, "memmove returns its target");
      check(compare(moved.data(), expected.data(), kSize) == 0, "memmove of " + runner::whole(size) + " to " + runner::whole(to));
      const int value = int(draw() & 255);
      for (std::size_t i = 0; i < size; ++i) expected[to + i] = std::uint8_t(value);
      fill(moved.data() + to, value + 256, size);
      check(compare(moved.data(), expected.data(), kSize) == 0, "memset of " + runner::whole(size) + " at " + runner::whole(to));
    }
  }
  check(compare("abc", "abd", 3) < 0 && compare("abd", "abc", 3) > 0 && compare("abc", "abd", 2) == 0, "memcmp");
  check(std::strcmp("a", "ab") < 0 && std::strcmp("b", "ab") > 0 && std::strcmp("", "") == 0, "strcmp");
}

// Blocks of all sizes keep their bytes while others come and go, and lie where they were asked to.
void memory() {
  struct Block {
    std::uint8_t* at = nullptr;
    std::size_t size = 0;
    std::uint8_t mark = 0;
  };
  std::vector<Block> blocks(64);
  for (int round = 0; round < 4000; ++round) {
    Block& block = blocks[draw() % blocks.size()];
    for (std::size_t i = 0; i < block.size; i += 1 + block.size / 64) check(block.at[i] == block.mark, "a block kept its bytes");
    std::free(block.at);
    const std::size_t alignment = std::size_t{16} << draw() % 9;
    block.size = draw() % (std::size_t{1} << (draw() % 20 + 1));
    block.mark = std::uint8_t(draw());
    if (draw() % 2 == 0) {
      block.at = static_cast<std::uint8_t*>(std::malloc(block.size));
      check(reinterpret_cast<std::uintptr_t>(block.at) % 16 == 0, "malloc is aligned to 16");
    } else {
      void* at = nullptr;
      check(posix_memalign(&at, alignment, block.size) == 0, "posix_memalign succeeds");
      block.at = static_cast<std::uint8_t*>(at);
      check(reinterpret_cast<std::uintptr_t>(at) % alignment == 0, "posix_memalign to " + runner::whole(alignment));
    }
    std::memset(block.at, block.mark, block.size);
  }
  check(std::malloc(std::size_t{1} << 60) == nullptr, "too much is refused");
}

#if defined(__x86_64__)
bool instruction() { return nas::cpu_features().fma; }
__attribute__((target("fma"))) float exact_fused(float a, float b, float c) {
  return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}
#else
bool instruction() { return true; }
float exact_fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#endif

float any_float(bool moderate) {
  std::uint32_t bits = std::uint32_t(draw());
  if (moderate) bits = (bits & 0x807FFFFF) | std::uint32_t(120 + draw() % 16) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b); }

void rounding() {
  for (int i = 0; instruction() && i < 200000; ++i) {
    const float a = any_float(i % 4 != 0), b = any_float(i % 4 != 0);
    // Every other summand nearly cancels the product.
    const float c = i % 2 == 0 ? any_float(i % 4 != 0) : -(a * b);
    check(same(fused(a, b, c), exact_fused(a, b, c)), "fmaf rounds once");
  }
  const float pairs[][2] = {{0.5F, 0.0F}, {1.5F, 2.0F}, {2.5F, 2.0F}, {-0.5F, -0.0F}, {-1.5F, -2.0F}, {0.49999997F, 0.0F},
                            {8388607.5F, 8388608.0F}, {-8388609.0F, -8388609.0F}, {-0.0F, -0.0F}, {3e38F, 3e38F}};
  for (const auto& pair : pairs) check(same(nearest(pair[0]), pair[1]), "nearbyintf to even");
  check(nearest(std::numeric_limits<float>::infinity()) == std::numeric_limits<float>::infinity(), "nearbyintf of infinity");
}

void text() {
  check(runner::whole(0) == "0" && runner::whole(18446744073709551615ULL) == "18446744073709551615", "whole numbers");
  check(runner::hexadecimal(0xBEEF, 8) == "0000beef", "hexadecimal");
  check(runner::decimal(0.0070533, 6) == "0.007053" && runner::decimal(1.9999996, 6) == "2.000000", "decimals are rounded");
  check(runner::decimal(12345.0625, 3) == "12345.063" && runner::decimal(0.0, 3) == "0.000", "decimals");
  check(runner::quoted("a\"\\\n\xC3") == "\"a\\\"\\\\\\u000a\\u00c3\"", "strings of JSON");
}

void clock() {
  const double before = runner::now_s();
  runner::pause_us(2000);
  check(runner::now_s() - before >= 0.002, "a pause takes its time");
}

}  // namespace

int main() {
  moving_and_filling();
  memory();
  rounding();
  text();
  clock();
  check(std::getenv("NAS_TEST_WORD") != nullptr && std::string(std::getenv("NAS_TEST_WORD")) == "said", "the environment");
  check(std::getenv("NAS_TEST") == nullptr, "a name's beginning is no name");
  runner::print(runner::whole(std::uint64_t(checks)) + " checks, " + runner::whole(std::uint64_t(failures)) + " failures\n");
  return failures == 0 ? 0 : 1;
}
