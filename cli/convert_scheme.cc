#include "cli/convert_scheme.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/repack.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/policy.h"

namespace wtool {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kWeight = ".weight", kConfigKey = "quantization_config";

std::string module_name(std::string_view weight) {
  if (weight.ends_with(kWeight)) weight.remove_suffix(kWeight.size());
  return std::string(weight);
}

// What cannot be done, each reason once with the tensors it is about.
class Refusals {
 public:
  void add(std::string_view tensor, const std::string& why) {
    auto it = std::ranges::find(reasons_, why, &Reason::why);
    if (it == reasons_.end()) it = reasons_.insert(reasons_.end(), {why, {}});
    it->tensors.push_back(quoted(tensor));
  }
  void settle(std::string_view scheme, const std::string& where) const {
    if (reasons_.empty()) return;
    std::string text;
    for (const Reason& r : reasons_)
      text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", fmt::join(r.tensors, ", "), r.why);
    throw Error(Fault::Usage, fmt::format("cannot be {}: {}", scheme, text))
        .in(where)
        .hint("--scheme plain decodes them, and 'wtool quantize' starts again");
  }

 private:
  struct Reason {
    std::string why;
    std::vector<std::string> tensors;
  };
  std::vector<Reason> reasons_;
};

// Tensors that share an entry of the config.
struct Alike {
  unsigned bits;
  std::uint64_t group;  // 0: the whole row
  bool act_order;
  auto operator<=>(const Alike&) const = default;
};

class Repacker {
 public:
  Repacker(Job& job, const Scheme& to)
      : job_(job), model_(*job.model), scheme_(to), to_(*repacking_to(to.name)) {}

  std::string run() {
    find();
    look_at_zero_points();
    for (const TensorEntry& entry : model_.catalog.entries()) {
      const std::uint32_t i = job_.owner[model_.catalog.index_of(entry)];
      if (!job_.chosen[i]) continue;
      const LogicalTensor& t = model_.tensors[i];
      if (!weights_[i])
        copy(t, entry);
      else if (&model_.part(t, 0) == &entry)
        repack(t, weights_[i]);
    }
    return config();
  }

 private:
  void find() {
    weights_.resize(model_.tensors.size());
    std::size_t found = 0;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const LogicalTensor& t = model_.tensors[i];
      if (!job_.chosen[i] || !t.scheme) continue;
      if (t.scheme->integers) weights_[i] = t.scheme->integers(model_, t);
      if (weights_[i]) {
        ++found;
        if (const auto why = refuses_integers(to_, *weights_[i])) refused_.add(t.name, *why);
        if (weights_[i]->integers().groups > 1) sizes_.insert(weights_[i]->integers().group());
      } else if (t.scheme->recognise) {
        refused_.add(t.name, fmt::format("it is {} of {}, not integers with a scale for each group",
                                         name_of(model_.part(t, 0).dtype), t.scheme->name));
      }
    }
    refused_.settle(scheme_.name, model_.path);
    if (found == 0)
      throw Error(Fault::Usage, "nothing to repack: no tensor is stored as integers with scales")
          .in(model_.path)
          .hint(fmt::format("'wtool quantize --scheme {}' quantizes", scheme_.name));
  }

