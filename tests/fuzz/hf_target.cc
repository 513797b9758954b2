// A Hugging Face folder seen as GGUF, or the reverse: the first part is config.json, or empty where
// the second is a GGUF file; the second the weights.
#include "formats/hf/gguf_view.h"
#include "formats/hf/hf_view.h"
#include "formats/registry.h"
#include "tests/fuzz/readers.h"
#include "tests/fuzz/work_folder.h"

namespace wtool::fuzz {
namespace {

// Either an Error, or a model of which every tensor reads.
void expect_view_reads(const ModelView& view) {
  Budget budget;
  expect(view.origins.size() == view.model->tensors.size(), "a tensor without an origin");
  for (const LogicalTensor& t : view.model->tensors) {
    const TensorPtr values = view.model->open(t);
    expect(std::ranges::equal(values->shape(), t.shape), "opened in another shape");
    expect_reads(*values, Values::Decoded, budget);
  }
}

void run(Bytes input) {
  const std::vector<std::string> parts = split_parts(as_text(input), 2);
  if (parts.size() < 2) return;
  const bool back = parts[0].empty();
  WorkFolder folder("model");
  folder.write(back ? "model.gguf" : "model.safetensors", parts[1]);
  if (!back) folder.write("config.json", parts[0]);
  try {
    Diagnostics faults;
    const auto model = open_model(folder.path(), all_formats(), {}, faults);
    std::vector<SideFile> side;
    expect_view_reads(back ? hf_view(model, side)
                           : gguf_view(model, {.arch = {}, .pre = {}, .no_vocab = true}));
  } catch (const Error& e) {
    expect_honest(e);
  }
}

}  // namespace

extern const Target kHf;
const Target kHf{"hf", run, mutate_folder};

}  // namespace wtool::fuzz
