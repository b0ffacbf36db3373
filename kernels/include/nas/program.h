// A planned program made ready to run on this processor.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nas/level.h"
#include "nas/part.h"
#include "nas/plan.h"

namespace nas {

// Keys and values of a text's earlier tokens. They outlive a run and may be shared by programs, so they lie outside the
// arena: each buffer holds (heads, capacity, head size) floats, of which the first `past` tokens are filled.
struct Cache {
  std::int64_t past = 0;
  std::int64_t capacity = 0;
  std::vector<float*> buffers;
};

// One operator, its weights packed for the kernel that was chosen when it was made.
class Step {
 public:
  virtual ~Step() = default;
  // Computes one of parts() parts; different parts may run at once, each with a scratch of its own. `arena` holds all
  // tensors at their offsets; `scratch` has scratch_bytes() bytes and is nobody's between parts. Both are aligned to 64
  // bytes, and 64 bytes behind either may be read.
  virtual void run(std::uint8_t* arena, std::uint8_t* scratch, Part part) const = 0;
  virtual int parts() const { return 1; }
  virtual std::size_t scratch_bytes() const { return 0; }
  // Name of the kernel, with types, tile and ISA.
  virtual const char* kernel() const = 0;
};

// Threads that run the steps of a program together, see src/execute/team.h.
class Team;

// What is not worth handing over: a step that takes less than the first on one thread, and a program whose steps of that
// length take less than the second together. See cost.h for how they were measured.
constexpr double kSplitNs = 400.0;
constexpr double kLeastSharedNs = 5000.0;

// How many threads a program may use, and the least time of a step, on one thread as cost.h estimates it, from which on
// it is shared among them; 0 shares whatever can be shared.
struct Threads {
  int count = 1;
  double split_ns = kSplitNs;
};

// Memory for the tensors of one run. A program has one of its own; further ones let several threads run it at once.
class Workspace {
 public:
  Workspace() = default;
  Workspace(Workspace&&) = default;
  Workspace& operator=(Workspace&&) = default;
  Workspace(std::size_t arena_bytes, std::size_t scratch_bytes);  // scratch_bytes: of all threads
  std::uint8_t* data(const TensorRecord& tensor) { return arena_ + tensor.offset; }

 private:
  friend class Program;
  std::vector<std::uint8_t> memory_;
  std::uint8_t* arena_ = nullptr;
  std::uint8_t* scratch_ = nullptr;
};

class Program {
 public:
  // Takes the best kernels that `level` allows, which must be available. Returns nullptr and says in `error` what is
  // wrong with an operator. Outputs do not depend on the number of threads; where the program is linked without
  // threads.cc, or the system gives no thread, the caller's does all the work.
  static std::unique_ptr<Program> make(Plan plan, Level level, std::string* error, Threads threads = {});
  ~Program();

  const Plan& plan() const { return plan_; }
  const Step& step(std::size_t index) const { return *steps_[index]; }
  std::size_t arena_bytes() const { return arena_size_; }
  std::size_t scratch_bytes() const { return scratch_size_ * std::size_t(threads_); }
  int threads() const { return threads_; }  // for which its steps were made

  // A program that reads and extends a cache. `cache_rows` says for each buffer how many (heads) of which length (head size)
  // there are; a run adds `new_tokens` to those that are there, up to `most_tokens`. Without a cache all are empty or 0.
  struct CacheRows {
    std::int64_t heads = 0;
    std::int64_t size = 0;
  };
  const std::vector<CacheRows>& cache_rows() const { return cache_rows_; }
  std::int64_t new_tokens() const { return new_tokens_; }
  std::int64_t most_tokens() const { return most_tokens_; }
  // Says which cache the next runs use; false where the tokens do not fit. Left unsaid, the program uses one of its own that
  // is full but for the new tokens, the slowest case.
  bool use(const std::vector<float*>& buffers, std::int64_t capacity, std::int64_t past);

  // Where a tensor of the program lies, to write inputs before a run and to read outputs after it.
  std::uint8_t* data(std::uint32_t tensor) { return own_.data(plan_.tensors[tensor]); }
  // Not for two threads at once.
  void run();
  // The same with the time of each step in seconds.
  void run_timed(double* seconds);

  // The same elsewhere, on the calling thread alone: threads that have a workspace each may run at once. Not for a
  // program with a cache.
  std::unique_ptr<Workspace> make_workspace() const { return std::make_unique<Workspace>(arena_size_, scratch_size_); }
  void run(Workspace& workspace) const;

 private:
  Program();
  std::string learn_cache();
  std::string make_steps(Level level, Threads threads);
  void use_own_cache();

  Plan plan_;
  std::unique_ptr<Cache> cache_ = std::make_unique<Cache>();
  std::vector<CacheRows> cache_rows_;
  std::vector<float> own_cache_;
  std::int64_t new_tokens_ = 0;
  std::int64_t most_tokens_ = 0;
  std::vector<std::unique_ptr<Step>> steps_;
  Workspace own_;
  std::size_t arena_size_ = 0;
  std::size_t scratch_size_ = 0;  // of one thread
  double shared_ns_ = 0;
  int threads_ = 1;
  std::unique_ptr<Team> team_;    // nullptr where the caller's thread does all the work
};

}  // namespace nas
