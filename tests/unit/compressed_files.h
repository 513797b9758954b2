#pragma once
// For tests of compressed files: some by hand, and a model with what becomes of it.
#include <random>

#include <fmt/format.h>

#include "formats/compressed.h"
#include "formats/compressed_write.h"
#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/engine/execute.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {

// ---- Files by hand

inline const std::string kHash(64, '0');

inline std::string index_text(std::string_view pieces, std::uint64_t bytes,
                              std::string_view members = {}) {
  return fmt::format(R"({{"schema":"wtool.compressed/1","form":"plain",)"
                     R"("source":{{"name":"m","bytes":{},"sha256":"{}"}}{},"pieces":[{}]}})",
                     bytes, kHash, members, pieces);
}
inline std::string tensor_members(std::string_view name, std::uint64_t bytes) {
  return fmt::format(R"("tensor":"{}","dtype":"u8","shape":[{}],"tensor_bytes":{},"sha256":"{}")",
                     name, bytes, bytes, kHash);
}
inline const std::string kBase =
    fmt::format(R"(,"base":[{{"name":"b","bytes":9,"sha256":"{}"}}])", kHash);

class Frames {
 public:
  Frames& add(Bytes content, Coder coder = Coder::Raw) {
    sizes_.push_back(writer_.append(coder, content, file_));
    return *this;
  }
  Frames& raw(Bytes stored, FrameSize size) {
    append(file_, stored);
    sizes_.push_back(size);
    return *this;
  }
  SourcePtr file(std::string_view index) const {
    Buffer out = file_;
    append_skippable(7, as_bytes(index), out);
    std::vector<FrameSize> sizes = sizes_;
    sizes.push_back({static_cast<std::uint32_t>(out.size() - file_.size()), 0, 0});
    append_seek_table(sizes, out);
    return from_memory("file.zst", std::move(out));
  }

 private:
  FrameWriter writer_;
  Buffer file_;
  std::vector<FrameSize> sizes_;
};

inline Buffer bytes(std::initializer_list<unsigned> values) {
  Buffer out;
  for (const unsigned v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}
inline Buffer noise(std::size_t n, unsigned seed = 1) {
  std::mt19937 random(seed);
  Buffer out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(random() & 0xFF);
  return out;
}
inline Buffer read(const Source& file, std::uint64_t at, std::uint64_t n) {
  Buffer out(static_cast<std::size_t>(n));
  file.read(at, out);
  return out;
}
inline Buffer all_of(const Source& file) {
  return read(file, 0, file.size());
}
inline Buffer part(const Buffer& of, std::size_t at, std::size_t n) {
  return {of.begin() + static_cast<std::ptrdiff_t>(at),
          of.begin() + static_cast<std::ptrdiff_t>(at + n)};
}

inline void check_index(const std::string& text, std::size_t frames, const std::string& why,
                        Fault fault = Fault::BadFile) {
  INFO(text.substr(0, 300));
  try {
    parse_pack_index(text, frames);
    FAIL("accepted, though it should say: " << why);
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    CHECK_THAT(e.what(), Catch::Contains(why));
  }
}
inline void check_pieces(const std::string& pieces, const std::string& why,
                         std::uint64_t bytes = 10, std::string_view members = {}) {
  check_index(index_text(pieces, bytes, members), 3, why);
}
inline void check_file(const SourcePtr& file, const std::string& why,
                       Fault fault = Fault::BadFile) {
  try {
    open_compressed(file);
    FAIL("accepted, though it should say: " << why);
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    CHECK_THAT(e.what(), Catch::Contains(why));
  }
}
inline void check_read(const SourcePtr& file, const std::string& why,
                       Fault fault = Fault::BadFile) {
  const auto opened = open_compressed(file);
  REQUIRE(opened);
  try {
    all_of(*opened);
    FAIL("read, though it should say: " << why);
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    CHECK_THAT(e.what(), Catch::Contains(why));
  }
}

// ---- A model, and what becomes of it

inline Buffer weights(std::size_t n, std::size_t width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02F);
  Buffer out;
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(normal(random));
    if (width == 2)
      append(out, static_cast<std::uint16_t>(bits >> 16));
    else
      append(out, bits);
  }
  return out;
}
struct Part {
  std::string name, dtype, shape;
  Buffer bytes;
};
inline Buffer safetensors(const std::vector<Part>& parts) {
  std::string header = "{";
  Buffer data;
  for (const Part& p : parts) {
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                          header.size() == 1 ? "" : ",", p.name, p.dtype, p.shape, data.size(),
                          data.size() + p.bytes.size());
    append(data, Bytes(p.bytes));
  }
  header += '}';
  Buffer out;
  append(out, std::uint64_t{header.size()});
  append(out, as_bytes(header));
  append(out, Bytes(data));
  return out;
}
// Several chunks, types, a tensor that is there twice, one without bytes.
inline const std::vector<Part>& a_model() {
  static const std::vector<Part> model{{"a", "BF16", "[600000]", weights(600000, 2, 1)},
                                       {"b", "F32", "[300001]", weights(300001, 4, 2)},
                                       {"c", "F16", "[1000]", noise(2000, 3)},
                                       {"none", "F32", "[0]", {}},
                                       {"d", "I8", "[77]", noise(77, 4)},
                                       {"e", "BF16", "[600000]", weights(600000, 2, 1)},
                                       {"f", "U8", "[5000]", Buffer(5000, std::byte{9})}};
  return model;
}
// Near the model, as what was trained further.
inline std::vector<Part> its_base() {
  std::vector<Part> out = a_model();
  for (std::size_t i = 0; i + 1 < out[0].bytes.size(); i += 8) out[0].bytes[i] ^= std::byte{1};
  out.erase(out.begin() + 2);
  return out;
}

inline std::string digest_of(const Buffer& file) {
  Sha256Stream digest;
  digest.update(file);
  return digest.finish().hex();
}
struct Opened {
  SourcePtr file;
  Catalog catalog;
};
inline Opened opened(SourcePtr file) {
  Diagnostics faults;
  const Registry registry = all_formats();
  Catalog catalog = read_catalog(file, registry, faults);
  return {std::move(file), std::move(catalog)};
}
inline Opened opened(const Buffer& file, const std::string& name = "m.safetensors") {
  return opened(from_memory(name, file));
}
// As the command does it, but for the name.
inline Buffer compressed(const Opened& model, PackForm form, unsigned threads = 1,
                         const Catalog* base = nullptr) {
  const TempFolder folder;
  RunOptions options;
  options.threads = threads;
  std::vector<BaseFile> files;
  if (base) files.push_back({"base", 1, sha256({})});
  Packing packing(model.file, model.catalog, base, std::move(files));
  packing.sample(options);
  packing.choose(form);
  const std::string path = folder / "out";
  OutputSet outputs(path, OutputSet::Kind::File, OutputSet::Existing::Refuse);
  Plan plan;
  packing.add_to(plan, path);
  execute(plan, options, &outputs);
  std::vector<Extent> extents = packing.tensors();
  extents.push_back({model.file, 0, model.file->size()});
  std::vector<Sha256> digests = sha256_of(extents, options);
  const Sha256 whole = digests.back();
  digests.pop_back();
  packing.finish(outputs, 0, whole, digests);
  return all_of(*outputs.written(0));  // no flush to the disk: that is what takes time
}
inline std::shared_ptr<CompressedFile> open(const Buffer& file) {
  auto out = open_compressed(from_memory("m.zst", file));
  REQUIRE(out);
  return out;
}

}  // namespace wtool
