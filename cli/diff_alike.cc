// A Hugging Face folder against the GGUF that was made of it: other names, other orders of
// elements.
#include <algorithm>

#include <fmt/format.h>

#include "cli/diff.h"
#include "formats/hf/architectures.h"
#include "formats/hf/gguf_view.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// The architecture of a file that has ggml's names; empty: of none that is known.
std::string_view architecture_in(const Model& model) {
  const std::string_view name = model.catalog.meta.text("general.architecture");
  if (model.catalog.format != "gguf" || !architecture_named(name)) return {};
  return model.catalog.find("token_embd.weight") ? name : std::string_view();
}

// Null, and a note, if the folder can't be seen so.
std::shared_ptr<const Model> as_gguf(const std::shared_ptr<const Model>& folder,
                                     std::string_view architecture,
                                     std::vector<std::string>& notes) {
  std::string why;
  for (const bool no_vocab : {false, true}) {
    try {
      ModelView view = gguf_view(folder, {.arch = {}, .pre = {}, .no_vocab = no_vocab});
      const std::string_view own = view.model->catalog.meta.text("general.architecture");
      if (own != architecture) {
        why = fmt::format("{} is a {}, the file a {}", folder->path, own, architecture);
        break;
      }
      notes.push_back(fmt::format("{} is compared as the GGUF that it becomes{}", folder->path,
                                  no_vocab ? ", without its tokenizer: " + why : ""));
      return view.model;
    } catch (const Error& e) {
      if (e.fault() != Fault::BadFile && e.fault() != Fault::Unsupported &&
          e.fault() != Fault::Usage)
        throw;
      if (why.empty()) why = e.what();
    }
  }
  notes.push_back(fmt::format("names are compared as they are: {}", why));
  return nullptr;
}

}  // namespace

void see_alike(Diff& diff) {
  for (auto [folder, file] : {std::pair(&diff.a, &diff.b), std::pair(&diff.b, &diff.a)}) {
    const std::string_view architecture = architecture_in(**file);
    if (architecture.empty() || !is_hf_folder(**folder) || !(*folder)->side_file("config.json"))
      continue;
    if (auto seen = as_gguf(*folder, architecture, diff.notes)) {
      diff.opened = *folder;
      *folder = std::move(seen);
    }
    return;
  }
}

}  // namespace wtool
