// Whether sharing a program's steps pays, found out by doing both.
//
// On the virtual machine where this was written a cache line went from one processor to the other and back in 80 ns, or in
// 360 when the host had moved one of them, which it did every few seconds; what else is running changes too. A program of
// small steps gains in the first case and loses in the second.
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
