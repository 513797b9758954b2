#include "cli/source_digests.h"

#include <chrono>
#include <system_error>

#include "cli/terminal.h"

namespace wtool {

SourceDigests::SourceDigests(std::vector<Extent> sources, const Context& context)
    : sources_(std::move(sources)), context_(context) {
  try {
    thread_ = std::jthread([this] { work(); });
  } catch (const std::system_error&) {
    work();  // a limit on threads: then before the work
  }
}

SourceDigests::~SourceDigests() {
  stop_ = 1;
}

void SourceDigests::work() {
  RunOptions run = context_.run;
  run.stop_signal = &stop_;
  run.progress = [this](std::uint64_t done, std::uint64_t of) {
    done_ = done;
    total_ = of;
  };
  std::vector<Sha256> result;
  std::exception_ptr failure;
  try {
    result = sha256_of(sources_, run);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::scoped_lock lock(mutex_);
  result_ = std::move(result);
  failure_ = failure;
  ended_ = true;
  change_.notify_all();
}

std::vector<Sha256> SourceDigests::get() {
  Progress progress(*context_.common, "digests of the inputs", "bytes");
  const auto show = progress.callback();
  std::unique_lock lock(mutex_);
  while (!change_.wait_for(lock, std::chrono::milliseconds(50), [&] { return ended_; })) {
    if (context_.run.stop_signal && *context_.run.stop_signal != 0)
      throw Error(Fault::Cancelled, "interrupted");
    if (show && total_ > 0) show(done_, total_);
  }
  if (failure_) std::rethrow_exception(failure_);
  return std::move(result_);
}

}  // namespace wtool
