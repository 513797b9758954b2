#pragma once
// For tests of quantisation schemes: golden arrays, and models in memory.
#include <cstring>
#include <filesystem>
#include <fstream>

#include "lib/model/model.h"
#include "lib/numeric/codec.h"
#include "tests/catch.h"

namespace wtool {

namespace fs = std::filesystem;

// ---- golden data: NPY version 1, little-endian, C order; nothing else lies there

struct Array {
  Shape shape;
  Buffer bytes;
  template <class T>
  std::vector<T> as() const {
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
};

inline Array load_npy(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), {});
  INFO(path.string());
  REQUIRE(all.size() > 10);
  const std::size_t head =
      10 + static_cast<unsigned char>(all[8]) + 256u * static_cast<unsigned char>(all[9]);
  REQUIRE(all.size() >= head);
  Array out;
  std::size_t at = all.find("'shape': (") + 10;
  while (all[at] != ')') {
    out.shape.push_back(std::stoull(all.substr(at)));
    while (all[at] != ',' && all[at] != ')') ++at;
    while (all[at] == ',' || all[at] == ' ') ++at;
  }
  out.bytes = to_buffer(std::string_view(all).substr(head));
  return out;
}

// The cases whose names begin so: those in the repository, and all where they are at hand.
inline std::vector<fs::path> cases(std::string_view prefix) {
  std::vector<fs::path> out;
  for (const char* folder : {"/testdata/compressed_tensors", "/testdata/schemes",
                             "/../shared/golden/compressed_tensors"}) {
    const fs::path root = std::string(WTOOL_SOURCE_DIR) + folder;
    if (!fs::exists(root)) continue;
    for (const auto& entry : fs::directory_iterator(root))
      if (entry.path().filename().string().starts_with(prefix)) out.push_back(entry.path());
  }
  REQUIRE(!out.empty());
  return out;
}

// ---- tensors and models in memory

class Builder {
 public:
  Builder& add(std::string_view name, DType dtype, const Shape& shape, const Buffer& bytes) {
    lines_.push_back({std::string(name), dtype, shape, all_.size(), bytes.size()});
    append(all_, Bytes(bytes));
    return *this;
  }
  template <class T>
  Builder& add(std::string_view name, DType dtype, const Shape& shape,
               const std::vector<T>& values) {
    Buffer bytes;
    append(bytes, std::as_bytes(std::span(values)));
    return add(name, dtype, shape, bytes);
  }
  Builder& config(std::string_view json) {
    config_ = json;
    return *this;
  }
  std::shared_ptr<Model> build() const {
    auto model = std::make_shared<Model>();
    model->path = "m";
    Diagnostics faults;
    Catalog& catalog = model->catalog;
    const std::uint32_t source = catalog.add_source(from_memory("m.safetensors", all_));
    for (const Line& l : lines_) {
      TensorEntry e;
      e.name = catalog.arena().text(l.name);
      e.shape = catalog.arena().copy(ShapeView(l.shape));
      e.dtype = l.dtype;
      e.offset = l.offset;
      e.bytes = l.bytes;
      e.source = source;
      catalog.add(e, 0, faults);
    }
    if (!config_.empty())
      model->side.push_back({"config.json", from_memory("m/config.json", to_buffer(config_))});
    return model;
  }

 private:
  struct Line {
    std::string name;
    DType dtype;
    Shape shape;
    std::uint64_t offset, bytes;
  };
  std::vector<Line> lines_;
  Buffer all_;
  std::string config_;
};

// The one logical tensor in the model, opened.
inline TensorPtr open_only(const Scheme& scheme, Model& model) {
  Diagnostics faults;
  const auto found = scheme.recognise(model, faults);
  REQUIRE(found.size() == 1);
  LogicalTensor t;
  t.name = model.catalog.arena().text(found[0].name);
  t.scheme = &scheme;
  t.shape = model.catalog.arena().copy(ShapeView(found[0].shape));
  t.count = static_cast<std::uint32_t>(found[0].parts.size());
  t.hint = found[0].hint;
  model.parts = found[0].parts;
  return scheme.open(model, t);
}

inline std::vector<float> values_of(const Tensor& tensor, const Box& box) {
  std::vector<float> out(box.elements());
  Scratch scratch;
  read_f32(tensor, box, out, scratch);
  return out;
}

}  // namespace wtool
