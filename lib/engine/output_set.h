#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "lib/engine/unfinished.h"
#include "lib/model/source.h"

namespace wtool {

// All that one run leaves behind: a file, a folder of files, or one file's bytes on standard
// output. Everything is written in a hidden folder beside the target (for standard output: in an
// unnamed temporary file); nothing is visible before commit(), and the destructor removes what was
// not committed. The hidden folder is '.NAME.wtool-PID' and locked while in use; what a killed run
// left is found by its name, seen to be unlocked, and removed.
//
// The hidden folder is for our user alone. What is new gets the mode that the umask gives;
// replacing keeps the mode of what is replaced. A target that is a link is replaced itself: what it
// leads to may belong to others (a cache's blob). A link is no folder to replace. Refused is what
// is neither a file nor a folder. What is being replaced can be an input of the run: it is read
// through its open descriptor, and untouched until commit().
class OutputSet {
 public:
  enum class Kind : std::uint8_t { File, Folder, Stdout };
  enum class Existing : std::uint8_t { Refuse, Replace };

  // Throws Usage if the target exists and may not be replaced, Io if the place cannot be written.
  OutputSet(std::string target, Kind kind, Existing existing);
  ~OutputSet();
  OutputSet(const OutputSet&) = delete;
  OutputSet& operator=(const OutputSet&) = delete;

  // Throws Usage if the folder to be replaced holds anything but these files. commit() looks again;
  // this is for saying so before the work.
  void check_replaceable(std::span<const std::string> names) const;
  // These will be there, too: where several plans fill one folder.
  void expect(std::vector<std::string> names) { expected_ = std::move(names); }

  // Throws Io, with both numbers, if fewer than `bytes` are free where the output goes.
  void check_space(std::uint64_t bytes) const;

  // `name` is relative and may have folders in it; for File and Stdout it does not matter. Takes
  // the disk space at once if the size is known. Returns the file's number. Not while others write.
  std::size_t create(const std::string& name, std::optional<std::uint64_t> bytes);

  // From any thread, as long as ranges do not overlap. Starts writing back early, so that the flush
  // in commit() finds little left to do.
  void write_at(std::size_t file, std::uint64_t offset, Bytes bytes);
  // By the kernel where it can. Throws Io if the source ends before the extent does.
  void copy_to(std::size_t file, std::uint64_t offset, const Extent& from);

  void append(std::size_t file, Bytes bytes);  // by one thread at a time

  // What has been written so far, as one reads it: for who follows the writing. Files are numbered
  // in the order of create(). Valid as long as this is.
  std::size_t files() const noexcept { return files_.size(); }
  const std::string& name_of(std::size_t file) const { return files_[file].name; }
  SourcePtr written(std::size_t file) const;

  // Flush, then the name appears. With Replace: a file is exchanged by one rename; a folder is
  // exchanged only if it holds nothing but names that we would write, else Usage lists what is in
  // the way. Stdout: the bytes are sent; throws Cancelled if the reader has gone.
  void commit();

  // Whether a folder of this name, beside `target`, would be the hidden one of a run that writes
  // it.
  static bool is_hidden_folder(std::string_view name, const std::string& target);

  const std::string& target() const noexcept { return target_; }
  std::uint64_t total_bytes() const noexcept;  // of all files

 private:
  struct File {
    std::string name, path;
    int fd = -1;
    std::uint64_t end = 0;  // the known size, or what has been appended
    // Bytes that have arrived in each stretch of the file; for early write-back.
    std::unique_ptr<std::atomic<std::uint32_t>[]> arrived = {};
    std::uint64_t flushed = 0;  // of an appended file: handed to the disk so far
  };

  void settle_target();
  void make_staging();
  bool lock_staging(const std::string& name);
  void close_to_others();
  void reserve(const File& file, std::uint64_t bytes) const;
  void check_within(const File& file, std::uint64_t offset, std::uint64_t bytes) const;
  void count_arrived(File& file, std::uint64_t offset, std::uint64_t bytes) const noexcept;
  void keep_modes() const;
  void flush_files() const;
  void put_in_place();
  void remove_staging();
  void remove_made() noexcept;
  void send() const;

  std::string target_;   // as given
  std::string final_;    // where it really goes: relative folders resolved
  std::string staging_;  // "" once it is the output, or for Stdout
  Kind kind_;
  Existing existing_;
  bool replaces_ = false;  // something is there
  std::vector<std::string> expected_;
  std::deque<File> files_;
  int lock_ = -1;
  std::optional<mode_t> mode_;  // of a new folder, once it is complete
  Unfinished unfinished_;       // last: it may be asked to clean up as long as the rest is there
};

}  // namespace wtool
