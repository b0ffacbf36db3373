// Weights of a dense convolution in the order in which its tiles read them. Internal linkage: included by files for one
// ISA each.
#pragma once

#include <cstdlib>
#include <cstring>

#include "conv.h"

namespace nas {
namespace {

// Memory aligned for vectors, zeroed, freed with its owner. No template of the standard library: see conv.h.
template <typename T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::size_t count) : data_(nullptr) {
    void* memory = nullptr;
    const std::size_t bytes = (count * sizeof(T) + 127) / 64 * 64;
    if (posix_memalign(&memory, 64, bytes) != 0) std::abort();
    std::memset(memory, 0, bytes);
    data_ = static_cast<T*>(memory);
  }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  Aligned& operator=(Aligned&& other) noexcept {
    T* mine = data_;
    data_ = other.data_;
    other.data_ = mine;
    return *this;
  }
  ~Aligned() { std::free(data_); }
  operator T*() { return data_; }
  operator const T*() const { return data_; }

 private:
  T* data_ = nullptr;
};

// Whether every requantized sum fits in 32 bits before it is clamped; if not, only the reference is right.
[[maybe_unused]] bool sums_fit(const ConvU8Params& params) {
  const int taps = params.shape.taps();
  for (int output = 0; output < params.shape.outputs; ++output) {
    double largest = params.bias[output] < 0 ? -double(params.bias[output]) : double(params.bias[output]);
    for (int k = 0; k < taps; ++k) {
      const int weight = params.weights[std::size_t(output) * taps + k];
      largest += 255.0 * (weight < 0 ? -weight : weight);
    }
    if (largest > 2147483648.0) largest = 2147483648.0;
    if (!(largest * params.multiplier[output] < 2e9)) return false;
  }
  return true;
}

// Which of a panel's outputs element `e` of vector `v` holds, so that packing 32-bit sums to bytes needs no shuffle:
// packing works within lanes of 128 bits, 4 sums each.
inline int output_in_panel(int vectors, int v, int e, bool natural) {
  const int lane = e / 4, element = e % 4;
  if (!natural && vectors == 4) return 16 * lane + 4 * v + element;
  if (!natural && vectors == 3) return 12 * lane + 4 * v + element;
  if (!natural && vectors == 2) return 8 * lane + 4 * v + element;
  return 16 * v + e;
}

struct Panel {
  int first, vectors, columns;
  const std::int8_t* weights;
  const std::int32_t* bias;
  const float* multiplier;
};

struct Panels {
  static constexpr int kMost = 4096;
  int count = 0, widest = 1;
  Panel* at = nullptr;
  Aligned<std::int8_t> weights;
  Aligned<std::int32_t> bias;
  Aligned<float> multiplier;

  Panels() = default;
  Panels(const Panels&) = delete;
  Panels& operator=(const Panels&) = delete;
  ~Panels() { delete[] at; }

  // Vectors of the panel that starts with `left` vectors to go: all of them where that is 4 or fewer, panels of 3
  // where they come out even, else 4, but never a last panel of 1 that 3 and 2 would avoid.
  static int next_width(int left, int total) {
    if (left <= 4) return left;
    if (total % 4 != 0 && total % 3 == 0) return 3;
    return left == 5 ? 3 : 4;
  }

  void pack(const ConvU8Params& params, int depth, int depth4, bool natural) {
    const ConvShape& s = params.shape;
    const int total = (s.outputs + 15) / 16;
    const std::size_t group = std::size_t(s.kernel_h) * depth4 * 64;
    at = new Panel[total];
    weights = Aligned<std::int8_t>(group * total);
    bias = Aligned<std::int32_t>(std::size_t(16) * total);
    multiplier = Aligned<float>(std::size_t(16) * total);
    for (int done = 0; done < total;) {
      const int vectors = next_width(total - done, total), first = 16 * done;
      std::int8_t* packed = weights + group * done;
      for (int v = 0; v < vectors; ++v) {
        for (int e = 0; e < 16; ++e) {
          const int output = first + output_in_panel(vectors, v, e, natural);
          if (output >= s.outputs) continue;
          bias[first + 16 * v + e] = params.bias[output];
          multiplier[first + 16 * v + e] = params.multiplier[output];
          const std::int8_t* from = params.weights + std::size_t(output) * s.kernel_h * depth;
          for (int ky = 0; ky < s.kernel_h; ++ky) {
            for (int k = 0; k < depth; ++k) {
              packed[(std::size_t(ky) * depth4 + k / 4) * 64 * vectors + 64 * v + 4 * e + k % 4] = from[ky * depth + k];
            }
          }
        }
      }
      const int left = s.outputs - first;
      at[count++] = {first, vectors, left < 16 * vectors ? left : 16 * vectors, packed, bias + first, multiplier + first};
      if (vectors > widest) widest = vectors;
      done += vectors;
    }
  }
};

}  // namespace
}  // namespace nas
