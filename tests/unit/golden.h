#pragma once
#include <cstring>
#include <string>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/model/source.h"

// The reference's files of ggml's types, in testdata/ggml: 64 rows of 512 values, and what they
// become.
namespace wtool {

inline Buffer bytes_of(const std::string& path) {
  const SourcePtr source = open_file(path);
  return read_all({source, 0, source->size()});
}
inline std::vector<float> floats_of(const Buffer& bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

inline Buffer golden(const std::string& name) {
  return bytes_of(WTOOL_SOURCE_DIR "/testdata/ggml/" + name);
}
inline std::vector<float> golden_floats(const std::string& name) {
  return floats_of(golden(name));
}
// The files keep the library's capital: q2_K.
inline std::string golden_name(DType type) {
  std::string name(name_of(type));
  if (name.ends_with("_k")) name.back() = 'K';
  return name;
}

}  // namespace wtool
