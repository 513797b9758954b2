#include "lib/trust/manifest.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include <fmt/format.h>

#include "lib/base/hex.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"
#include "lib/model/model.h"
#include "lib/trust/json_object.h"

namespace wtool {
namespace {

constexpr std::string_view kSchema = "wtool.manifest/1";
constexpr std::uint32_t kNone = ~std::uint32_t{0};

Error bad(std::string text) {
  return Error(Fault::BadFile, std::move(text));
}

// A name that is not UTF-8 stands beside it in hexadecimal.
struct Name {
  std::string text, hex;

  std::string take(std::string_view what) && {
    if (hex.empty()) return std::move(text);
    if (auto bytes = from_hex(hex)) return *std::move(bytes);
    throw bad(fmt::format("{}: its name is not hexadecimal", what));
  }
};

// Each tensor's model, by its file; kNone if it is in none.
std::vector<std::uint32_t> model_of_files(const Manifest& m) {
  std::vector<std::uint32_t> out(m.files.size(), kNone);
  for (std::uint32_t i = 0; i < m.models.size(); ++i)
    for (const std::uint32_t f : m.models[i].files) {
      if (out[f] != kNone)
        throw bad(fmt::format("file {} belongs to two models", quoted(m.files[f].name)));
      out[f] = i;
    }
  return out;
}

struct Computed {
  std::uint64_t tensors = 0;
  Sha256 root;
};
// What the listed tensors say of each model.
std::vector<Computed> computed(const Manifest& m) {
  const std::vector<std::uint32_t> model_of = model_of_files(m);
  std::vector<std::vector<ContentTensor>> all(m.models.size());
  for (const ManifestTensor& t : m.tensors) {
    const std::uint32_t model = model_of[t.file];
    if (model == kNone)
      throw bad(fmt::format("tensor {}: its file is in no model", quoted(t.name)));
    all[model].push_back({t.name, t.dtype, t.shape, t.content.value_or(t.stored)});
  }
  std::vector<Computed> out;
  for (const auto& tensors : all) out.push_back({tensors.size(), content_root(tensors)});
  return out;
}

class Parser {
 public:
  explicit Parser(std::string text) : text_(std::move(text)), reader_(text_) {}

  Manifest run() {
    std::string schema;
    read_object(reader_, "the manifest",
                {{"schema", true, [&] { schema = read_schema(); }},
                 {"files", true, [&] { read_list(reader_, "'files'", [&] { file(); }); }},
                 {"tensors", false, [&] { read_list(reader_, "'tensors'", [&] { tensor(); }); }},
                 {"models", false, [&] { read_list(reader_, "'models'", [&] { model(); }); }}},
                pass_over_);
    reader_.finish();
    resolve();
    check();
    return std::move(out_);
  }

 private:
  std::string read_schema() {
    std::string schema = read_text(reader_, "'schema'");
    if (schema != kSchema)
      throw Error(Fault::Unsupported,
                  fmt::format("schema {} is not '{}'", quoted(schema), kSchema));
    return schema;
  }

  void file() {
    Name name;
    ManifestFile f;
    read_object(reader_, "a file",
                {{"file", true, [&] { name.text = read_text(reader_, "'file'"); }},
                 {"file_hex", false, [&] { name.hex = read_text(reader_, "'file_hex'"); }},
                 {"bytes", true, [&] { f.bytes = number("'bytes'"); }},
                 {"sha256", true, [&] { f.digest = digest("'sha256'"); }}},
                pass_over_);
    f.name = std::move(name).take("a file");
    if (const auto why = unsafe_path(f.name))
      throw bad(fmt::format("file {}: {}", quoted(f.name), *why));
    out_.files.push_back(std::move(f));
  }

