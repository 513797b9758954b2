#include <array>

#include "cli/command.h"

namespace wtool {

extern const Command kInspect, kShow, kStats, kDiff, kConvert, kQuantize, kCompress, kDecompress,
    kDigest, kVerify, kSign, kCheck, kCompletion, kHelp;

std::span<const Command> all_commands() noexcept {
  static const std::array kAll{kInspect,  kShow,     kStats,      kDiff,   kConvert,
                               kQuantize, kCompress, kDecompress, kDigest, kVerify,
                               kSign,     kCheck,    kCompletion, kHelp};
  return kAll;
}

}  // namespace wtool
