// Damages a planned model a given number of times, loads and, where it still loads, runs it: fuzz MODEL.nasq ROUNDS SEED.
//
// Built with AddressSanitizer and UBSan (make kernels-fuzz), so that a read or write out of bounds ends it.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../tests/check.h"
#include "nas/program.h"

namespace {

bool read_file(const char* path, std::vector<std::uint8_t>* bytes) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  int c = 0;
  while ((c = std::fgetc(file)) != EOF) bytes->push_back(std::uint8_t(c));
  std::fclose(file);
  return true;
}

// One of: a flipped bit, a byte, a 32-bit word set to something telling, a piece moved, an end cut off. Most go to the
// records, few to the weights behind them.
void damage(std::vector<std::uint8_t>& bytes, std::size_t records, nas_test::Random& random) {
  const auto place = [&](std::size_t width) {
    const std::size_t limit = random.between(0, 9) == 0 ? bytes.size() : std::min(records, bytes.size());
    return limit <= width ? 0 : std::size_t(random.between(0, std::int64_t(limit - width)));
  };
  if (bytes.size() < 16) return;
  switch (random.between(0, 5)) {
    case 0:
      bytes[place(1)] ^= std::uint8_t(1U << random.between(0, 7));
      return;
    case 1:
      bytes[place(1)] = std::uint8_t(random.between(0, 255));
      return;
    case 2:
    case 3: {
      static const std::uint32_t telling[] = {0, 1, 2, 3, 15, 16, 17, 255, 256, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
      const std::uint32_t word = telling[random.between(0, 13)];
      std::memcpy(bytes.data() + place(4) / 4 * 4, &word, 4);
      return;
    }
    case 4: {
      const std::size_t from = place(8), to = place(8);
      std::uint8_t piece[8];
      std::memcpy(piece, bytes.data() + from, 8);
      std::memcpy(bytes.data() + to, piece, 8);
      return;
    }
    default:
      if (random.between(0, 7) == 0) bytes.resize(std::size_t(random.between(0, std::int64_t(bytes.size()))));
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  std::vector<std::uint8_t> whole;
  if (!read_file(words[1], &whole) || whole.size() < 64) return 2;
  const long rounds = std::atol(words[2]);
  nas_test::Random random(std::strtoull(words[3], nullptr, 10));
  std::uint64_t body = 0;
  std::memcpy(&body, whole.data() + 36, 8);
  const std::size_t records = std::size_t(52 + body);
  long refused = 0, unfit = 0, ran = 0;
  for (long round = 0; round < rounds; ++round) {
    // An exact copy on the heap, so that AddressSanitizer sees one byte too far.
    std::vector<std::uint8_t> bytes(whole);
    for (std::int64_t times = random.between(1, 3); times > 0; --times) damage(bytes, records, random);
    bytes.shrink_to_fit();
    nas::Plan plan;
    if (!nas::load_plan(bytes.data(), bytes.size(), &plan).empty()) {
      ++refused;
      continue;
    }
    // Not what the fuzzer is about: it would only be slow.
    if (plan.arena_bytes > (std::uint64_t{1} << 26)) continue;
    static const nas::Level levels[] = {nas::Level::portable, nas::Level::avx2, nas::Level::avx512_vnni, nas::Level::neon};
    const nas::Level level = levels[random.between(0, 3)];
    std::string wrong;
    // In parts as for several threads, which this program does without.
    const nas::Threads threads{int(random.between(1, 3)), 0.0};
    const nas::Level best = nas::level_available(level) ? level : nas::Level::portable;
    const auto program = nas::Program::make(std::move(plan), best, &wrong, threads);
    if (program == nullptr) {
      ++unfit;
      continue;
    }
    std::memset(program->data(0) - program->plan().tensors[0].offset, int(random.between(0, 255)), program->plan().arena_bytes);
    program->run();
    ++ran;
  }
  std::printf("%ld rounds: %ld refused when read, %ld with operators that do not fit, %ld ran\n", rounds, refused, unfit, ran);
  return 0;
}
