#pragma once
#include <atomic>
#include <cstdint>
#include <functional>

#include "lib/base/bytes.h"

namespace wtool {

struct RunOptions {
  unsigned threads = 1;
  const std::atomic<int>* stop_signal = nullptr;  // not zero: throw Cancelled at the next unit
  // Called by one thread at a time, in order; cheap calls, often.
  std::function<void(std::uint64_t done, std::uint64_t of)> progress = {};
};

// Runs units 0 … n-1 on several threads and folds their results in unit order, one at a time. No
// unit starts more than a few times `threads` ahead of the oldest unfolded one, so results that
// wait their turn stay few. Of several failing units the lowest one's exception is thrown. Throws
// Cancelled when the signal is set.
void run_in_order(
    std::uint64_t n, const RunOptions& options,
    const std::function<void(std::uint64_t unit, unsigned worker, Buffer& found)>& run,
    const std::function<void(std::uint64_t unit, Buffer& found)>& fold);

}  // namespace wtool
