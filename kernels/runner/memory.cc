// memcpy and its kin, malloc and its kin: what the compiler and the kernels expect of a C library.
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernel_calls.h"
#include "system.h"
#if defined(__x86_64__)
#include "nas/cpu.h"
#endif

// Faster than the rest of the program needs to be; and the compiler would make a call of memcpy out of the loop of memcpy.
#pragma GCC optimize("O2", "no-tree-loop-distribute-patterns")

namespace {

using Word32 = unsigned char __attribute__((vector_size(32)));
using Word16 = unsigned char __attribute__((vector_size(16)));
using Word8 = std::uint64_t;
using Word4 = std::uint32_t;
using Word2 = std::uint16_t;

// A word wherever it lies.
template <typename Word>
struct __attribute__((packed, may_alias)) Anywhere {
  Word word;
};

template <typename Word>
inline __attribute__((always_inline)) Word get(const unsigned char* from) {
  return reinterpret_cast<const Anywhere<Word>*>(from)->word;
}

template <typename Word>
inline __attribute__((always_inline)) void put(unsigned char* to, Word word) {
  reinterpret_cast<Anywhere<Word>*>(to)->word = word;
}

// First and last word of what is at least one and at most two words long; all is read before anything is written.
template <typename Word>
inline void ends(unsigned char* to, const unsigned char* from, std::size_t size) {
  const Word first = get<Word>(from), last = get<Word>(from + size - sizeof(Word));
  put(to, first);
  put(to + size - sizeof(Word), last);
}

// More than 128 bytes. The far end is read before the loop may write over it, and written last.
template <typename Word>
inline __attribute__((always_inline)) void move_long(unsigned char* to, const unsigned char* from, std::size_t size) {
  constexpr std::size_t kBlock = 4 * sizeof(Word);
  if (static_cast<std::size_t>(to - from) >= size) {  // `to` lies before `from` or behind its end
    const unsigned char* const tail = from + size - kBlock;
    const Word a = get<Word>(tail), b = get<Word>(tail + sizeof(Word)), c = get<Word>(tail + 2 * sizeof(Word)),
               d = get<Word>(tail + 3 * sizeof(Word));
    unsigned char* const to_tail = to + size - kBlock;
    for (; size > kBlock; size -= kBlock, to += kBlock, from += kBlock) {
      const Word e = get<Word>(from), f = get<Word>(from + sizeof(Word)), g = get<Word>(from + 2 * sizeof(Word)),
                 h = get<Word>(from + 3 * sizeof(Word));
      put(to, e), put(to + sizeof(Word), f), put(to + 2 * sizeof(Word), g), put(to + 3 * sizeof(Word), h);
    }
    put(to_tail, a), put(to_tail + sizeof(Word), b), put(to_tail + 2 * sizeof(Word), c), put(to_tail + 3 * sizeof(Word), d);
  } else {
    const Word a = get<Word>(from), b = get<Word>(from + sizeof(Word)), c = get<Word>(from + 2 * sizeof(Word)),
               d = get<Word>(from + 3 * sizeof(Word));
    for (; size > kBlock; size -= kBlock) {
      const unsigned char* const at = from + size - kBlock;
      unsigned char* const to_at = to + size - kBlock;
      const Word e = get<Word>(at), f = get<Word>(at + sizeof(Word)), g = get<Word>(at + 2 * sizeof(Word)),
                 h = get<Word>(at + 3 * sizeof(Word));
      put(to_at, e), put(to_at + sizeof(Word), f), put(to_at + 2 * sizeof(Word), g), put(to_at + 3 * sizeof(Word), h);
    }
    put(to, a), put(to + sizeof(Word), b), put(to + 2 * sizeof(Word), c), put(to + 3 * sizeof(Word), d);
  }
}

// At least one word. Pairs of words, then those that end with the last byte.
template <typename Word>
inline __attribute__((always_inline)) void fill_long(unsigned char* to, Word word, std::size_t size) {
  unsigned char* const end = to + size;
  if (size > 2 * sizeof(Word)) {
    for (; to < end - 2 * sizeof(Word); to += 2 * sizeof(Word)) put(to, word), put(to + sizeof(Word), word);
    to = end - 2 * sizeof(Word);
  }
  put(to, word);
  put(end - sizeof(Word), word);
}

#if defined(__x86_64__)
// Upper halves that are left dirty would slow down all code for the baseline; the compiler sees to it from -O2 on only.
__attribute__((target("avx2"), noinline)) void move_avx2(unsigned char* to, const unsigned char* from, std::size_t size) {
  move_long<Word32>(to, from, size);
  __builtin_ia32_vzeroupper();
}

__attribute__((target("avx2"), noinline)) void fill_avx2(unsigned char* to, int value, std::size_t size) {
  fill_long<Word32>(to, Word32{} + static_cast<unsigned char>(value), size);
  __builtin_ia32_vzeroupper();
}

// Set once the processor was asked, before main.
bool wide = false;
__attribute__((constructor)) void ask_processor() { wide = nas::cpu_features().avx2; }
#endif

}  // namespace

