#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "formats/compressed.h"
#include "lib/model/source.h"

namespace wtool {

// A file front to back through a window: one read for many small fields. Whoever takes or skips
// bytes has seen that they are left().
class Cursor {
 public:
  Cursor(const Source& source, std::size_t window)
      : source_(source), size_(source.size()), head_(end_of_head(source)), most_(window) {}

  std::uint64_t at() const noexcept { return begin_ + used_; }
  std::uint64_t left() const noexcept { return size_ - at(); }

  Bytes take(std::size_t n) {  // at most the window; valid until the next call
    if (window_.size() - used_ < n) refill(n);
    const Bytes out = Bytes(window_).subspan(used_, n);
    used_ += n;
    return out;
  }
  void skip(std::uint64_t n) {
    if (n <= window_.size() - used_) {
      used_ += static_cast<std::size_t>(n);
      return;
    }
    begin_ = at() + n;
    used_ = 0;
    window_.clear();
  }
  template <class T>
  T number(bool big_endian = false) {
    const T v = load<T>(take(sizeof(T)));
    return big_endian ? byte_swapped(v) : v;
  }
  std::string text(std::uint64_t n) {
    if (n <= most_) return std::string(as_text(take(static_cast<std::size_t>(n))));
    std::string out(static_cast<std::size_t>(n), '\0');
    source_.read(at(), std::as_writable_bytes(std::span(out)));
    skip(n);
    return out;
  }

 private:
  void refill(std::size_t wanted) {
    begin_ = at();
    used_ = 0;
    const std::uint64_t ahead = begin_ + wanted < head_ ? head_ - begin_ : wanted;
    window_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(most_, ahead)));
    source_.read(begin_, window_);
  }

  const Source& source_;
  std::uint64_t size_, head_, begin_ = 0;  // begin_: the window's place in the file
  std::size_t most_, used_ = 0;
  Buffer window_;
};

}  // namespace wtool
