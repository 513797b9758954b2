#include "lib/trust/written_digest.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "lib/base/error.h"

namespace wtool {
namespace {

constexpr std::size_t kPiece = std::size_t{256} << 10;  // whole elements of every type
// Writers wait when so much lies ready to be hashed: more might leave the page cache before.
constexpr std::uint64_t kMostBehind = std::uint64_t{1} << 30;

void check_signal(const RunOptions& options) {
  if (options.stop_signal && options.stop_signal->load(std::memory_order_relaxed) != 0)
    throw Error(Fault::Cancelled, "interrupted");
}

}  // namespace

class WrittenDigests::Impl {
 public:
  Impl(const OutputSet& outputs, std::span<const OutTensor> tensors, Wanted wanted,
       const RunOptions& options)
      : outputs_(outputs), described_(tensors), wanted_(wanted), options_(options) {
    options_.progress = {};  // the work's own is enough
  }

  ~Impl() {
    {
      const std::scoped_lock lock(mutex_);
      ended_ = true;
      tasks_.clear();
    }
    change_.notify_all();
  }

  void begin(const Placement& placement, std::span<const std::size_t> files) {
    tensors_.resize(placement.tensors.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const Placement::Tensor& t = placement.tensors[i];
      tensors_[i] = {.place = t, .complete = t.bytes == 0};
    }
    for (const std::size_t number : files) {
      Chain& c = chains_.emplace_back();
      c.number = number;
      c.source = outputs_.written(number);
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      chains_[tensors_[i].place.file].order.push_back(i);
    for (Chain& c : chains_)
      std::ranges::stable_sort(c.order, {},
                               [&](std::size_t i) { return tensors_[i].place.offset; });
    for (unsigned i = 0; i < std::max(1u, options_.threads); ++i) {
      try {
        threads_.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        break;  // a limit on threads: those there are do it, or finish()
      }
    }
  }

  void complete(std::size_t tensor) {
    std::unique_lock lock(mutex_);
    Tensor& t = tensors_[tensor];
    t.complete = true;
    if (wanted_.tensors) add({Task::Kind::Tensor, tensor, t.place.bytes});
    if (wanted_.files) wake(t.place.file);
    change_.notify_all();
    room_.wait(lock, [&] { return behind_ < kMostBehind || failure_ || threads_.empty(); });
  }

  Result finish() {
    {
      const std::scoped_lock lock(mutex_);
      if (wanted_.files)
        for (std::size_t i = 0; i < chains_.size(); ++i) {
          chains_[i].to_end = true;
          wake(i);
        }
      last_ = true;
    }
    change_.notify_all();
    work();
    threads_.clear();  // joins
    if (failure_) std::rethrow_exception(failure_);
    return results();
  }

 private:
  struct Tensor {
    Placement::Tensor place = {};
    bool complete = false;
    Sha256 stored = {}, canonical = {};
  };
  // A file's digest, as far as it has come.
  struct Chain {
    std::size_t number = 0;  // in the output set
    SourcePtr source;
    std::vector<std::size_t> order;  // its tensors by offset
    std::size_t next = 0;            // the first in `order` that is not hashed
    std::uint64_t at = 0;            // bytes hashed
    bool running = false;            // queued or in work
    bool to_end = false;             // nothing is to come
    Sha256Stream stream = {};
  };
  struct Task {
    enum class Kind : std::uint8_t { Tensor, File } kind;
    std::size_t index;
    std::uint64_t bytes;  // that it holds the writers up for
  };

  // The next ones are called with the lock held.

  void add(Task task) {
    behind_ += task.bytes;
    tasks_.push_back(task);
  }
  // How far the file can be hashed now.
  std::uint64_t ready(Chain& c) {
    while (c.next < c.order.size() && tensors_[c.order[c.next]].complete) ++c.next;
    if (c.next == c.order.size() && c.to_end) return c.source->size();
    if (c.next == 0) return 0;
    const Placement::Tensor& last = tensors_[c.order[c.next - 1]].place;
    return last.offset + last.bytes;
  }
  void wake(std::size_t file) {
    Chain& c = chains_[file];
    if (c.running) return;
    const std::uint64_t end = ready(c);
    if (end <= c.at && !c.to_end) return;
    c.running = true;
    add({Task::Kind::File, file, end - c.at});
  }

  void work() noexcept {
    std::unique_lock lock(mutex_);
    while (true) {
      change_.wait(lock, [&] { return !tasks_.empty() || (last_ && busy_ == 0) || ended_; });
      if (tasks_.empty() || failure_) break;
      const Task task = tasks_.front();
      tasks_.pop_front();
      ++busy_;
      lock.unlock();
      std::exception_ptr failure;
      try {
        if (task.kind == Task::Kind::Tensor)
          hash_tensor(tensors_[task.index], described_[task.index]);
        else
          hash_file(chains_[task.index]);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      --busy_;
      behind_ -= task.bytes;
      if (failure && !failure_) failure_ = failure;
      if (!failure && task.kind == Task::Kind::File) go_on(task.index);
      room_.notify_all();
      change_.notify_all();
    }
  }

  // More may have come while the file was hashed.
  void go_on(std::size_t file) {
    Chain& c = chains_[file];
    c.running = false;
    const std::uint64_t end = ready(c);
    if (end <= c.at) return;
    c.running = true;
    add({Task::Kind::File, file, end - c.at});
  }

  // Without the lock.

  void each_piece(const Source& from, std::uint64_t at, std::uint64_t end, const auto& take) const {
    Buffer piece;
    for (; at < end; at += piece.size()) {
      check_signal(options_);
      piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, end - at)));
      from.read(at, piece);
      take(piece);
    }
  }
  void hash_tensor(Tensor& t, const OutTensor& described) const {
    Sha256Stream stored, canonical;
    each_piece(*chains_[t.place.file].source, t.place.offset, t.place.offset + t.place.bytes,
               [&](Buffer& piece) {
                 stored.update(piece);
                 if (!described.big_endian) return;
                 swap_endian(described.dtype, piece);
                 canonical.update(piece);
               });
    t.stored = stored.finish();
    t.canonical = described.big_endian ? canonical.finish() : t.stored;
  }
  void hash_file(Chain& c) {
    std::uint64_t end = 0;
    {
      const std::scoped_lock lock(mutex_);
      end = ready(c);
    }
    each_piece(*c.source, c.at, end, [&](const Buffer& piece) { c.stream.update(piece); });
    const std::scoped_lock lock(mutex_);
    c.at = end;
  }

