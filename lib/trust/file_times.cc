#include "lib/trust/file_times.h"

#include <algorithm>

namespace wtool {

std::int64_t begun(const FileState& signature) noexcept {
  return std::min(signature.modified, signature.born.value_or(signature.modified));
}

std::optional<std::string_view> why_changed(const FileState& file, const FileState& signature) {
  if (file.kind != FileState::Kind::File) return "is no regular file";
  if (file.device != signature.device) return "lies on another file system than the old signature";
  const std::int64_t last = std::max(file.modified, file.changed);
  if (last >= begun(signature)) return "changed since";
  if (last >= begun(signature) - kTimeMargin) return "changed less than 2 seconds before";
  return std::nullopt;
}

bool may_have_moved(const FileState& folder, const FileState& signature) noexcept {
  return folder.changed >= begun(signature) - kTimeMargin && folder.changed != folder.modified;
}

}  // namespace wtool