  void tensor() {
    Name name, file;
    ManifestTensor t;
    std::optional<std::uint64_t> bytes;
    read_object(reader_, "a tensor",
                {{"name", true, [&] { name.text = read_text(reader_, "'name'"); }},
                 {"name_hex", false, [&] { name.hex = read_text(reader_, "'name_hex'"); }},
                 {"dtype", true, [&] { t.dtype = read_text(reader_, "'dtype'"); }},
                 {"shape", true,
                  [&] {
                    read_list(reader_, "'shape'",
                              [&] { t.shape.push_back(number("a dimension")); });
                  }},
                 {"bytes", false, [&] { bytes = number("'bytes'"); }},
                 {"file", true, [&] { file.text = read_text(reader_, "'file'"); }},
                 {"file_hex", false, [&] { file.hex = read_text(reader_, "'file_hex'"); }},
                 {"sha256", true, [&] { t.stored = digest("'sha256'"); }},
                 {"content_sha256", false, [&] { t.content = digest("'content_sha256'"); }}},
                pass_over_);
    t.name = std::move(name).take("a tensor");
    t.bytes = size_of(t, bytes);
    files_of_tensors_.push_back(std::move(file).take(t.name));
    out_.tensors.push_back(std::move(t));
  }

  // What dtype and shape make it; of a dtype that a later version of wtool knows, what is said.
  static std::uint64_t size_of(const ManifestTensor& t, std::optional<std::uint64_t> said) {
    const auto known = std::ranges::find(all_dtypes(), t.dtype, &DTypeInfo::name);
    if (known == all_dtypes().end()) return said.value_or(0);
    const auto elements = element_count(t.shape);
    const auto size = elements ? byte_size(known->id, *elements) : std::nullopt;
    if (!size)
      throw bad(fmt::format("tensor {}: {} {} has no size in bytes", quoted(t.name), t.dtype,
                            to_text(t.shape)));
    if (said && *said != *size)
      throw bad(fmt::format("tensor {}: {} {} needs {} bytes but {} are listed", quoted(t.name),
                            t.dtype, to_text(t.shape), *size, *said));
    return *size;
  }

  void model() {
    Name name;
    ManifestModel m;
    auto& files = files_of_models_.emplace_back();
    read_object(
        reader_, "a model",
        {{"model", true, [&] { name.text = read_text(reader_, "'model'"); }},
         {"model_hex", false, [&] { name.hex = read_text(reader_, "'model_hex'"); }},
         {"files", true, [&] { read_list(reader_, "'files'", [&] { files.push_back(item()); }); }},
         {"tensors", true, [&] { m.tensors = number("'tensors'"); }},
         {"content", true, [&] { m.content = content(); }},
         {"metadata_sha256", true, [&] { m.metadata = digest("'metadata_sha256'"); }}},
        pass_over_);
    m.name = std::move(name).take("a model");
    if (m.name != ".")
      if (const auto why = unsafe_path(m.name))
        throw bad(fmt::format("model {}: {}", quoted(m.name), *why));
    out_.models.push_back(std::move(m));
  }

  // {"file": NAME}
  std::string item() {
    Name name;
    read_object(reader_, "a file of a model",
                {{"file", true, [&] { name.text = read_text(reader_, "'file'"); }},
                 {"file_hex", false, [&] { name.hex = read_text(reader_, "'file_hex'"); }}},
                pass_over_);
    return std::move(name).take("a file of a model");
  }

  std::uint64_t number(std::string_view what) {
    std::uint64_t out = 0;
    if (reader_.peek() != JsonReader::Kind::Number || !reader_.unsigned_integer(out))
      throw bad(fmt::format("{} is no whole number below 2^64", what));
    return out;
  }
  Sha256 digest(std::string_view what) {
    const auto d = parse_sha256(read_text(reader_, what));
    if (!d) throw bad(fmt::format("{} is no digest of 64 hexadecimal digits", what));
    return *d;
  }
  Sha256 content() {
    const std::string text = read_text(reader_, "'content'");
    const auto d = text.starts_with(kContentPrefix) ? parse_content(text) : std::nullopt;
    if (!d) throw bad(fmt::format("{} is no content digest", quoted(text)));
    return *d;
  }

