#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "lib/base/bytes.h"

namespace wtool {

// Immutable random-access bytes: a file, memory, a compressed file seen as the original.
// All methods may be called from many threads at once.
class Source {
 public:
  virtual ~Source() = default;
  virtual const std::string& name() const noexcept = 0;  // as the user knows it: the path given
  virtual std::uint64_t size() const noexcept = 0;

  // Fills `out` with bytes [offset, offset + out.size()). Throws BadFile past the end, else Io.
  virtual void read(std::uint64_t offset, MutableBytes out) const = 0;

  virtual int descriptor() const noexcept { return -1; }  // for kernel copies, if it is a file
  virtual void check_unchanged() const {}                 // throws Io if the file is another now
};
using SourcePtr = std::shared_ptr<const Source>;

// Follows links to regular files. Throws Io: not there, no permission, not a regular file.
SourcePtr open_file(const std::string& path);
// The same without holding a descriptor: opens the file for each read. For folders of many files.
SourcePtr open_on_demand(const std::string& path);
// Lets this process open as many files as the system allows it; returns how many that is.
std::uint64_t allow_many_files() noexcept;
SourcePtr from_memory(std::string name, Buffer bytes);
// Standard input, spooled to an unnamed temporary file (in $TMPDIR or /tmp) and named "-".
// Throws Cancelled when `stop` becomes other than zero.
SourcePtr from_stdin(const std::atomic<int>* stop = nullptr);

// A stretch of a source. It keeps the source alive, so it means the same to whoever holds it.
struct Extent {
  SourcePtr source;
  std::uint64_t offset = 0, bytes = 0;
};
Buffer read_all(const Extent& extent);

}  // namespace wtool
