// Numbers as text.
#pragma once

#include <cstdint>
#include <string>

namespace runner {

inline std::string whole(std::uint64_t number) {
  char digits[20];
  int at = 20;
  do digits[--at] = char('0' + number % 10);
  while ((number /= 10) != 0);
  return std::string(digits + at, std::size_t(20 - at));
}

// The lowest `count` hexadecimal digits.
inline std::string hexadecimal(std::uint64_t number, int count) {
  std::string text(std::size_t(count), '0');
  for (int at = count - 1; at >= 0; --at, number >>= 4) text[std::size_t(at)] = "0123456789abcdef"[number & 15];
  return text;
}

// Of a number that is not negative and below 2^63 / 10^count, `count` digits behind the point.
inline std::string decimal(double number, int count) {
  std::uint64_t unit = 1;
  for (int i = 0; i < count; ++i) unit *= 10;
  const std::uint64_t units = std::uint64_t(number * double(unit) + 0.5);
  const std::string behind = whole(units % unit);
  return whole(units / unit) + "." + std::string(std::size_t(count) - behind.size(), '0') + behind;
}

// A name of a file as JSON has it.
inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char sign : text) {
    const unsigned char c = static_cast<unsigned char>(sign);
    if (c == '"' || c == '\\') out += {'\\', sign};
    else if (c < 32 || c > 126) out += "\\u" + hexadecimal(c, 4);
    else out += sign;
  }
  return out + "\"";
}

}  // namespace runner
