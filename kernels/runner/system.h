// What the runner asks of Linux, without a C library: start.cc and system.cc speak to the kernel themselves, so the file
// holds nothing that it does not use. The kernels bring memcpy, malloc and so on along, see memory.cc and exact.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace runner {

// Whole files; false where one cannot be read or written.
bool read_file(const char* path, std::vector<std::uint8_t>* bytes);
bool write_file(const char* path, const std::vector<std::uint8_t>& bytes);

void print(const std::string& text);        // to standard output
void print_error(const std::string& text);  // to standard error

double now_s();          // since some moment in the past
void pause_us(long microseconds);
bool pin(int core);      // to one processor
bool realtime(bool on);  // priority above all ordinary programs, and back

[[noreturn]] void out_of_memory();  // says so and ends the program

// For start.cc.
void learn_environment(char** environment);

}  // namespace runner
