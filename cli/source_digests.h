#pragma once
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "cli/command.h"
#include "lib/trust/digest.h"

namespace wtool {

// Digests of a run's inputs, made on threads of their own beside the work.
class SourceDigests {
 public:
  SourceDigests(std::vector<Extent> sources, const Context& context);
  ~SourceDigests();  // stops, if nobody has waited for the result
  SourceDigests(const SourceDigests&) = delete;
  SourceDigests& operator=(const SourceDigests&) = delete;

  // Waits, and shows how far it is. Throws what reading did. Once.
  std::vector<Sha256> get();

 private:
  void work();

  const std::vector<Extent> sources_;
  const Context& context_;
  std::atomic<int> stop_{0};
  std::atomic<std::uint64_t> done_{0}, total_{0};  // bytes
  std::mutex mutex_;
  std::condition_variable change_;
  bool ended_ = false;
  std::vector<Sha256> result_;
  std::exception_ptr failure_;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace wtool