  // Either all are symmetric or all have zero points: engines fuse tensors, which then must agree.
  void look_at_zero_points() {
    std::vector<ZeroPoints> zeros(weights_.size());
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      if (!weights_[i]) continue;
      const unsigned bits = weights_[i]->integers().bits;
      zeros[i] = zero_points_of(*weights_[i]);
      asymmetric_ |= !zeros[i].all_are(1u << (bits - 1));
      if (zeros[i].most >= 1u << bits)
        refused_.add(model_.tensors[i].name,
                     fmt::format("a zero point of {} is beyond {} bits", zeros[i].most, bits));
    }
    for (std::size_t i = 0; asymmetric_ && i < weights_.size(); ++i) {
      if (!weights_[i]) continue;
      IntegerShape shape = weights_[i]->integers();
      shape.zero_points = true;
      if (const auto why = to_.refuses(shape)) refused_.add(model_.tensors[i].name, *why);
    }
    refused_.settle(scheme_.name, model_.path);
  }

  void copy(const LogicalTensor& t, const TensorEntry& entry) {
    add_copy(job_, entry);
    if (t.count > 1 || t.shape.size() != 2 || !t.name.ends_with(kWeight)) return;
    const auto why = keep_reason(t.name, t.dtype, t.shape, NameStyle::HuggingFace);
    if (why != "embedding" && why != "norm") kept_.push_back(module_name((*job_.rename)(t.name)));
  }

  void repack(const LogicalTensor& t, const IntegerWeightPtr& weight) {
    const std::string name = (*job_.rename)(t.name);
    const IntegerShape& s = weight->integers();
    // A row of one group may be a group of the size that others have.
    const Alike alike{s.bits, s.groups > 1 || sizes_.contains(s.cols) ? s.group() : 0,
                      !weight->group_index().empty()};
    modules_[alike].push_back(module_name(name));
    const std::size_t before = job_.plan.steps.size();
    job_.plan.steps.push_back(repack_step(to_, name, weight, asymmetric_));
    add_encoded(job_, t, before,
                fmt::format("int{}{}{}", s.bits,
                            alike.group ? fmt::format(" g{}", alike.group) : " channel",
                            asymmetric_ ? " asym" : ""));
  }

  // The most common first: some schemes make it the model's own.
  std::string config() const {
    std::vector<ConfigGroup> groups;
    std::vector<bool> act_order;
    std::vector<std::pair<Alike, const std::vector<std::string>*>> order;
    for (const auto& [alike, modules] : modules_) order.emplace_back(alike, &modules);
    std::ranges::stable_sort(order, std::ranges::greater{},
                             [](const auto& o) { return o.second->size(); });
    for (const auto& [alike, modules] : order) {
      SchemeOptions options{.bits = alike.bits, .group = alike.group, .asymmetric = asymmetric_};
      groups.push_back({options, *modules});
      act_order.push_back(alike.act_order);
    }
    const std::string text = scheme_.config(groups, kept_);
    return std::ranges::count(act_order, true) > 0 ? with_act_order(text, act_order) : text;
  }
  static std::string with_act_order(const std::string& text, const std::vector<bool>& act_order) {
    Json config = Json::parse(text);
    if (config.contains("desc_act")) config["desc_act"] = true;
    if (auto groups = config.find("config_groups"); groups != config.end())
      for (std::size_t i = 0; i < act_order.size(); ++i)
        if (act_order[i]) (*groups)[fmt::format("group_{}", i)]["weights"]["actorder"] = "group";
    return config.dump();
  }

  Job& job_;
  const Model& model_;
  const Scheme& scheme_;
  const Repacking& to_;
  std::vector<IntegerWeightPtr> weights_;  // of each logical tensor; null: copied
  std::set<std::uint64_t> sizes_;          // of groups
  bool asymmetric_ = false;
  std::map<Alike, std::vector<std::string>> modules_;
  std::vector<std::string> kept_;
  Refusals refused_;
};

// What the old config asks of engines beside the weights, which the new one does not.
void remark_dropped(Job& job) {
  std::string text = quantization_config_of(*job.model);
  if (text.empty()) text = job.model->catalog.meta.text(kConfigKey);
  const Json config = Json::parse(text, nullptr, false);
  if (!config.is_object()) return;
  const auto asks = [](const Json& of, const char* key) {
    return of.is_object() && of.contains(key) && !of[key].is_null();
  };
  bool activations = false;
  if (asks(config, "config_groups"))
    for (const Json& group : config["config_groups"])
      activations |= asks(group, "input_activations");
  if (activations)
    job.remarks.push_back(
        "quantized activations, which the input's config asks for, are not asked "
        "for any more");
  if (asks(config, "kv_cache_scheme"))
    job.remarks.push_back("kv_cache_scheme of the input's config is not carried over");
}

}  // namespace

std::string add_repacked(Job& job, const Scheme& to) {
  if (job.to.format->name != "safetensors")
    throw Error(Fault::Usage, fmt::format("{} has no form for {}", job.to.format->name, to.name))
        .in(job.to.path)
        .hint("--to safetensors");
  if (!repacking_to(to.name))
    throw Error(Fault::Usage,
                fmt::format("the integers of other schemes cannot become {}", to.name))
        .in("--scheme")
        .hint("compressed-tensors, gptq, awq or plain");
  std::string config = Repacker(job, to).run();
  drop_stale_configs(job);
  remark_dropped(job);
  job.meta.erase(kConfigKey);
  if (set_in_config(job, std::string(kConfigKey), config)) {
    job.remarks.push_back(
        fmt::format("config.json: quantization_config is that of {} now", to.name));
    return config;
  }
  job.meta.set(std::string(kConfigKey), config);
  if (job.to.kind == OutputSet::Kind::Folder)
    job.remarks.push_back(
        "there is no config.json, where engines look for quantization_config: it is in the files' "
        "metadata");
  return config;
}

DType plain_dtype(const Model& model) {
  const SideFile* file = model.side_file("config.json");
  if (!file) return DType::BF16;
  const Json config = read_config(*file);
  for (const char* key : {"dtype", "torch_dtype"})
    if (config.contains(key) && config[key].is_string()) {
      const auto type = parse_dtype(config[key].get<std::string>());
      if (type == DType::F16 || type == DType::BF16 || type == DType::F32) return *type;
    }
  return DType::BF16;
}

void drop_stale_configs(Job& job) {
  static constexpr std::array<std::string_view, 3> kStale{
      "quantize_config.json", "quant_config.json", "hf_quant_config.json"};
  for (const std::string_view name : kStale)
    if (std::erase_if(job.side, [&](const SideFile& s) { return s.name == name; }) > 0)
      job.remarks.push_back(
          fmt::format("not copied: {}, which says how the input was quantized", name));
}

}  // namespace wtool
