#include "cli/check_fixes.h"

#include <array>

namespace wtool {
namespace {

struct Fix {
  std::string_view rules;  // an id, or what it begins with up to a dot
  std::string_view text;
};

constexpr std::string_view
    kFetch = "fetch the file again; --salvage OUT keeps the tensors that are intact",
    kWriter =
        "make the file again with a tool that keeps the format's rules; --salvage OUT keeps "
        "the tensors that are intact",
    kRewrite = "'wtool convert' writes a file without it",
    kLimits = "no model known comes near the limit: do not trust the file",
    kIndex = "make the index again: 'wtool convert' of the shards writes one",
    kFiles = "fetch the missing files, all of one revision",
    kConfig = "correct quantization_config, or quantize again: engines go by it",
    kParts = "fetch the model again, or quantize it again: its parts are of different makes";

// The first that fits.
constexpr std::array kFixes{
    Fix{"safetensors.truncated", kFetch},
    Fix{"safetensors.length", kFetch},
    Fix{"safetensors.trailing", "--salvage OUT writes the tensors alone; ask what the rest is for"},
    Fix{"safetensors.hole", "--salvage OUT writes the tensors alone; ask what the rest is for"},
    Fix{"safetensors.unknown-member", kRewrite},
    Fix{"safetensors.metadata", "'wtool convert --unset KEY' or '--drop-metadata' leaves it out"},
    Fix{"safetensors.metadata-null", "'wtool convert --drop-metadata' leaves it out"},
    Fix{"safetensors.metadata-duplicate", "'wtool convert --unset KEY' leaves it out"},
    Fix{"safetensors.gguf-metadata", "'wtool convert --unset KEY' leaves it out"},
    Fix{"safetensors.limit", kLimits},
    Fix{"safetensors.index", kIndex},
    Fix{"safetensors.index-size", kLimits},
    Fix{"safetensors.index-path",
        "do not trust the model: names that lead elsewhere are no accident"},
    Fix{"safetensors.index-map", kIndex},
    Fix{"safetensors.index-duplicate", kIndex},
    Fix{"safetensors.index-key", kIndex},
    Fix{"safetensors.index-total", kIndex},
    Fix{"safetensors.alignment", "tensors of wider types first would lie on their borders"},
    Fix{"safetensors.padding", "'wtool convert' writes it anew"},
    Fix{"safetensors.format-key", "'wtool convert --set format=pt' adds it"},
    Fix{"safetensors", kWriter},
    Fix{"gguf.truncated", kFetch},
    Fix{"gguf.data-truncated", kFetch},
    Fix{"gguf.count", kFetch},
    Fix{"gguf.string", kFetch},
    Fix{"gguf.trailing", "--salvage OUT writes the tensors alone; ask what the rest is for"},
    Fix{"gguf.file-type", "'wtool convert --set general.file_type:u32=N' mends it"},
    Fix{"gguf.padding", "'wtool convert' writes the tensors alone; ask what the rest is for"},
    Fix{"gguf.quantization-version",
        "'wtool convert --set general.quantization_version:u32=2' adds it"},
    Fix{"gguf.architecture", "'wtool convert --set general.architecture=NAME' adds it"},
    Fix{"gguf.block-count", "fetch the model again, or correct the key with 'wtool convert --set'"},
    Fix{"gguf.vocabulary", "make the file again: engines may read past a list's end"},
    Fix{"gguf.split", "give the files their own names back; fetch what is missing"},
    Fix{"gguf", kWriter},
    Fix{"npy.short", kFetch},
    Fix{"npy.trailing-bytes", "--salvage OUT writes the array alone; ask what the rest is for"},
    Fix{"npy", "save the array again with numpy.save"},
    Fix{"imatrix", "make the importance matrix again"},
    Fix{"tensor.bounds", kFetch},
    Fix{"tensor.two-files", "remove the file that does not belong there, or make the index again"},
    Fix{"tensor.rank", kLimits},
    Fix{"tensor", kWriter},
    Fix{"catalog", kLimits},
    Fix{"index.missing-shard", kFiles},
    Fix{"index.missing-tensor", kFiles},
    Fix{"index.link", "do not trust the model: names that lead elsewhere are no accident"},
    Fix{"index.path", "do not trust the model: names that lead elsewhere are no accident"},
    Fix{"index.stray-file", "remove it, or make the index again"},
    Fix{"index", kIndex},
    Fix{"set.missing-file", kFiles},
    Fix{"set", "fetch all files again, of one revision"},
    Fix{"config.json", "fetch the file again"},
    Fix{"config.tied", "engines that tie the two need it once"},
    Fix{"config", "correct config.json, or fetch it again, of the same revision as the weights"},
    Fix{"name", "'wtool convert --rename' gives it another name"},
    Fix{"metadata", "'wtool convert --unset KEY' leaves it out"},
    Fix{"content", "do not open it with anything else before you know what it is"},
    Fix{"values.duplicate", "engines that tie the two need it once"},
    Fix{"values.constant", "compare with the model it was made from: 'wtool diff'"},
    Fix{"values.subnormal", "compare with the model it was made from: 'wtool diff'"},
    Fix{"values", "fetch the file again, or make it again from its source"},
    Fix{"file", "fetch it again; see what the page or the error that came instead says"},
    Fix{"model.note", "nothing, if it is as you expect"},
    Fix{"compressed.frames", "fetch it again, or keep what is whole with --salvage OUT"},
    Fix{"compressed-tensors.config", kConfig},
    Fix{"compressed-tensors.targets", kConfig},
    Fix{"gptq.config", kConfig},
    Fix{"awq.config", kConfig},
    Fix{"bitsandbytes.config", kConfig},
    Fix{"fp8.config", kConfig},
    Fix{"mxfp4.config", kConfig},
    Fix{"modelopt.config", kConfig},
};

}  // namespace

std::string_view fix_of(const Rule& rule) noexcept {
  for (const Fix& f : kFixes)
    if (rule.id == f.rules || (rule.id.starts_with(f.rules) && rule.id[f.rules.size()] == '.'))
      return f.text;
  return kParts;  // of schemes
}

}  // namespace wtool
