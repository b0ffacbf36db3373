// A team: workers that take the parts of a program's steps beside the caller's thread.
//
// One word says which parts of the open step nobody has taken and how many are not done. Whoever is free takes a part, its
// own by preference, so that a thread finds in its cache what it wrote a step before; whoever does the last part runs what
// cannot be shared and opens the next step. Nobody waits for a thread that has taken nothing: where the workers are late,
// asleep, or gone (after a fork), the caller does their parts.
//
// Who finds nothing to do looks again for a short while, then sleeps until a step is opened. A program that has ended before
// a sleeping thread would be up wakes its workers only when it runs again and again.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "team.h"
#include "trial.h"

namespace nas {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kStack = std::size_t{512} << 10;  // kernels keep no more than some KiB on it
constexpr std::chrono::microseconds kAwake{100};        // looked for work before falling asleep
constexpr double kWakeNs = 100e3;                       // of shared work that is worth waking workers for
constexpr double kDoubtNs = 1e6;                        // of shared work that gains wherever workers run
constexpr int kLooksPerClock = 64;

// Bits 0-15: parts of the open step that nobody has taken. 16-31: parts that are not done. 32: the run is over.
// 33-63: a number that changes with every step that is opened, so that a late thread takes nothing of another one.
using Word = std::uint64_t;
constexpr Word kTaken = 0xFFFF, kOneLeft = Word{1} << 16, kOver = Word{1} << 32, kNext = Word{1} << 33;

int left(Word word) { return int(word >> 16 & 0xFFFF); }

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
// As this code was loaded: who pins itself later does not take the workers' processors away.
cpu_set_t allowed_at_start() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  return set;
}
const cpu_set_t kAllowed = allowed_at_start();

// Where workers may run: where the caller may if there is room, else on the processors of the start that are not the
// caller's. Returns how many of `workers` have one for themselves.
int room_for(int workers, cpu_set_t* room) {
  if (sched_getaffinity(0, sizeof *room, room) != 0) return 0;
  if (CPU_COUNT(room) > workers) return workers;
  cpu_set_t mine = *room, others;
  CPU_AND(&mine, &mine, &kAllowed);
  CPU_XOR(&others, &kAllowed, &mine);
  const int here = CPU_COUNT(room) - 1, elsewhere = CPU_COUNT(&others);
  if (here >= elsewhere) return here;
  *room = others;
  return elsewhere < workers ? elsewhere : workers;
}
#endif

class Workers final : public Team {
 public:
  explicit Workers(const TeamWork& work) : work_(work), started_in_(getpid()) {}
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() override {
    if (getpid() != started_in_) {
      // A fork has copied the memory and not the threads; a lock on which they slept cannot be taken down.
      bed_.release();
      return;
    }
    stop_.store(true);
    wake();
    for (const pthread_t thread : threads_) pthread_join(thread, nullptr);
  }

