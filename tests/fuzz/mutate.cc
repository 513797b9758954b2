#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <array>

#include "lib/base/bytes.h"

namespace wtool::fuzz {

void Mutation::plain(std::string& data) {
  plain(data, 0, data.size());
}

void Mutation::plain(std::string& data, std::size_t begin, std::size_t end) {
  std::string part = data.substr(begin, end - begin);
  const std::size_t size = part.size();
  const std::size_t most = std::max(most_ - std::min(most_, data.size() - size), size);
  part.resize(std::max<std::size_t>(most, 1));
  part.resize(plain_(reinterpret_cast<std::uint8_t*>(part.data()), size, part.size()));
  data.replace(begin, end - begin, part);
}

std::uint64_t Mutation::number(std::uint64_t old) {
  static constexpr std::array kNumbers{std::uint64_t{0},       std::uint64_t{1},
                                       std::uint64_t{2},       std::uint64_t{7},
                                       std::uint64_t{31},      std::uint64_t{32},
                                       std::uint64_t{64},      std::uint64_t{255},
                                       std::uint64_t{256},     std::uint64_t{65535},
                                       std::uint64_t{65536},   std::uint64_t{1} << 20,
                                       std::uint64_t{1} << 26, std::uint64_t{1} << 30,
                                       std::uint64_t{1} << 31, (std::uint64_t{1} << 32) - 1,
                                       std::uint64_t{1} << 32, std::uint64_t{1} << 40,
                                       std::uint64_t{1} << 53, std::uint64_t{1} << 61,
                                       std::uint64_t{1} << 62, std::uint64_t{1} << 63,
                                       ~std::uint64_t{0} >> 1, ~std::uint64_t{0}};
  switch (below(8)) {
    case 0: return old + 1;
    case 1: return old - 1;
    case 2: return old * 2;
    case 3: return old + below(64);
    case 4: return old ^ (std::uint64_t{1} << below(64));
    case 5: return below(1024);
    case 6: return any(kNumbers) - below(3);
    default: return any(kNumbers);
  }
}

std::vector<std::string> split_parts(std::string_view data, std::size_t most) {
  std::vector<std::string> parts;
  while (data.size() >= sizeof(std::uint32_t) && parts.size() < most) {
    const auto length = load<std::uint32_t>(as_bytes(data));
    data.remove_prefix(sizeof length);
    const std::size_t n = std::min<std::size_t>(length, data.size());
    parts.emplace_back(data.substr(0, n));
    data.remove_prefix(n);
  }
  return parts;
}

std::string join_parts(const std::vector<std::string>& parts) {
  Buffer out;
  for (const std::string& part : parts) {
    append(out, static_cast<std::uint32_t>(part.size()));
    append(out, as_bytes(part));
  }
  return std::string(as_text(out));
}

void mutate_weights(std::string& data, Mutation& how) {
  if (data.starts_with("GGUF"))
    mutate_gguf(data, how);
  else if (data.size() > 8 && data[8] == '{')
    mutate_safetensors(data, how);
  else
    how.plain(data);
}

void mutate_folder(std::string& data, Mutation& how) {
  constexpr std::size_t kMost = 16;
  std::vector<std::string> parts = split_parts(data, kMost);
  if (parts.empty() || how.one_in(16)) {
    how.plain(data);
    return;
  }
  std::string& part = parts[how.below(parts.size())];
  if (how.one_in(32))
    part = how.any(parts);
  else if (part.starts_with('{') || part.starts_with('['))
    mutate_json(part, how);
  else
    mutate_weights(part, how);
  data = join_parts(parts);
}

}  // namespace wtool::fuzz
