#pragma once
#include <algorithm>

#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/bytes.h"

namespace wtool {

// Bytes that end where memory does: to touch the one behind them ends the test. `gap`: as many
// bytes before that, for addresses that are not aligned; they are watched instead.
class Fenced {
 public:
  explicit Fenced(std::size_t n, std::size_t gap = 0, std::byte fill = std::byte{0xA5})
      : n_(n), gap_(gap), fill_(fill) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    whole_ = align_up(n + gap + 1, page) + page;
    memory_ = static_cast<std::byte*>(
        ::mmap(nullptr, whole_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::mprotect(memory_ + whole_ - page, page, PROT_NONE);
    end_ = memory_ + whole_ - page;
    std::fill(memory_, end_, fill);
  }
  Fenced(Bytes content, std::size_t gap = 0) : Fenced(content.size(), gap) {
    std::ranges::copy(content, data());
  }
  ~Fenced() { ::munmap(memory_, whole_); }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;

  std::byte* data() const noexcept { return end_ - gap_ - n_; }
  MutableBytes bytes() const noexcept { return {data(), n_}; }
  Buffer copy() const { return {data(), data() + n_}; }
  // Nothing has written before or behind them.
  bool intact() const noexcept {
    const auto is_fill = [&](std::byte b) { return b == fill_; };
    return std::all_of(memory_, data(), is_fill) && std::all_of(end_ - gap_, end_, is_fill);
  }

 private:
  std::size_t n_, gap_, whole_ = 0;
  std::byte fill_;
  std::byte *memory_ = nullptr, *end_ = nullptr;
};

}  // namespace wtool
