#include "system.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <sys/auxv.h>
#include <time.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "kernel_calls.h"

namespace {

char** environment_of_start = nullptr;
using ClockCall = int (*)(clockid_t, timespec*);
ClockCall clock_call = nullptr;

// The kernel's own clock, mapped into every process as a small library: no switch to the kernel, a quarter of the time.
// Versions are not asked for: each name has one.
ClockCall find_clock(const char* image) {
#if defined(__x86_64__)
  const char* const name = "__vdso_clock_gettime";
#else
  const char* const name = "__kernel_clock_gettime";
#endif
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(image);
  const auto* segments = reinterpret_cast<const ElfW(Phdr)*>(image + header->e_phoff);
  const char* base = nullptr;
  const ElfW(Dyn)* dynamic = nullptr;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (segments[i].p_type == PT_LOAD && base == nullptr) base = image + segments[i].p_offset - segments[i].p_vaddr;
    if (segments[i].p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const ElfW(Dyn)*>(image + segments[i].p_offset);
  }
  if (base == nullptr || dynamic == nullptr) return nullptr;
  const char* strings = nullptr;
  const ElfW(Sym)* symbols = nullptr;
  const std::uint32_t* hash = nullptr;  // its second word counts the symbols
  for (; dynamic->d_tag != DT_NULL; ++dynamic) {
    const char* const at = base + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_STRTAB) strings = at;
    if (dynamic->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym)*>(at);
    if (dynamic->d_tag == DT_HASH) hash = reinterpret_cast<const std::uint32_t*>(at);
  }
  if (strings == nullptr || symbols == nullptr || hash == nullptr) return nullptr;
  for (std::uint32_t i = 0; i < hash[1]; ++i) {
    if (symbols[i].st_shndx == SHN_UNDEF || std::strcmp(strings + symbols[i].st_name, name) != 0) continue;
    return reinterpret_cast<ClockCall>(const_cast<char*>(base + symbols[i].st_value));
  }
  return nullptr;
}

timespec monotonic() {
  timespec time{};
  if (clock_call == nullptr || clock_call(CLOCK_MONOTONIC, &time) != 0) {
    runner::call(__NR_clock_gettime, CLOCK_MONOTONIC, runner::word(&time));
  }
  return time;
}

bool write_all(long file, const void* data, std::size_t size) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const long written = runner::call(__NR_write, file, runner::word(from), static_cast<long>(size));
    if (written == -4) continue;  // interrupted
    if (written <= 0) return false;
    from += written;
    size -= static_cast<std::size_t>(written);
  }
  return true;
}

}  // namespace

namespace runner {

void learn_environment(char** environment) {
  environment_of_start = environment;
  const unsigned long image = getauxval(AT_SYSINFO_EHDR);
  if (image != 0) clock_call = find_clock(reinterpret_cast<const char*>(image));
}

bool read_file(const char* path, std::vector<std::uint8_t>* bytes) {
  const long file = call(__NR_openat, AT_FDCWD, word(path), O_RDONLY | O_CLOEXEC);
  if (failed(file)) return false;
  std::uint8_t chunk[65536];
  long count = 0;
  while ((count = call(__NR_read, file, word(chunk), sizeof chunk)) > 0 || count == -4) {
    if (count > 0) bytes->insert(bytes->end(), chunk, chunk + count);
  }
  call(__NR_close, file);
  return count == 0;
}

bool write_file(const char* path, const std::vector<std::uint8_t>& bytes) {
  const long file = call(__NR_openat, AT_FDCWD, word(path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (failed(file)) return false;
  const bool good = write_all(file, bytes.data(), bytes.size());
  return !failed(call(__NR_close, file)) && good;
}

void print(const std::string& text) { write_all(1, text.data(), text.size()); }

void print_error(const std::string& text) { write_all(2, text.data(), text.size()); }

double now_s() {
  const timespec time = monotonic();
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

void pause_us(long microseconds) {
  const timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
  call(__NR_nanosleep, word(&time));
}

bool pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (core >= CPU_SETSIZE) return false;
  CPU_SET(core, &set);
  return !failed(call(__NR_sched_setaffinity, 0, sizeof set, word(&set)));
}

bool realtime(bool on) {
  sched_param parameter{};
  parameter.sched_priority = on ? 50 : 0;
  return !failed(call(__NR_sched_setscheduler, 0, on ? SCHED_FIFO : SCHED_OTHER, word(&parameter)));
}

void out_of_memory() {
  constexpr char kText[] = "nasq-run: this model needs more memory than there is\n";
  write_all(2, kText, sizeof kText - 1);
  call(__NR_exit_group, 1);
  __builtin_unreachable();
}

}  // namespace runner

namespace std {
namespace chrono {
inline namespace _V2 {
steady_clock::time_point steady_clock::now() noexcept {
  const timespec time = monotonic();
  return time_point(duration(static_cast<rep>(time.tv_sec) * 1000000000 + time.tv_nsec));
}
}  // namespace _V2
}  // namespace chrono
}  // namespace std

extern "C" {

char* getenv(const char* name) noexcept {
  const std::size_t length = std::strlen(name);
  for (char** each = environment_of_start; *each != nullptr; ++each) {
    if (std::memcmp(*each, name, length) == 0 && (*each)[length] == '=') return *each + length + 1;
  }
  return nullptr;
}

// Pairs of kind and value lie behind the environment.
unsigned long getauxval(unsigned long kind) noexcept {
  char** last = environment_of_start;
  while (*last != nullptr) ++last;
  for (const auto* pair = reinterpret_cast<const unsigned long*>(last + 1); pair[0] != AT_NULL; pair += 2) {
    if (pair[0] == kind) return pair[1];
  }
  return 0;
}

[[noreturn]] void abort() noexcept {
  runner::call(__NR_kill, runner::call(__NR_getpid), 6);  // SIGABRT
  runner::call(__NR_exit_group, 134);
  __builtin_unreachable();
}

}  // extern "C"
