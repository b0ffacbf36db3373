// How many threads there can be.
#pragma once

namespace nas {

// More are refused.
constexpr int kMostParts = 16;

// Processors that this process was allowed when it loaded this code; 1 where a program is linked without threads.cc.
int most_threads();

}  // namespace nas
