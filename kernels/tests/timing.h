// Timing of one kernel on one pinned core: many short bursts, so that the machine's other work is seen and left out.
#pragma once

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace nas_test {

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline void pin() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(sched_getcpu(), &cores);
  sched_setaffinity(0, sizeof cores, &cores);
}

// Before anything else of equal standing while it lasts; without effect where the user may not.
inline void realtime(bool on) {
  sched_param parameter = {};
  parameter.sched_priority = on ? 50 : 0;
  sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &parameter);
}

struct Seconds {
  double p10, median;
};

template <typename Body>
Seconds timed(Body body, int blocks = 10, double block_s = 0.01) {
  std::vector<double> all;
  for (int i = 0; i < blocks; ++i) {
    realtime(true);
    body();
    const double end = now_s() + block_s;
    int count = 0;
    for (double start = now_s(); start < end || count < 3; ++count) {
      body();
      const double stop = now_s();
      all.push_back(stop - start);
      start = now_s();
    }
    realtime(false);
    usleep(1000);
  }
  std::sort(all.begin(), all.end());
  return {all[all.size() / 10], all[all.size() / 2]};
}

}  // namespace nas_test
