#pragma once
// What a GGUF file says of a model in general: where it comes from and what it is called, taken
// from a Hugging Face folder. Keys, types and order as llama.cpp's converter writes them.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "lib/model/model.h"

namespace wtool {

struct CardFacts {
  std::string_view architecture;  // general.architecture
  std::uint64_t parameters = 0;   // elements of all tensors written, experts and all
  std::uint64_t shared_parameters =
      0;  // of those that are not stacks of experts (three dimensions)
  std::uint64_t expert_parameters = 0;  // of the stacks, each divided by its number of experts
  std::uint64_t experts = 0;            // in a stack, on average; 0: there are none
};

// general.architecture, .type, .sampling.* (generation_config.json), then name, author, …, license,
// source, base models, data sets, tags and languages: of README.md's front matter, else of config's
// `_name_or_path`, else of the folder's name; and the size label. A model card never stops a
// conversion: what is not understood is left out and goes to `notes`.
void add_general(const Model& model, const nlohmann::json& config, const CardFacts& facts,
                 Metadata& meta, std::vector<std::string>& notes);
// The same for a folder called `id`, or a repository's id ("org/name").
void add_general_as(std::string_view id, const Model& model, const nlohmann::json& config,
                    const CardFacts& facts, Metadata& meta, std::vector<std::string>& notes);

// By what a folder is known: its own name; of a snapshot in the Hugging Face cache
// ("…/models--org--name/snapshots/0123abcd") the repository's id, "org/name".
std::string id_of_folder(const std::string& path);

// "Qwen2-Tiny-82K-BF16.gguf" of what `meta` says and the type of most tensors.
std::string default_file_name(const Metadata& meta, std::string_view type_label);

// Two digits or more and K, M, B or T: "82K", "1.2B", "7B".
std::string size_label(std::uint64_t parameters);

}  // namespace wtool
