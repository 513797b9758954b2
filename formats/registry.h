#pragma once
#include "lib/model/model.h"

namespace wtool {

extern const Format kSafetensors, kNpy, kGguf, kImatrixDat;
extern const Scheme kAwq, kBitsAndBytes, kCompressedTensors, kFp8, kGptOss, kGptq, kModelOpt,
    kPlain, kTorchao;

// What a file that is no weight file seems to be, in plain words, for the error message.
std::string diagnose(const Source& source);

Registry all_formats() noexcept;

}  // namespace wtool
