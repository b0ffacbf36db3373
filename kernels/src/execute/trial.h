// Whether sharing a program's steps pays, found out by doing both.
//
// On some machines two processors reach each other's caches in 50 ns, on others in 500; on virtual ones that changes from one
// second to the next, and so does what else is running. A program that takes about as long as some handing over would
// then lose more than it gains.
#pragma once

#include <algorithm>

namespace nas {

class Trial {
 public:
  static constexpr int kRuns = 1024;  // from one trial to the next
  static constexpr int kTried = 8;    // of each kind in a trial

  bool shares() const { return turn_ < kTried || (turn_ >= 2 * kTried && shares_); }

  // How long the run took that shares() decided about.
  void note(double seconds) {
    if (turn_ < 2 * kTried) times_[turn_] = seconds;
    ++turn_;
    if (turn_ == 2 * kTried) shares_ = median(times_) < kPays * median(times_ + kTried);
    if (turn_ == kRuns) turn_ = 0;
  }

 private:
  static constexpr double kPays = 0.98;

  static double median(double* times) {
    std::nth_element(times, times + kTried / 2, times + kTried);
    return times[kTried / 2];
  }

  int turn_ = 0;
  bool shares_ = true;
  double times_[2 * kTried] = {};
};

}  // namespace nas
