#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/model/source.h"

namespace wtool {

// All that one run leaves behind: a file, a folder of files, or one file's bytes on standard
// output. Everything is written in a hidden folder beside the target (for standard output: in an
// unnamed temporary file); nothing is visible before commit(), and the destructor removes what was
// not committed. The hidden folder is '.NAME.wtool-PID' and locked while in use; what a killed run
// left is found by its name, seen to be unlocked, and removed.
class OutputSet {
 public:
  enum class Kind : std::uint8_t { File, Folder, Stdout };
  enum class Existing : std::uint8_t { Refuse, Replace };

  // Throws Usage if the target exists and may not be replaced, Io if the place cannot be written.
  OutputSet(std::string target, Kind kind, Existing existing);
  ~OutputSet();
  OutputSet(const OutputSet&) = delete;
  OutputSet& operator=(const OutputSet&) = delete;

  // Throws Io, with both numbers, if fewer than `bytes` are free where the output goes.
  void check_space(std::uint64_t bytes) const;

  // `name` is relative and may have folders in it; for File and Stdout it does not matter. Takes
  // the disk space at once if the size is known. Returns the file's number.
  std::size_t create(const std::string& name, std::optional<std::uint64_t> bytes);

  // From any thread, as long as ranges do not overlap. Starts writing back early, so that the flush
  // in commit() finds little left to do.
  void write_at(std::size_t file, std::uint64_t offset, Bytes bytes);
  void copy_to(std::size_t file, std::uint64_t offset, const Extent& from);  // by the kernel

  void append(std::size_t file, Bytes bytes);  // by one thread at a time

  // Flush, then the name appears. With Replace: a file is exchanged by one rename; a folder is
  // exchanged only if it holds nothing but names that we would write, else Usage lists what is in
  // the way. Stdout: the bytes are sent.
  void commit();

  const std::string& target() const noexcept { return target_; }
  std::uint64_t total_bytes() const noexcept;  // of all files

 private:
  struct File {
    std::string name, path;
    int fd;
    std::uint64_t end;
  };
  struct Impl;
  std::string target_, staging_;
  Kind kind_;
  Existing existing_;
  std::vector<File> files_;
  int lock_ = -1;
};

}  // namespace wtool
