#include "lib/engine/in_order.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "lib/base/error.h"

namespace wtool {
namespace {

using Clock = std::chrono::steady_clock;

// Enough that one slow unit does not hold the others up, few enough that what waits for its turn
// stays small.
constexpr std::uint64_t kWindowPerThread = 8;
constexpr auto kProgressEvery = std::chrono::milliseconds(20);

class Queue {
 public:
  Queue(std::uint64_t n, const RunOptions& options)
      : n_(n), window_(kWindowPerThread * std::max(1u, options.threads)), options_(options) {}

  void work(unsigned worker, const auto& run, const auto& fold) {
    for (std::uint64_t unit; take(unit);) {
      try {
        if (options_.stop_signal && options_.stop_signal->load(std::memory_order_relaxed) != 0)
          throw Error(Fault::Cancelled, "interrupted");
        Buffer found;
        run(unit, worker, found);
        deliver(unit, std::move(found), fold);
      } catch (...) {
        fail(unit, std::current_exception());
      }
    }
  }
  void finish() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  // Units are taken in order, so every unit below a failed one has been taken and will be finished.
  bool take(std::uint64_t& unit) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return failure_ || next_ == n_ || next_ - folded_ < window_; });
    if (failure_ || next_ == n_) return false;
    unit = next_++;
    return true;
  }

  // Whoever brings the next unit in order folds it and all that have been waiting behind it.
  void deliver(std::uint64_t unit, Buffer found, const auto& fold) {
    std::unique_lock lock(mutex_);
    waiting_.emplace(unit, std::move(found));
    while (!folding_ && !waiting_.empty() && waiting_.begin()->first == folded_) {
      auto turn = waiting_.extract(waiting_.begin());
      folding_ = true;  // stays so if fold throws: nothing may follow the gap
      lock.unlock();
      try {
        fold(turn.key(), turn.mapped());
        tell_progress(turn.key() + 1);
      } catch (...) {
        return fail(turn.key(), std::current_exception());
      }
      lock.lock();
      folding_ = false;
      ++folded_;
      room_.notify_all();
    }
  }

  // Only called by whoever is folding, so it needs no lock.
  void tell_progress(std::uint64_t done) {
    if (!options_.progress) return;
    const auto now = Clock::now();
    if (done != n_ && now - told_ < kProgressEvery) return;
    told_ = now;
    options_.progress(done, n_);
  }

  void fail(std::uint64_t unit, std::exception_ptr why) {
    const std::scoped_lock lock(mutex_);
    if (!failure_ || unit < failed_) {
      failed_ = unit;
      failure_ = std::move(why);
    }
    room_.notify_all();
  }

  const std::uint64_t n_, window_;
  const RunOptions& options_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::uint64_t next_ = 0, folded_ = 0, failed_ = 0;
  bool folding_ = false;
  std::map<std::uint64_t, Buffer> waiting_;
  std::exception_ptr failure_;
  Clock::time_point told_ = {};
};

}  // namespace

void run_in_order(std::uint64_t n, const RunOptions& options,
                  const std::function<void(std::uint64_t, unsigned, Buffer&)>& run,
                  const std::function<void(std::uint64_t, Buffer&)>& fold) {
  Queue queue(n, options);
  {
    std::vector<std::jthread> others;
    try {
      for (unsigned w = 1; w < options.threads && w < n; ++w)
        others.emplace_back([&queue, &run, &fold, w] { queue.work(w, run, fold); });
    } catch (const std::system_error&) {
      // A limit on threads: those there are do the work, and the result is the same.
    }
    queue.work(0, run, fold);
  }
  queue.finish();
}

}  // namespace wtool
