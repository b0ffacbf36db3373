// A planned program made ready to run on this processor.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nas/level.h"
#include "nas/plan.h"

namespace nas {

// One operator, its weights packed for the kernel that was chosen when it was made.
class Step {
 public:
  virtual ~Step() = default;
  // `arena` holds all tensors at their offsets; `scratch` has scratch_bytes() bytes and is nobody's between steps.
  // Both are aligned to 64 bytes, and 64 bytes behind either may be read.
  virtual void run(std::uint8_t* arena, std::uint8_t* scratch) const = 0;
  virtual std::size_t scratch_bytes() const { return 0; }
  // Name of the kernel, with types, tile and ISA.
  virtual const char* kernel() const = 0;
};

class Program {
 public:
  // Takes the best kernels that `level` allows, which must be available. Returns nullptr and says in `error` what is
  // wrong with an operator.
  static std::unique_ptr<Program> make(Plan plan, Level level, std::string* error);

  const Plan& plan() const { return plan_; }
  const Step& step(std::size_t index) const { return *steps_[index]; }
  std::size_t arena_bytes() const { return arena_size_; }
  std::size_t scratch_bytes() const { return scratch_size_; }

  // Where a tensor of the program lies, to write inputs before a run and to read outputs after it.
  std::uint8_t* data(std::uint32_t tensor) { return arena_ + plan_.tensors[tensor].offset; }
  // Not for two threads at once.
  void run();
  // The same with the time of each step in seconds.
  void run_timed(double* seconds);

 private:
  Program() = default;
  Plan plan_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<std::uint8_t> memory_;
  std::uint8_t* arena_ = nullptr;
  std::uint8_t* scratch_ = nullptr;
  std::size_t arena_size_ = 0;
  std::size_t scratch_size_ = 0;
};

}  // namespace nas
