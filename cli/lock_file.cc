#include "cli/lock_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "cli/json.h"
#include "lib/base/error.h"
#include "lib/base/hex.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/model/source.h"
#include "lib/trust/digest.h"

namespace wtool {
namespace {

constexpr std::string_view kSchema = "wtool.lock/1";
constexpr std::uint64_t kMostBytes = std::uint64_t{256} << 20;

void write_tensor(JsonWriter& w, const LockedTensor& t) {
  w.begin_object();
  w.name_member("name", t.name);
  w.member("dtype", t.dtype);
  w.member("shape", t.shape);
  w.member("scheme", t.scheme);
  if (t.bytes > 0) w.member("bytes", t.bytes);
  if (t.envelope) {
    w.member("min", t.envelope->min);
    w.member("max", t.envelope->max);
    w.member("absmax", t.envelope->absmax);
    w.member("rms", t.envelope->rms);
  }
  if (t.counted) {
    w.member("zeros", t.zeros);
    w.member("nan", t.nan);
    w.member("inf", t.inf);
  }
  if (!t.sha256.empty()) {
    w.key("sha256");
    w.begin_array();
    for (const std::string& digest : t.sha256) w.value(digest);
    w.end_array();
  }
  w.end_object();
}

// A lock comes from a repository that anyone may propose changes to: nothing in it is believed.
class Reader {
 public:
  Reader(const std::string& path, std::span<char> text) : path_(path), json_(text) {}

  Lock read() {
    Lock lock;
    bool schema = false, tensors = false;
    members("the lock", [&](std::string_view key) {
      if (key == "schema") {
        schema = true;
        check_schema(text("schema"));
      } else if (key == "envelope_tolerance") {
        lock.tolerance = number(key);
        if (lock.tolerance < 0) throw fault("envelope_tolerance is negative");
      } else if (key == "tensors") {
        if (!schema) throw fault("'schema' does not come first");
        tensors = true;
        list(key, [&] { lock.tensors.push_back(tensor()); });
      } else {
        return false;
      }
      return true;
    });
    json_.finish();
    if (!schema) throw fault("has no 'schema'");
    if (!tensors) throw fault("has no 'tensors'");
    sort(lock);
    return lock;
  }

 private:
  Error fault(std::string what) const {
    Error e(Fault::BadFile, std::move(what));
    if (!tensor_.empty()) e.in(fmt::format("tensor {}", quoted(tensor_)));
    return e.in(path_);
  }
  void check_schema(std::string_view s) const {
    if (s == kSchema) return;
    if (s.starts_with("wtool.lock/"))
      throw Error(Fault::Unsupported,
                  fmt::format("is {}; this version reads {}", quoted(s), kSchema))
          .in(path_);
    throw fault(fmt::format("schema {} is not '{}'", quoted(s), kSchema));
  }

  // Each known member once; those that a later version adds are passed over.
  template <class F>
  void members(std::string_view of, F take) {
    need(JsonReader::Kind::Object, of);
    json_.begin_object();
    std::vector<std::string> seen;
    for (std::string_view view; json_.next_member(view);) {
      const std::string key(view);
      if (!take(std::string_view(key))) {
        json_.skip();
        continue;
      }
      if (std::ranges::find(seen, key) != seen.end())
        throw fault(fmt::format("{} is there twice", quoted(key)));
      seen.push_back(key);
    }
  }
  template <class F>
  void list(std::string_view key, F take) {
    need(JsonReader::Kind::Array, key);
    json_.begin_array();
    while (json_.next_item()) take();
  }

  void need(JsonReader::Kind kind, std::string_view key) {
    if (const auto there = json_.peek(); there != kind)
      throw fault(fmt::format("{} is {} at byte {}, not {}", key, name_of(there), json_.position(),
                              name_of(kind)));
  }
  std::string text(std::string_view key) {
    need(JsonReader::Kind::String, key);
    return std::string(json_.string());
  }
  std::uint64_t count(std::string_view key) {
    need(JsonReader::Kind::Number, key);
    std::uint64_t n = 0;
    if (!json_.unsigned_integer(n))
      throw fault(fmt::format("{} is {}, not a count", key, quoted(json_.number())));
    return n;
  }
  double number(std::string_view key) {
    need(JsonReader::Kind::Number, key);
    const std::string_view s = json_.number();
    double v = 0;
    const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), v);
    if (code != std::errc() || end != s.data() + s.size() || !std::isfinite(v))
      throw fault(fmt::format("{} {} is beyond double precision", key, quoted(s)));
    return v;
  }