  // False where not one worker runs.
  bool start() {
    int workers = work_.threads - 1;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setstacksize(&attributes, kStack);
#if defined(__linux__)
    cpu_set_t room;
    const int fitting = room_for(workers, &room);
    if (fitting > 0) pthread_attr_setaffinity_np(&attributes, sizeof room, &room);
    if (!work_.crowded) workers = fitting;
#endif
    // Signals are for the threads of whoever loaded this library.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    starts_.resize(std::size_t(workers));
    for (int index = 1; index <= workers; ++index) {
      Start& start = starts_[std::size_t(index - 1)] = {this, index};
      pthread_t thread;
      if (pthread_create(&thread, &attributes, enter, &start) != 0) break;
      threads_.push_back(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    return !threads_.empty();
  }

  void run(double* seconds) override {
    const Clock::time_point start = Clock::now();
    wakes_.store(work_.shared_ns >= kWakeNs || start - ended_ < kAwake, std::memory_order_relaxed);
    seconds_ = seconds;
    before_ = start;
    trial_.shares() ? together() : alone();
    ended_ = Clock::now();
    // Timing the steps takes time of its own.
    if (work_.shared_ns < kDoubtNs && seconds == nullptr) {
      trial_.note(std::chrono::duration<double>(ended_ - start).count());
    }
  }

 private:
  struct Start {
    Workers* team;
    int index;
  };

  void together() {
    go_on(0, 0);
    while ((word_.load(std::memory_order_acquire) & kOver) == 0) {
      if (!take_part(0)) wait(caller_asleep_, [&](Word word) { return (word & (kTaken | kOver)) != 0; });
    }
  }

  void alone() {
    for (std::size_t index = 0; index < work_.steps->size(); ++index) {
      run_alone(*(*work_.steps)[index], work_.arena, work_.scratch);
      note(index);
    }
  }

  // Where threads sleep.
  struct Bed {
    std::mutex lock;
    std::condition_variable opened;
    std::uint64_t calls = 0;
  };

  static void* enter(void* start) {
    const Start& own = *static_cast<Start*>(start);
    own.team->serve(own.index);
    return nullptr;
  }

  void serve(int self) {
    while (!stop_.load()) {
      if (!take_part(self)) wait(asleep_, [&](Word word) { return (word & kTaken) != 0 || stop_.load(); });
    }
  }

  std::uint8_t* scratch_of(int self) const { return work_.scratch + std::size_t(self) * work_.scratch_bytes; }

  // Runs unshared steps from `index` on and opens the first that is shared; what `self` takes of it is done at once, and
  // where nobody else came, so is the rest. Ends where others are still at work, or the run is over.
  void go_on(std::size_t index, int self) {
    const auto& steps = *work_.steps;
    for (; index < steps.size(); ++index) {
      const Step& step = *steps[index];
      const int parts = step.parts();
      if (parts == 1) {
        step.run(work_.arena, scratch_of(self), {0, 1});
        note(index);
        continue;
      }
      step_.store(index, std::memory_order_relaxed);
      const int own = own_part(self, (Word{1} << parts) - 1);
      open(((Word{1} << parts) - 1) ^ (Word{1} << own), parts);
      step.run(work_.arena, scratch_of(self), {own, parts});
      if (!done()) return;
      note(index);
    }
    open(kOver, 0);
  }

  // Takes a part of the open step, if one is left, and does it; who does the last one goes on.
  bool take_part(int self) {
    Word word = word_.load(std::memory_order_acquire);
    while ((word & kTaken) != 0) {
      const std::size_t index = step_.load(std::memory_order_relaxed);
      const int part = own_part(self, word & kTaken);
      // Fails where anything has changed, the step included.
      if (!word_.compare_exchange_weak(word, word & ~(Word{1} << part), std::memory_order_acquire)) continue;
      const Step& step = *(*work_.steps)[index];
      step.run(work_.arena, scratch_of(self), {part, step.parts()});
      if (done()) {
        note(index);
        go_on(index + 1, self);
      }
      return true;
    }
    return false;
  }

  // The part with the thread's number, else the last that is left.
  static int own_part(int self, Word parts) {
    return (parts >> self & 1) != 0 ? self : 63 - __builtin_clzll(parts);
  }

  // Whether that was the last part.
  bool done() { return left(word_.fetch_sub(kOneLeft, std::memory_order_acq_rel)) == 1; }

  void note(std::size_t index) {
    if (seconds_ == nullptr) return;
    const Clock::time_point now = Clock::now();
    seconds_[index] = std::chrono::duration<double>(now - before_).count();
    before_ = now;
  }

  // All parts are done, so nobody else changes the word.
  void open(Word bits, int parts) {
    const Word number = word_.load(std::memory_order_relaxed) & ~(kNext - 1);
    word_.store((number + kNext) | bits | Word(parts) * kOneLeft);
    if (caller_asleep_.load() > 0 || (wakes_.load(std::memory_order_relaxed) && asleep_.load() > 0)) wake();
  }

  void wake() {
    if (getpid() != started_in_) return;  // there is nobody, and the lock may have been held
    {
      const std::lock_guard<std::mutex> held(bed_->lock);
      ++bed_->calls;
    }
    bed_->opened.notify_all();
  }

  // Returns when holds(word) is true, or after a sleep from which it was called too late: then it is time to be awake, since
  // more may follow. `asleep` counts those who sleep.
  template <typename Holds>
  void wait(std::atomic<int>& asleep, const Holds& holds) {
    Clock::time_point end{};
    for (int look = 0;; ++look) {
      if (holds(word_.load(std::memory_order_acquire))) return;
      pause();
      if (look % kLooksPerClock != 0) continue;
      const Clock::time_point now = Clock::now();
      if (look == 0) end = now + kAwake;
      if (now > end) break;
    }
    std::unique_lock<std::mutex> held(bed_->lock);
    // Either open() sees this, or the word that it stored before is seen here.
    asleep.fetch_add(1);
    const std::uint64_t calls = bed_->calls;
    bed_->opened.wait(held, [&] { return holds(word_.load()) || bed_->calls != calls; });
    asleep.fetch_sub(1);
  }

  alignas(64) std::atomic<Word> word_{kOver};
  alignas(64) std::atomic<std::size_t> step_{0};
  std::atomic<int> asleep_{0}, caller_asleep_{0};
  std::atomic<bool> stop_{false};
  TeamWork work_;
  double* seconds_ = nullptr;
  std::atomic<bool> wakes_{true};  // who ends a run may read it when the next has begun
  Clock::time_point before_{}, ended_{};
  Trial trial_;
  pid_t started_in_;
  std::vector<Start> starts_;
  std::vector<pthread_t> threads_;
  std::unique_ptr<Bed> bed_ = std::make_unique<Bed>();
};

}  // namespace

std::unique_ptr<Team> make_team(const TeamWork& work) {
  std::unique_ptr<Workers> team(new Workers(work));
  if (!team->start()) return nullptr;
  return team;
}

int most_threads() {
#if defined(__linux__)
  const int allowed = CPU_COUNT(&kAllowed);
#else
  const int allowed = int(sysconf(_SC_NPROCESSORS_ONLN));
#endif
  return allowed < 1 ? 1 : allowed > kMostParts ? kMostParts : allowed;
}

}  // namespace nas
