#pragma once
#include <cstdlib>
#include <deque>
#include <memory>
#include <new>

#include "lib/base/bytes.h"

namespace wtool {

// One worker's memory, kept from unit to unit. What is taken through a Frame goes back when the
// frame ends, so a tensor that reads other tensors nests without asking the heap again.
class Scratch {
 public:
  class Frame {
   public:
    explicit Frame(Scratch& scratch) : scratch_(scratch), mark_(scratch.used_) {}
    ~Frame() { scratch_.used_ = mark_; }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

    // Not initialised, aligned to 64 bytes. Valid until the frame ends.
    template <class T>
    std::span<T> take(std::uint64_t n) {
      return {reinterpret_cast<T*>(scratch_.next(n * sizeof(T))), static_cast<std::size_t>(n)};
    }

   private:
    Scratch& scratch_;
    std::size_t mark_;
  };

 private:
  struct Free {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };
  struct Slot {
    std::unique_ptr<std::byte, Free> memory;
    std::size_t size = 0;
  };
  std::byte* next(std::uint64_t bytes) {
    if (used_ == slots_.size()) slots_.emplace_back();
    Slot& slot = slots_[used_++];
    if (slot.size < bytes || !slot.memory) {
      slot.memory.reset();
      slot.size = static_cast<std::size_t>(align_up(bytes + 1, 64));
      slot.memory.reset(static_cast<std::byte*>(std::aligned_alloc(64, slot.size)));
      if (!slot.memory) throw std::bad_alloc();
    }
    return slot.memory.get();
  }
  std::deque<Slot> slots_;  // a deque, because growing it moves no slot
  std::size_t used_ = 0;
};

}  // namespace wtool
