// Which files an output has, what they are called and what each holds.
#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "cli/rewrite.h"
#include "formats/hf/model_card.h"
#include "lib/base/error.h"
#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/numeric/mix.h"

namespace wtool {
namespace {

std::string name_without(std::string_view name, std::string_view suffix) {
  if (name.ends_with(suffix)) name.remove_suffix(suffix.size());
  return std::string(name);
}

// What the files of the output are called before "-00001-of-00003": as in the input.
std::string stem_of(const Model& model, const Format& format) {
  if (!model.index_name.empty()) return name_without(model.index_name, ".safetensors.index.json");
  // Engines look for "model.safetensors" in a folder; GGUF files keep the name they are known by.
  if (format.one_tensor || model.catalog.sources().empty() || model.catalog.format == "npy" ||
      (format.name == "safetensors" && !model.is_folder))
    return "model";
  std::string name = model.catalog.sources()[0]->name();
  name = name.substr(name.rfind('/') + 1);
  name.resize(std::min(name.rfind('.'), name.size()));
  // "-00001-of-00003"
  const auto digits = [&](std::size_t at, std::size_t n) {
    return name.find_first_not_of("0123456789", at) >= at + n;
  };
  if (name.size() > 15 && name[name.size() - 15] == '-' && digits(name.size() - 14, 5) &&
      name.compare(name.size() - 9, 4, "-of-") == 0 && digits(name.size() - 5, 5))
    name.resize(name.size() - 15);
  return name.empty() || name == "-" ? "model" : name;
}

std::string upper_case(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return out;
}

// As the reference names a file in a folder: "Llama-3.2-1B-BF16".
std::string stem_of_view(const Job& job) {
  std::string type;
  if (const auto number = job.meta.count("general.file_type"))
    for (const Mix& m : all_mixes())
      if (m.file_type == *number) type = upper_case(m.name);
  return name_without(default_file_name(job.meta, type), ".gguf");
}

// --- Names and files ---------------------------------------------------------------------------

// Every collision at once, with the tensors that meet there.
void check_names(const Job& job, const RewriteOptions& o, const std::vector<OutTensor>& outputs) {
  std::unordered_map<std::string_view, std::string_view> seen;  // the output's name and its source
  std::vector<std::string> met;
  std::size_t at = 0;
  for (const Fate& f : job.fates)
    for (std::size_t i = 0; i < f.outputs; ++i) {
      const std::string& name = outputs[at++].name;
      const auto [other, fresh] = seen.emplace(name, f.source);
      if (!fresh)
        met.push_back(fmt::format("{} and {} would both be named {}", quoted(other->second),
                                  quoted(f.source), quoted(name)));
    }
  if (!met.empty()) {
    constexpr std::size_t kShown = 20;
    throw Error(Fault::Usage, "tensors " + first_few(met, kShown, "; "))
        .in(job.to.path)
        .hint("--rename rules may not make names collide");
  }
  const auto unused = job.rename->unused();
  if (!unused.empty() && !o.select.allow_unmatched)
    throw Error(Fault::Usage, fmt::format("{} changes no name", quoted(unused[0])))
        .in("--rename")
        .hint("'wtool inspect --list' shows the names; --allow-unmatched goes on all the same");
}

struct Cut {
  std::vector<std::size_t> counts;  // outputs in each file
};

// A header's share of a tensor, generously: so that shards stay below the size asked for.
std::uint64_t weight_of(const OutTensor& t) {
  return t.bytes() + t.name.size() * 2 + 256;
}

Cut cut_by_size(const Job& job, std::span<const OutTensor> outputs, std::uint64_t limit) {
  Cut cut;
  std::uint64_t room = 0;
  std::size_t at = 0;
  for (const Fate& f : job.fates) {  // what belongs together stays in one file
    std::uint64_t need = 0;
    for (std::size_t i = 0; i < f.outputs; ++i) need += weight_of(outputs[at + i]);
    at += f.outputs;
    if (cut.counts.empty() || need > room) {
      cut.counts.push_back(0);
      room = limit;
    }
    cut.counts.back() += f.outputs;
    room -= std::min(room, need);
  }
  return cut;
}

Cut cut_as_input(const Job& job) {
  Cut cut;
  std::optional<std::uint32_t> last;
  for (const Fate& f : job.fates) {
    if (last != f.input_file) cut.counts.push_back(0);
    last = f.input_file;
    cut.counts.back() += f.outputs;
  }
  return cut;
}

// What belongs together stays in one file, so one may be larger than was asked for: that is said.
void remark_large_shards(Job& job, std::uint64_t limit, std::span<const OutTensor> outputs) {
  constexpr std::size_t kNamed = 5;
  std::string names;
  std::size_t count = 0, at = 0;
  for (const Fate& f : job.fates) {
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < f.outputs; ++i) bytes += outputs[at + i].bytes();
    at += f.outputs;
    if (bytes <= limit) continue;
    if (count++ < kNamed)
      names += fmt::format("{}{} ({} bytes)", names.empty() ? "" : ", ", quoted(f.name), bytes);
  }
  if (count > kNamed) names += fmt::format(" and {} more", count - kNamed);
  if (count > 0)
    job.remarks.push_back(fmt::format(
        "files larger than --shard-size ({} bytes), for one tensor each: {}", limit, names));
}

Cut cut_files(Job& job, const RewriteOptions& o, std::span<const OutTensor> outputs) {
  const std::size_t all = outputs.size();
  const bool folder = job.to.kind == OutputSet::Kind::Folder;
  if (job.to.format->one_tensor) {
    if (all == 0)
      throw Error(Fault::Usage, fmt::format("a file of {} is a tensor, but there is none to write",
                                            job.to.format->name))
          .in(job.to.path)
          .hint("--to safetensors and --to gguf keep metadata alone, too");
    if (folder) return {std::vector<std::size_t>(all, 1)};
    if (all != 1)
      throw Error(Fault::Usage, fmt::format("an NPY file holds one tensor, but there are {}", all))
          .in(job.to.path)
          .hint("write to a folder (-o NAME/), or pick one with -t");
    return {{1}};
  }
  if (!o.shard_size.empty() && o.single)
    throw Error(Fault::Usage, "--shard-size and --single contradict each other");
  if (!o.shard_size.empty()) {
    const auto limit = parse_size(o.shard_size);
    if (!limit || *limit == 0)
      throw Error(Fault::Usage, fmt::format("--shard-size {} is no size", quoted(o.shard_size)))
          .hint("such as 5GB (decimal) or 5GiB (binary)");
    if (!folder) throw Error(Fault::Usage, "shards need a folder").in(job.to.path).hint("-o NAME/");
    if (!job.to.format->shard_name)
      throw Error(Fault::Usage, fmt::format("{} cannot be split", job.to.format->name));
    remark_large_shards(job, *limit, outputs);
    Cut cut = cut_by_size(job, outputs, *limit);
    if (cut.counts.empty()) cut.counts.push_back(0);
    return cut;
  }
  if (folder && !o.single && !job.view && job.to.format->shard_name &&
      job.model->catalog.sources().size() > 1 && job.model->catalog.format != "npy") {
    Cut cut = cut_as_input(job);
    if (cut.counts.size() > 1) return cut;
  }
  return {{all}};
}

// A file name made of a tensor name may not lead anywhere else.
std::string file_name_for(const std::string& tensor, const Format& format) {
  if (const auto why = unsafe_path(tensor))
    throw Error(Fault::Usage, fmt::format("cannot be a file name: {}", *why))
        .in(fmt::format("tensor {}", quoted(tensor)))
        .hint("--rename gives it another name");
  return tensor + std::string(format.suffixes[0]);
}

void set_files(Job& job, const RewriteOptions& o, const std::vector<OutTensor>& outputs) {
  const Format& format = *job.to.format;
  const Cut cut = cut_files(job, o, outputs);
  const std::string stem = !job.view               ? stem_of(*job.model, format)
                           : format.name == "gguf" ? stem_of_view(job)
                                                   : "model";
  const std::size_t n = cut.counts.size();
  std::size_t at = 0;
  for (std::size_t i = 0; i < n; ++i) {
    OutFile file{.name = "", .format = &format, .meta = {}, .tensors = cut.counts[i]};
    if (job.to.kind != OutputSet::Kind::Folder)
      file.name = job.to.path;
    else if (format.one_tensor)
      file.name = file_name_for(outputs[at].name, format);
    else
      file.name = n > 1 ? format.shard_name(stem, i, n) : stem + std::string(format.suffixes[0]);
    if (!format.one_tensor)
      file.meta =
          n > 1 && format.shard_meta ? format.shard_meta(job.meta, i, n, outputs.size()) : job.meta;
    at += cut.counts[i];
    job.plan.files.push_back(std::move(file));
  }
  if (n > 1 && format.index)
    if (auto index = format.index(stem, job.plan.files, outputs))
      job.side.push_back(std::move(*index));
  if (format.one_tensor && !job.meta.empty()) {
    if (job.to.kind != OutputSet::Kind::Folder)
      throw Error(Fault::Usage,
                  fmt::format("an NPY file has no place for {} metadata keys (first {})",
                              job.meta.size(), quoted(job.meta.begin()->key)))
          .in(job.to.path)
          .hint("write to a folder (-o NAME/), or --drop-metadata");
    job.side.push_back(metadata_file(job.meta));
    job.remarks.push_back(
        fmt::format("metadata: {} keys kept in {}", job.meta.size(), kMetadataFile));
  }
}

void set_endian(Job& job, const RewriteOptions& o) {
  std::string endian = o.endian;
  if (!endian.empty() && endian != "little" && endian != "big")
    throw Error(Fault::Usage, fmt::format("unknown byte order {}", quoted(endian)))
        .hint("little or big");
  const auto entries = job.model->catalog.entries();
  if (endian.empty() && job.to.format->name == job.model->catalog.format && !entries.empty() &&
      std::ranges::all_of(entries, &TensorEntry::big_endian))
    endian = "big";  // a copy keeps what it was
  if (endian != "big") return;
  if (job.to.format->name == "safetensors")
    throw Error(Fault::Usage, "safetensors files are always little-endian").in(job.to.path);
  for (const auto& s : job.plan.steps) s->set_big_endian();
}

// Long names are the refusal with a way out of its own.
Placement place_or_advise(const Job& job) {
  constexpr std::size_t kGgufName = 63;
  try {
    return place(job.plan);
  } catch (Error& e) {
    const bool long_name =
        job.to.format->name == "gguf" &&
        std::ranges::any_of(job.fates, [](const Fate& f) { return f.name.size() > kGgufName; });
    throw long_name ? e.hint("--rename 'A=B' shortens names") : e;
  }
}

}  // namespace

Placement lay_out(Job& job, const RewriteOptions& o) {
  set_endian(job, o);
  const std::vector<OutTensor> outputs = outputs_of(job.plan);
  check_names(job, o, outputs);
  set_files(job, o, outputs);
  job.plan.side = job.side;
  return place_or_advise(job);
}

}  // namespace wtool
