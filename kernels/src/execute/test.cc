// Threads that share the steps of a program: every part runs once, after all parts of the step before it.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "../../tests/check.h"
#include "team.h"
#include "trial.h"

namespace nas_test {
namespace {

using nas::Part;
using nas::Step;
using nas::Team;
using nas::TeamWork;

constexpr int kSteps = 40, kNumbers = 96;

// Adds the neighbours of the numbers that the step before it left, so that a part that runs too early, late or twice shows.
class Neighbours final : public Step {
 public:
  Neighbours(int index, int parts) : index_(index), parts_(parts) {}
  void run(std::uint8_t* arena, std::uint8_t* scratch, Part part) const override {
    const auto* from = reinterpret_cast<const std::uint64_t*>(arena) + index_ * kNumbers;
    auto* to = reinterpret_cast<std::uint64_t*>(arena) + (index_ + 1) * kNumbers;
    auto* mine = reinterpret_cast<std::uint64_t*>(scratch);
    const nas::Span here = nas::share(kNumbers, part);
    // Through the scratch: two threads that had the same one would meet in it.
    for (std::int64_t i = here.first; i < here.end; ++i) {
      mine[i] = from[i] * 3 + from[(i + 1) % kNumbers] + from[(i + 17) % kNumbers] + to[i];
    }
    for (std::int64_t i = here.first; i < here.end; ++i) to[i] = mine[i];
  }
  int parts() const override { return parts_; }
  std::size_t scratch_bytes() const override { return kNumbers * sizeof(std::uint64_t); }
  const char* kernel() const override { return "neighbours"; }

 private:
  int index_, parts_;
};

std::vector<std::unique_ptr<Step>> steps_in_parts(int most, Random& random) {
  std::vector<std::unique_ptr<Step>> steps;
  for (int index = 0; index < kSteps; ++index) {
    steps.emplace_back(new Neighbours(index, random.next() % 3 == 0 ? 1 : most));
  }
  return steps;
}

struct Memory {
  std::vector<std::uint64_t> arena = std::vector<std::uint64_t>((kSteps + 1) * kNumbers, 1);
  std::vector<std::uint64_t> scratch = std::vector<std::uint64_t>(std::size_t(nas::kMostParts) * kNumbers);
  TeamWork work(const std::vector<std::unique_ptr<Step>>& steps, int threads, bool crowded, double shared_ns = 1e6) {
    return {&steps, reinterpret_cast<std::uint8_t*>(arena.data()), reinterpret_cast<std::uint8_t*>(scratch.data()),
            kNumbers * sizeof(std::uint64_t), threads, shared_ns, crowded};
  }
};

// What one thread computes in so many runs.
std::vector<std::uint64_t> alone(const std::vector<std::unique_ptr<Step>>& steps, int runs) {
  Memory memory;
  const TeamWork work = memory.work(steps, 1, false);
  for (int run = 0; run < runs; ++run) {
    for (const auto& step : steps) {
      for (int part = 0; part < step->parts(); ++part) step->run(work.arena, work.scratch, {part, step->parts()});
    }
  }
  return memory.arena;
}

void same_numbers(int threads, int parts, bool crowded, Random& random) {
  constexpr int kRuns = 60;
  const auto steps = steps_in_parts(parts, random);
  Memory memory;
  // Large enough to wake the workers in any case, or only if it runs again soon.
  const double shared_ns = random.next() % 2 == 0 ? 1e6 : 1e3;
  const std::unique_ptr<Team> team = nas::make_team(memory.work(steps, threads, crowded, shared_ns));
  if (team == nullptr) {
    check(nas::most_threads() == 1, "no worker beside the caller, but %d processors", nas::most_threads());
    return;
  }
  std::vector<double> seconds(kSteps, -1.0);
  for (int run = 0; run < kRuns; ++run) {
    if (run % 20 == 19) usleep(1000);  // long enough for the workers to fall asleep
    team->run(run % 2 == 0 ? nullptr : seconds.data());
  }
  check(memory.arena == alone(steps, kRuns), "%d threads, %d parts: other numbers than one thread", threads, parts);
  for (const double time : seconds) check(time >= 0.0, "%d threads: a step was not timed", threads);
}

void several_at_once(Random& random) {
  const auto first = steps_in_parts(2, random), second = steps_in_parts(3, random);
  Memory one, other;
  const std::unique_ptr<Team> team = nas::make_team(one.work(first, 2, true));
  const std::unique_ptr<Team> another = nas::make_team(other.work(second, 3, true));
  if (!check(team != nullptr && another != nullptr, "no threads although they need no processor")) return;
  for (int run = 0; run < 30; ++run) {
    team->run(nullptr);
    another->run(nullptr);
  }
  check(one.arena == alone(first, 30) && other.arena == alone(second, 30), "two teams disturb each other");
}

// The child of a fork has the memory of the team and none of its threads, whether they were at work or asleep.
void child_of_a_fork(Random& random, bool asleep) {
  const auto steps = steps_in_parts(2, random);
  Memory memory;
  std::unique_ptr<Team> team = nas::make_team(memory.work(steps, 2, true));
  if (!check(team != nullptr, "no thread although it needs no processor")) return;
  team->run(nullptr);
  if (asleep) usleep(20000);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // rather than to wait for a thread that is not there
    team->run(nullptr);
    const bool same = memory.arena == alone(steps, 2);
    team.reset();
    _exit(same ? 0 : 1);
  }
  int status = -1;
  check(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a forked process computes something else");
  team->run(nullptr);
  check(memory.arena == alone(steps, 2), "a fork disturbs the process that forked");
}

// Runs of a program that takes `shared` seconds or `alone`: how many of a thousand it shared after the first trial.
int shared_runs(nas::Trial& trial, double shared, double alone) {
  int count = 0;
  for (int run = 0; run < nas::Trial::kRuns; ++run) {
    const bool shares = trial.shares();
    count += shares ? 1 : 0;
    trial.note(shares ? shared : alone);
  }
  return count;
}

void trials() {
  constexpr int kRuns = nas::Trial::kRuns, kTried = nas::Trial::kTried;
  nas::Trial trial;
  check(shared_runs(trial, 1.0, 2.0) == kRuns - kTried, "sharing that pays is not done");
  check(shared_runs(trial, 2.0, 1.0) == kTried, "sharing that has ceased to pay is done");
  check(shared_runs(trial, 1.0, 1.0) == kTried, "sharing that brings nothing is done");
  check(shared_runs(trial, 1.0, 2.0) == kRuns - kTried, "sharing that pays again is not done");
}

}  // namespace

void execute_tests() {
  trials();
  Random random(11);
  for (int threads = 2; threads <= 4; ++threads) {
    for (int parts = 2; parts <= 5; ++parts) same_numbers(threads, parts, false, random);
    for (int times = 0; times < 4; ++times) same_numbers(threads, threads, true, random);
  }
  several_at_once(random);
  child_of_a_fork(random, false);
  child_of_a_fork(random, true);
}

}  // namespace nas_test