extern "C" {

void* memmove(void* target, const void* source, std::size_t size) noexcept {
  auto* to = static_cast<unsigned char*>(target);
  const auto* from = static_cast<const unsigned char*>(source);
  if (size <= 16) {
    if (size >= 8) ends<Word8>(to, from, size);
    else if (size >= 4) ends<Word4>(to, from, size);
    else if (size >= 2) ends<Word2>(to, from, size);
    else if (size == 1) *to = *from;
  } else if (size <= 32) {
    ends<Word16>(to, from, size);
  } else if (size <= 64) {
    const Word16 a = get<Word16>(from), b = get<Word16>(from + 16), c = get<Word16>(from + size - 32),
                 d = get<Word16>(from + size - 16);
    put(to, a), put(to + 16, b), put(to + size - 32, c), put(to + size - 16, d);
  } else if (size <= 128) {
    const Word16 a = get<Word16>(from), b = get<Word16>(from + 16), c = get<Word16>(from + 32), d = get<Word16>(from + 48);
    const Word16 e = get<Word16>(from + size - 64), f = get<Word16>(from + size - 48), g = get<Word16>(from + size - 32),
                 h = get<Word16>(from + size - 16);
    put(to, a), put(to + 16, b), put(to + 32, c), put(to + 48, d);
    put(to + size - 64, e), put(to + size - 48, f), put(to + size - 32, g), put(to + size - 16, h);
#if defined(__x86_64__)
  } else if (wide) {
    move_avx2(to, from, size);
#endif
  } else {
    move_long<Word16>(to, from, size);
  }
  return target;
}

void* memcpy(void* target, const void* source, std::size_t size) noexcept __attribute__((alias("memmove")));

void* memset(void* target, int value, std::size_t size) noexcept {
  auto* to = static_cast<unsigned char*>(target);
  const std::uint64_t eight = static_cast<unsigned char>(value) * 0x0101010101010101ULL;
  if (size < 16) {
    if (size >= 8) put<Word8>(to, eight), put<Word8>(to + size - 8, eight);
    else if (size >= 4) put(to, Word4(eight)), put(to + size - 4, Word4(eight));
    else if (size >= 2) put(to, Word2(eight)), put(to + size - 2, Word2(eight));
    else if (size == 1) *to = static_cast<unsigned char>(value);
#if defined(__x86_64__)
  } else if (wide && size >= 64) {
    fill_avx2(to, value, size);
#endif
  } else {
    fill_long<Word16>(to, Word16{} + static_cast<unsigned char>(value), size);
  }
  return target;
}

int memcmp(const void* one, const void* other, std::size_t size) noexcept {
  const auto *a = static_cast<const unsigned char*>(one), *b = static_cast<const unsigned char*>(other);
  for (std::size_t i = 0; i < size; ++i) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

std::size_t strlen(const char* text) noexcept {
  std::size_t length = 0;
  while (text[length] != '\0') ++length;
  return length;
}

int strcmp(const char* one, const char* other) noexcept {
  std::size_t i = 0;
  while (one[i] != '\0' && one[i] == other[i]) ++i;
  return static_cast<unsigned char>(one[i]) - static_cast<unsigned char>(other[i]);
}

}  // extern "C"

// Memory: in front of each block lie its capacity and its own start, which aligned blocks need. Small blocks have sizes of a
// power of two and go back to a list per size; large ones are mapped and unmapped.
namespace {

struct Header {
  std::size_t capacity;  // of all of it, header and alignment included
  unsigned char* start;
};

constexpr std::size_t kSmallest = 32, kLargest = std::size_t{1} << 16, kChunk = std::size_t{1} << 20, kPage = 4096;
constexpr int kSizes = 12;  // 32, 64, ... 65536

struct Free {
  Free* next;
};

Free* free_blocks[kSizes];
unsigned char* chunk_at = nullptr;
std::size_t chunk_left = 0;

unsigned char* map(std::size_t size) {
  const long memory = runner::call(__NR_mmap, 0, static_cast<long>(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return runner::failed(memory) ? nullptr : reinterpret_cast<unsigned char*>(memory);
}

int list_of(std::size_t capacity) { return __builtin_ctzll(capacity) - __builtin_ctzll(kSmallest); }

unsigned char* take_small(std::size_t capacity) {
  Free*& list = free_blocks[list_of(capacity)];
  if (list != nullptr) {
    Free* const block = list;
    list = block->next;
    return reinterpret_cast<unsigned char*>(block);
  }
  if (chunk_left < capacity) {
    chunk_at = map(kChunk);
    chunk_left = chunk_at == nullptr ? 0 : kChunk;
    if (chunk_at == nullptr) return nullptr;
  }
  unsigned char* const block = chunk_at;
  chunk_at += capacity;
  chunk_left -= capacity;
  return block;
}

// `alignment` is a power of two from 16 on.
void* allocate(std::size_t size, std::size_t alignment) {
  if (size > (std::size_t{1} << 46) || alignment > kLargest) return nullptr;
  std::size_t capacity = size + sizeof(Header) + (alignment > sizeof(Header) ? alignment : 0);
  if (capacity > kLargest) {
    capacity = (capacity + kPage - 1) / kPage * kPage;
  } else {
    std::size_t power = kSmallest;
    while (power < capacity) power *= 2;
    capacity = power;
  }
  unsigned char* const start = capacity > kLargest ? map(capacity) : take_small(capacity);
  if (start == nullptr) return nullptr;
  const auto address = (reinterpret_cast<std::uintptr_t>(start) + sizeof(Header) + alignment - 1) / alignment * alignment;
  reinterpret_cast<Header*>(address)[-1] = {capacity, start};
  return reinterpret_cast<void*>(address);
}

}  // namespace

extern "C" {

void* malloc(std::size_t size) noexcept { return allocate(size, 16); }

void free(void* memory) noexcept {
  if (memory == nullptr) return;
  const Header header = static_cast<Header*>(memory)[-1];
  if (header.capacity > kLargest) {
    runner::call(__NR_munmap, runner::word(header.start), static_cast<long>(header.capacity));
    return;
  }
  Free* const block = reinterpret_cast<Free*>(header.start);
  Free*& list = free_blocks[list_of(header.capacity)];
  block->next = list;
  list = block;
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept { return allocate(size, alignment < 16 ? 16 : alignment); }

int posix_memalign(void** memory, std::size_t alignment, std::size_t size) noexcept {
  *memory = aligned_alloc(alignment, size);
  return *memory == nullptr ? 12 : 0;  // ENOMEM
}

}  // extern "C"

// Running out of memory ends the program, with an error: there are no exceptions.
void* operator new(std::size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) runner::out_of_memory();
  return memory;
}
void* operator new[](std::size_t size) { return operator new(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
