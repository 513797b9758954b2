#pragma once
// Every architecture there is; each is in the file of its family.
#include "formats/hf/architectures/common.h"

namespace wtool {

extern const Architecture kLlama, kMistral, kMixtral, kGranite, kSmollm3;  // llama.cc
extern const Architecture kQwen2, kQwen2Moe, kQwen3, kQwen3Moe;            // qwen.cc
extern const Architecture kGemma, kGemma2, kGemma3;                        // gemma.cc
extern const Architecture kDeepseek2, kDeepseek3;                          // deepseek.cc
extern const Architecture kGptOssModel;                                    // gpt_oss.cc
extern const Architecture kPhi3, kGpt2, kStarcoder2;                       // others.cc
extern const Architecture kBert, kNomicBert;                               // bert.cc

}  // namespace wtool
