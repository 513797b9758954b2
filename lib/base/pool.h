#pragma once
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace wtool {

// Tools that many threads take turns with: each use has one of its own, and the next one finds it
// warm. Keeps as many as were in use at once.
template <class T>
class Pool {
 public:
  template <class F>
  decltype(auto) use(F&& with) const {
    Lease lease(*this);
    return std::forward<F>(with)(*lease.tool);
  }

 private:
  struct Lease {
    explicit Lease(const Pool& from) : pool(from) {
      {
        const std::scoped_lock lock(pool.mutex_);
        if (!pool.idle_.empty()) {
          tool = std::move(pool.idle_.back());
          pool.idle_.pop_back();
        }
      }
      if (!tool) tool = std::make_unique<T>();
    }
    ~Lease() {
      const std::scoped_lock lock(pool.mutex_);
      pool.idle_.push_back(std::move(tool));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    const Pool& pool;
    std::unique_ptr<T> tool;
  };
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace wtool