  Result results() {
    Result out;
    std::vector<std::size_t> file_of(chains_.size());
    for (std::size_t number = 0; number < outputs_.files(); ++number) {
      const SourcePtr source = outputs_.written(number);
      File& f = out.files.emplace_back(File{outputs_.name_of(number), source->size(), {}});
      // In the order of their numbers.
      const auto chain = std::ranges::lower_bound(chains_, number, {}, &Chain::number);
      const bool followed = chain != chains_.end() && chain->number == number;
      if (followed) file_of[static_cast<std::size_t>(chain - chains_.begin())] = number;
      if (!wanted_.files) continue;
      f.digest = followed ? chain->stream.finish()
                          : sha256_of({{source, 0, source->size()}}, options_)[0];
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      Tensor& t = tensors_[i];
      if (wanted_.tensors && t.place.bytes == 0) t.stored = t.canonical = sha256({});
      out.tensors.push_back({file_of[t.place.file], t.place.bytes, t.stored, t.canonical});
    }
    return out;
  }

  const OutputSet& outputs_;
  const std::span<const OutTensor> described_;
  const Wanted wanted_;
  RunOptions options_;
  std::vector<Tensor> tensors_;
  std::deque<Chain> chains_;

  std::mutex mutex_;
  std::condition_variable change_, room_;
  std::deque<Task> tasks_;
  std::uint64_t behind_ = 0;  // bytes of tasks queued or in work
  unsigned busy_ = 0;
  bool last_ = false, ended_ = false;
  std::exception_ptr failure_;
  std::vector<std::jthread> threads_;  // last: they use all of the above
};

WrittenDigests::WrittenDigests(const OutputSet& outputs, std::span<const OutTensor> tensors,
                               Wanted wanted, const RunOptions& options)
    : impl_(std::make_unique<Impl>(outputs, tensors, wanted, options)) {}
WrittenDigests::~WrittenDigests() = default;

void WrittenDigests::begin(const Placement& placement, std::span<const std::size_t> files) {
  impl_->begin(placement, files);
}
void WrittenDigests::complete(std::size_t tensor) {
  impl_->complete(tensor);
}
WrittenDigests::Result WrittenDigests::finish() {
  return impl_->finish();
}

}  // namespace wtool
