// The little that the C++ tests share: random bytes that repeat, buffers whose ends are watched, and a count of checks.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "nas/level.h"

namespace nas_test {

struct Counts {
  long checks = 0;
  long failures = 0;
};

inline Counts& counts() {
  static Counts all;
  return all;
}

// Prints the first failures only: one mistake tends to make thousands.
template <typename... Args>
inline bool check(bool holds, const char* format, Args... args) {
  ++counts().checks;
  if (holds) return true;
  if (++counts().failures <= 20) {
    std::printf("FAILED: ");
    std::printf(format, args...);
    std::printf("\n");
  }
  return false;
}

// xorshift: the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 1) {}

  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ >> 11;
  }
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  float real(float low, float high) {
    return low + (high - low) * static_cast<float>(next() % 65536) / 65535.0F;
  }

 private:
  std::uint64_t state_;
};

// Aligned to 64 bytes and ended exactly at its last element, so that AddressSanitizer sees a read or write one too far;
// `intact` sees writes past the end without it.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::int64_t count) : bytes_(static_cast<std::size_t>(count) * sizeof(T)) {
#if defined(__SANITIZE_ADDRESS__)
    guard_ = 0;
#endif
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, bytes_ + guard_ + (bytes_ + guard_ == 0)) != 0) std::abort();
    data_ = static_cast<T*>(memory);
    std::memset(memory, 0xA5, bytes_ + guard_);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](std::int64_t i) { return data_[i]; }
  std::size_t bytes() const { return bytes_; }
  void fill(int byte) { std::memset(static_cast<void*>(data_), byte, bytes_); }
  bool same(const Buffer& other) const { return std::memcmp(data_, other.data_, bytes_) == 0; }
  bool intact() const {
    const unsigned char* end = reinterpret_cast<const unsigned char*>(data_) + bytes_;
    for (std::size_t i = 0; i < guard_; ++i) {
      if (end[i] != 0xA5) return false;
    }
    return true;
  }

 private:
  std::size_t bytes_;
  std::size_t guard_ = 64;
  T* data_;
};

// Calls body(level) for every level that this machine has; under NAS_FORCE_ISA for that one only.
template <typename Body>
inline void for_each_level(Body body) {
  const char* forced = std::getenv("NAS_FORCE_ISA");
  for (int i = 0; i <= static_cast<int>(nas::Level::neoni8mm); ++i) {
    const nas::Level level = static_cast<nas::Level>(i);
    if (!nas::level_available(level)) continue;
    if (forced != nullptr && *forced != '\0' && std::strcmp(forced, nas::level_name(level)) != 0) continue;
    body(level);
  }
}

}  // namespace nas_test
