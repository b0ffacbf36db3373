// Where the program begins: the kernel leaves arguments, environment and facts about the processor on the stack.
#include <cstdlib>

#include "kernel_calls.h"
#include "system.h"

int main(int count, char** words);

#if defined(__x86_64__)
__asm__(
    ".globl _start\n"
    "_start:\n"
    "  xor %ebp, %ebp\n"
    "  mov %rsp, %rdi\n"
    "  and $-16, %rsp\n"
    "  call runner_start\n");
#elif defined(__aarch64__)
__asm__(
    ".globl _start\n"
    "_start:\n"
    "  mov x29, #0\n"
    "  mov x30, #0\n"
    "  mov x0, sp\n"
    "  bl runner_start\n");
#endif

extern "C" {

// By the linker: what has to run before main.
using Constructor = void (*)();
extern const Constructor __init_array_start[] __attribute__((visibility("hidden")));
extern const Constructor __init_array_end[] __attribute__((visibility("hidden")));

[[noreturn]] void runner_start(long* stack) {
  const long count = stack[0];
  char** words = reinterpret_cast<char**>(stack + 1);
  char** environment = words + count + 1;
  runner::learn_environment(environment);
  for (const Constructor* each = __init_array_start; each != __init_array_end; ++each) (*each)();
  runner::call(__NR_exit_group, main(static_cast<int>(count), words));
  __builtin_unreachable();
}

}  // extern "C"
