#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "lib/base/bytes.h"

namespace wtool {

// Memory that is only given back as a whole: names and shapes of a catalog. What it hands out
// stays where it is when the arena is moved or grows.
class Arena {
 public:
  template <class T>
  std::span<T> take(std::size_t n) {
    static_assert(std::is_trivial_v<T> && alignof(T) <= alignof(std::max_align_t));
    return {reinterpret_cast<T*>(next(n * sizeof(T), alignof(T))), n};
  }
  template <class T>
  std::span<const T> copy(std::span<const T> from) {
    const auto to = take<T>(from.size());
    std::ranges::copy(from, to.begin());
    return to;
  }
  std::string_view text(std::string_view s) {
    const auto to = copy(std::span(s.data(), s.size()));
    return {to.data(), to.size()};
  }
  // Keeps a whole buffer, such as a header that names point into.
  std::span<char> keep(std::unique_ptr<char[]> buffer, std::size_t size) {
    kept_.push_back(std::move(buffer));
    return {kept_.back().get(), size};
  }
  void absorb(Arena&& other) {
    for (auto& b : other.kept_) kept_.push_back(std::move(b));
    other = Arena();
  }

 private:
  char* next(std::size_t bytes, std::size_t align) {
    at_ = (at_ + align - 1) / align * align;
    if (at_ + bytes > size_) {
      block_ = std::clamp<std::size_t>(block_ * 2, 4096, std::size_t{1} << 20);
      size_ = std::max(block_, bytes);
      kept_.push_back(std::make_unique_for_overwrite<char[]>(size_));
      base_ = kept_.back().get();
      at_ = 0;
    }
    char* p = base_ + at_;
    at_ += bytes;
    return p;
  }
  std::vector<std::unique_ptr<char[]>> kept_;
  char* base_ = nullptr;
  std::size_t at_ = 0, size_ = 0, block_ = 0;
};

}  // namespace wtool
