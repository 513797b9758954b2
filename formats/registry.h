#pragma once
#include "lib/model/model.h"

namespace wtool {

extern const Format kSafetensors, kNpy, kGguf, kImatrixDat;
extern const Scheme kAwq, kCompressedTensors, kGptq, kPlain;

// What a file that is no weight file seems to be, in plain words, for the error message.
std::string diagnose(const Source& source);

Registry all_formats() noexcept;

}  // namespace wtool