  LockedTensor tensor() {
    LockedTensor t;
    Envelope e;
    unsigned known = 0, figures = 0, counts = 0;
    tensor_.clear();
    members("a tensor", [&](std::string_view key) {
      if (key == "name")
        known |= 1, tensor_ = t.name = text(key);
      else if (key == "name_hex")
        t.name = name_from_hex(text(key));
      else if (key == "dtype")
        known |= 2, t.dtype = text(key);
      else if (key == "scheme")
        known |= 4, t.scheme = text(key);
      else if (key == "shape")
        known |= 8, list(key, [&] { t.shape.push_back(count("shape")); });
      else if (key == "bytes")
        t.bytes = count(key);
      else if (key == "min")
        figures |= 1, e.min = number(key);
      else if (key == "max")
        figures |= 2, e.max = number(key);
      else if (key == "absmax")
        figures |= 4, e.absmax = number(key);
      else if (key == "rms")
        figures |= 8, e.rms = number(key);
      else if (key == "zeros")
        counts |= 1, t.zeros = count(key);
      else if (key == "nan")
        counts |= 2, t.nan = count(key);
      else if (key == "inf")
        counts |= 4, t.inf = count(key);
      else if (key == "sha256")
        list(key, [&] { t.sha256.push_back(digest()); });
      else
        return false;
      return true;
    });
    if (known != 15) throw fault("needs name, dtype, shape and scheme");
    if (figures != 0 && figures != 15)
      throw fault("needs all of min, max, absmax and rms, or none");
    if (counts != 0 && counts != 7) throw fault("needs all of zeros, nan and inf, or none");
    if (figures != 0) t.envelope = checked(e);
    t.counted = counts != 0;
    tensor_.clear();
    return t;
  }
  Envelope checked(const Envelope& e) const {
    if (e.min > e.max) throw fault(fmt::format("min {} is above max {}", e.min, e.max));
    if (e.absmax < 0 || e.rms < 0) throw fault("absmax or rms is negative");
    return e;
  }
  std::string name_from_hex(std::string_view hex) const {
    if (auto name = from_hex(hex)) return *name;
    throw fault("name_hex is no list of bytes in hex");
  }
  std::string digest() {
    const std::string hex = text("sha256");
    if (const auto d = parse_sha256(hex)) return d->hex();
    throw fault(fmt::format("{} is no SHA-256", quoted(hex)));
  }

  // People edit and merge locks: the order is put right, two lines of one name are not.
  void sort(Lock& lock) const {
    std::ranges::sort(lock.tensors, lock_less);
    const auto twice = std::ranges::adjacent_find(lock.tensors, {}, &LockedTensor::name);
    if (twice != lock.tensors.end())
      throw fault(fmt::format("tensor {} is there twice", quoted(twice->name)));
  }

  const std::string& path_;
  JsonReader json_;
  std::string tensor_;  // whose members are being read
};

}  // namespace

std::string lock_text(const Lock& lock) {
  std::string text;
  {
    JsonWriter w([&text](std::string_view s) { text += s; });
    w.begin_object();
    w.member("schema", kSchema);
    w.member("envelope_tolerance", lock.tolerance);
    w.key("tensors");
    w.begin_array();
    for (const LockedTensor& t : lock.tensors) write_tensor(w, t);
    w.end_array();
    w.end_object();
  }
  text.insert(text.size() - 3,
              "\n");  // "]}" on a line of its own: the last tensor is like any other
  return text;
}

Lock read_lock(const std::string& path) {
  const SourcePtr source = open_file(path);
  if (source->size() > kMostBytes)
    throw Error(Fault::BadFile, fmt::format("{} bytes are too many for a lock (at most {})",
                                            source->size(), kMostBytes))
        .in(path);
  Buffer bytes = read_all({source, 0, source->size()});
  try {
    return Reader(path, {reinterpret_cast<char*>(bytes.data()), bytes.size()}).read();
  } catch (JsonFault& e) {
    throw Error(Fault::BadFile, e.text()).in(path);
  }
}

}  // namespace wtool
