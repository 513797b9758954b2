// Writes the GGUF file that gguf_sample.txt describes, with our layout: every metadata type, and
// tensors whose values are known without computing.
//
//   gguf_sample FILE
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>

#include "formats/registry.h"

namespace {

using namespace wtool;

Metadata metadata() {
  Metadata m;
  m.set("general.architecture", std::string("sample"));
  m.set("general.alignment", std::uint32_t{64});
  m.set("u8", std::uint8_t{255});
  m.set("i8", std::int8_t{-128});
  m.set("u16", std::uint16_t{65535});
  m.set("i16", std::int16_t{-32768});
  m.set("u32", std::uint32_t{4294967295});
  m.set("i32", std::numeric_limits<std::int32_t>::min());
  m.set("f32", 0.1f);
  m.set("inf", std::numeric_limits<float>::infinity());
  m.set("yes", true);
  m.set("no", false);
  m.set("u64", ~std::uint64_t{0});
  m.set("i64", std::numeric_limits<std::int64_t>::min());
  m.set("f64", 0.1);
  m.set("text", std::string("line\nnaïve \"漢\""));
  m.set("empty", std::string());
  m.set("words", array_of(MetaType::String, std::vector<MetaValue>{std::string("a"), std::string(),
                                                                   std::string("é")}));
  m.set("numbers", array_of(MetaType::I32, std::vector<MetaValue>{1, -2, 3}));
  m.set("floats", array_of(MetaType::F32, std::vector<MetaValue>{1.5f, -0.0f}));
  m.set("bools", array_of(MetaType::Bool, std::vector<MetaValue>{true, false}));
  m.set("none", array_of(MetaType::String, {}));
  return m;
}

struct Sample {
  OutTensor tensor;
  Buffer data;
};

template <class T>
Buffer values(std::initializer_list<T> list) {
  Buffer out;
  for (const T v : list) append(out, v);
  return out;
}

// Two blocks: the scale (f16 0.5, then 0.25), then the codes -16 … 15.
Buffer q8_0() {
  Buffer out;
  for (const int scale : {0x3800, 0x3400}) {
    append(out, static_cast<std::uint16_t>(scale));
    for (int i = 0; i < 32; ++i) append(out, static_cast<std::int8_t>(i - 16));
  }
  return out;
}
// Scale 1, elements -8 … 7 and back: element j lies in the low half of byte j, j + 16 in the high.
Buffer q4_0() {
  Buffer out;
  append(out, std::uint16_t{0x3C00});
  for (int j = 0; j < 16; ++j) append(out, static_cast<std::uint8_t>(j | (15 - j) << 4));
  return out;
}

std::vector<Sample> samples() {
  return {
      {{"f32", DType::F32, {2, 3}}, values({0.f, -1.f, 2.f, 0.5f, 4.f, 1e10f})},
      {{"f16", DType::F16, {1, 4}}, values<std::uint16_t>({0x3C00, 0xC000, 0x3800, 0x7BFF})},
      {{"bf16", DType::BF16, {4, 1}}, values<std::uint16_t>({0x3F80, 0xC000, 0x3F00, 0x4049})},
      {{"i8", DType::I8, {3}}, values<std::int8_t>({-128, 0, 127})},
      {{"i16", DType::I16, {2}}, values<std::int16_t>({-32768, 32767})},
      {{"i32", DType::I32, {1}}, values<std::int32_t>({-5})},
      {{"i64", DType::I64, {2}}, values<std::int64_t>({-1, std::int64_t{1} << 62})},
      {{"f64", DType::F64, {1}}, values({0.1})},
      {{"scalar", DType::F32, {}}, values({7.f})},
      {{"q8_0", DType::Q8_0, {2, 32}}, q8_0()},
      {{"q4_0", DType::Q4_0, {1, 32}}, q4_0()},
      {{"four", DType::I8, {2, 1, 3, 1}}, values<std::int8_t>({1, 2, 3, 4, 5, 6})},
      {{std::string(63, 'n'), DType::F32, {1}}, values({1.f})},
  };
}

int write(const char* path) {
  const std::vector<Sample> all = samples();
  std::vector<OutTensor> tensors;
  for (const Sample& s : all) tensors.push_back(s.tensor);
  const Layout layout = kGguf.layout(metadata(), tensors);
  Buffer file(layout.total_bytes);
  std::ranges::copy(layout.head, file.begin());
  for (std::size_t i = 0; i < all.size(); ++i)
    std::ranges::copy(all[i].data, file.begin() + static_cast<std::ptrdiff_t>(layout.offsets[i]));
  std::ofstream out(path, std::ios::binary);
  out.write(as_text(file).data(), static_cast<std::streamsize>(file.size()));
  out.close();
  return out ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return argc == 2 ? write(argv[1]) : 2;
}
