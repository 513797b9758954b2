#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wtool::fuzz {

// One mutation: where chance comes from, the size it must keep to, and the fuzzer's own mutations
// of plain bytes, which know its dictionary and what comparisons wanted.
class Mutation {
 public:
  using Plain = std::size_t (*)(std::uint8_t* data, std::size_t size, std::size_t most);

  Mutation(std::uint32_t seed, std::size_t most, Plain of_bytes)
      : state_(seed * 0x9e3779b97f4a7c15u + 1), most_(most), plain_(of_bytes) {}

  std::size_t most() const noexcept { return most_; }
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : next() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  template <class List>
  const auto& any(const List& list) {
    return list[static_cast<std::size_t>(below(std::size(list)))];
  }
  void plain(std::string& data);
  // Of a part of `data`, which may grow by as much as is left to its limit.
  void plain(std::string& data, std::size_t begin, std::size_t end);
  // A number as hostile files have them, or a neighbour of `old`.
  std::uint64_t number(std::uint64_t old);

 private:
  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  std::uint64_t state_;
  std::size_t most_;
  Plain plain_;
};

// An input of several files: each part is its length (u32) and its bytes; one that is cut short has
// what is there, and what follows the last one is ignored.
std::vector<std::string> split_parts(std::string_view data, std::size_t most);
std::string join_parts(const std::vector<std::string>& parts);

// By what the bytes begin with.
void mutate_weights(std::string& data, Mutation& how);

void mutate_safetensors(std::string& data, Mutation& how);
void mutate_gguf(std::string& data, Mutation& how);
void mutate_compressed(std::string& data, Mutation& how);  // frames, index and table
void mutate_json(std::string& data, Mutation& how);        // a text that is mostly JSON
void mutate_folder(std::string& data, Mutation& how);      // parts: JSON texts and weights

}  // namespace wtool::fuzz