  // Names of files become indices.
  void resolve() {
    std::unordered_map<std::string_view, std::uint32_t, TextHash> index;
    for (std::uint32_t i = 0; i < out_.files.size(); ++i)
      if (!index.emplace(out_.files[i].name, i).second)
        throw bad(fmt::format("file {} is listed twice", quoted(out_.files[i].name)));
    const auto file = [&](const std::string& name, std::string_view of) {
      const auto it = index.find(name);
      if (it == index.end())
        throw bad(fmt::format("{}: its file {} is not listed", quoted(of), quoted(name)));
      return it->second;
    };
    for (std::size_t i = 0; i < out_.tensors.size(); ++i)
      out_.tensors[i].file = file(files_of_tensors_[i], out_.tensors[i].name);
    for (std::size_t i = 0; i < out_.models.size(); ++i)
      for (const std::string& name : files_of_models_[i])
        out_.models[i].files.push_back(file(name, out_.models[i].name));
  }

  void check() {
    check_twice();
    if (out_.models.empty()) return;
    for (ManifestTensor& t : out_.tensors)
      if (!t.content) t.content = t.stored;
    const std::vector<Computed> found = computed(out_);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const ManifestModel& m = out_.models[i];
      if (m.tensors != found[i].tensors)
        throw bad(fmt::format("model {} has {} tensors, but {} are listed", quoted(m.name),
                              m.tensors, found[i].tensors));
      if (m.content != found[i].root)
        throw bad(fmt::format("model {}: its content is {}, but that of the tensors listed is {}",
                              quoted(m.name), content_text(m.content),
                              content_text(found[i].root)));
    }
  }

  // A tensor listed twice in a file, or in a model.
  void check_twice() const {
    std::vector<std::uint32_t> group = model_of_files(out_);
    for (std::uint32_t f = 0; f < group.size(); ++f)
      if (group[f] == kNone) group[f] = static_cast<std::uint32_t>(out_.models.size()) + f;
    std::vector<std::uint32_t> order(out_.tensors.size());
    std::iota(order.begin(), order.end(), 0u);
    const auto key = [&](std::uint32_t i) {
      return std::pair(group[out_.tensors[i].file], std::string_view(out_.tensors[i].name));
    };
    std::ranges::sort(order, {}, key);
    const auto twice = std::ranges::adjacent_find(order, {}, key);
    if (twice != order.end())
      throw bad(
          fmt::format("the manifest lists tensor {} twice", quoted(out_.tensors[*twice].name)));
  }

  const std::function<void(std::string_view)> pass_over_ = [](std::string_view) {};
  std::string text_;
  JsonReader reader_;
  Manifest out_;
  std::vector<std::string> files_of_tensors_;
  std::vector<std::vector<std::string>> files_of_models_;
};

}  // namespace

void seal(Manifest& m) {
  std::vector<std::uint32_t> order(m.files.size()), place(m.files.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, {}, [&](std::uint32_t i) { return std::string_view(m.files[i].name); });
  std::vector<ManifestFile> files;
  for (const std::uint32_t i : order) {
    if (!files.empty() && files.back().name == m.files[i].name)
      throw Error(Fault::Usage, "is given twice").in(m.files[i].name);
    place[i] = static_cast<std::uint32_t>(files.size());
    files.push_back(std::move(m.files[i]));
  }
  m.files = std::move(files);
  for (ManifestTensor& t : m.tensors) t.file = place[t.file];
  for (ManifestModel& model : m.models) {
    for (std::uint32_t& f : model.files) f = place[f];
    std::ranges::sort(model.files);
  }
  std::ranges::sort(m.models, {}, &ManifestModel::name);
  std::ranges::sort(m.tensors, {}, [](const ManifestTensor& t) {
    return std::pair(std::string_view(t.name), t.file);
  });
  const std::vector<Computed> found = computed(m);
  for (std::size_t i = 0; i < found.size(); ++i) {
    m.models[i].tensors = found[i].tensors;
    m.models[i].content = found[i].root;
  }
}

Manifest parse_manifest(std::string text) {
  return Parser(std::move(text)).run();
}

}  // namespace wtool
