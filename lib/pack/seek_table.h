#pragma once
#include <cstdint>
#include <vector>

#include "lib/model/source.h"
#include "lib/pack/frame.h"

// The table at the end of a seekable Zstandard file (zstd's contrib/seekable_format, version
// 0.1.0): all its frames in order, skippable ones too.
namespace wtool {

void append_seek_table(const std::vector<FrameSize>& frames, Buffer& out);

struct SeekTable {
  std::vector<FrameSize> frames;
  std::vector<std::uint64_t> offsets;  // of each frame in the file
  bool checksums = false;
  std::uint64_t at = 0;  // where the table's own frame begins
};
// True if the file ends as one with a table does.
bool has_seek_table(const Source& file);
// Throws BadFile unless the frames named are all there is before the table.
SeekTable read_seek_table(const Source& file);

}  // namespace wtool
