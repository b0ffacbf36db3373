#include <cstdio>
#include <cstring>
#include <vector>
#include "nas/program.h"
int main(int n, char** w) {
  std::vector<std::uint8_t> file; std::FILE* f = std::fopen(w[1], "rb"); std::uint8_t c[65536]; std::size_t k;
  while ((k = std::fread(c, 1, sizeof c, f)) > 0) file.insert(file.end(), c, c + k);
  std::fclose(f);
  nas::Level level; const char* refused; nas::chosen_level(&level, &refused);
  std::string wrong; std::vector<std::vector<std::uint8_t>> outs;
  for (int threads = 1; threads <= 3; ++threads) {
    nas::Plan plan; wrong = nas::load_plan(file.data(), file.size(), &plan);
    auto p = nas::Program::make(std::move(plan), level, &wrong, {threads, 0.0});
    if (!p) { std::puts(wrong.c_str()); return 1; }
    std::vector<std::uint8_t> out;
    for (int run = 0; run < 6; ++run) {
      for (auto id : p->plan().inputs) { auto& t = p->plan().tensors[id]; std::uint8_t* d = p->data(id);
        if (t.dtype == nas::Dtype::kF32) for (std::size_t i = 0; i < t.elements; ++i) { float v = float((i * 2654435761u + run * 97) % 1000) / 300.f - 1.6f; std::memcpy(d + 4 * i, &v, 4); }
        else std::memset(d, 0, t.elements * nas::bytes_of(t.dtype)); }
      p->run();
      for (auto id : p->plan().outputs) { auto& t = p->plan().tensors[id]; out.insert(out.end(), p->data(id), p->data(id) + t.elements * nas::bytes_of(t.dtype)); }
    }
    outs.push_back(out);
  }
  std::printf("%s %s\n", w[1], outs[0] == outs[1] && outs[0] == outs[2] ? "same" : "DIFFERENT");
  return !(outs[0] == outs[1] && outs[0] == outs[2]);
}
