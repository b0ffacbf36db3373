// Threads that run the steps of one program together. threads.cc makes them; a program that is linked without it runs on one
// thread and carries none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "nas/program.h"
#include "nas/threads.h"

namespace nas {

class Team {
 public:
  virtual ~Team();
  // Runs all steps in their order on the caller's thread and the workers; not for two callers at once. `seconds`, where
  // it is given, receives the time of each step.
  virtual void run(double* seconds) = 0;
};

// What a team works on, for as long as it lives: thread t uses scratch + t * scratch_bytes.
struct TeamWork {
  const std::vector<std::unique_ptr<Step>>* steps;
  std::uint8_t* arena;
  std::uint8_t* scratch;
  std::size_t scratch_bytes;
  int threads;            // with the caller's; those for which there is no processor are not started
  double shared_ns;       // estimated time of the steps in parts on one thread
  bool crowded = false;   // for tests: start them all
};

// All parts of a step on one thread.
inline void run_alone(const Step& step, std::uint8_t* arena, std::uint8_t* scratch) {
  const int parts = step.parts();
  for (int part = 0; part < parts; ++part) step.run(arena, scratch, {part, parts});
}

// nullptr where there is no room for a worker.
std::unique_ptr<Team> make_team(const TeamWork& work);

}  // namespace nas
