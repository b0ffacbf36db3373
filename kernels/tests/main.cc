// Runs the tests of every kernel that this build knows on every level that this machine has. Prints which kernel ran for
// which level, then one line of counts; fails on any difference.
#include "check.h"

namespace nas_test {
void attention_tests();
void bytes_tests();
void conv_tests();
void elementwise_tests();
void execute_tests();
void gemm_tests();
void int4_tests();
void norm_tests();
void real_tests();
}  // namespace nas_test

int main() {
  nas_test::gemm_tests();
  nas_test::conv_tests();
  nas_test::bytes_tests();
  nas_test::elementwise_tests();
  nas_test::execute_tests();
  nas_test::int4_tests();
  nas_test::norm_tests();
  nas_test::real_tests();
  nas_test::attention_tests();
  const nas_test::Counts& counts = nas_test::counts();
  std::printf("%ld checks, %ld failures\n", counts.checks, counts.failures);
  return counts.failures == 0 ? 0 : 1;
}
