// What llama.cpp's own library (libllama.so, loaded by path) makes of a GGUF file.
//
//   ggml_quantize_model LIBRARY-FOLDER types FILE OUT FTYPE [pure] [leave-output] [imatrix]
//       prints the type that llama_model_quantize would give to each tensor: "name type"
//   ggml_quantize_model LIBRARY-FOLDER write FILE OUT FTYPE [pure] [leave-output] [requantize]
//                       [importance MATRIX]
//       writes OUT; MATRIX is an importance matrix in its .dat form
//   ggml_quantize_model LIBRARY-FOLDER load FILE
//       loads all of it and checks its blocks
//   ggml_quantize_model LIBRARY-FOLDER predict FILE TEXT
//       prints "tokens N …" of the text, "special BOS EOS ADDS-BOS", and "next" with the
//       probability of each token that may follow
//   ggml_quantize_model LIBRARY-FOLDER embed FILE TEXT
//       prints "tokens N …" of the text, and of each "state" with what an encoder makes of it
//
// Exit status: 0 done, 1 the library refuses, 77 a library of another release.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <dlfcn.h>

namespace {

// As llama.h of release v0.5.0 declares them. Their default values are looked at before use.
struct QuantizeParams {
  std::int32_t threads, file_type, output_type, embedding_type;
  bool allow_requantize, quantize_output, only_copy, pure, keep_split, dry_run;
  const void *importance, *overrides, *tensor_types;
  const std::int32_t* prune;
  std::size_t buffer;
};
struct ModelParams {
  void* devices;
  const void* buffer_types;
  std::int32_t gpu_layers, split_mode, load_mode, lazy_mode, main_gpu;
  const float* tensor_split;
  bool (*progress)(float, void*);
  void* progress_data;
  const void* overrides;
  bool vocab_only, check_tensors, extra_buffers, no_host, no_alloc, load_mtp;
};
struct ContextParams {
  std::uint32_t context, batch, micro_batch, sequences, snapshots, outputs, sequence_outputs;
  std::int32_t threads, batch_threads;
  int type, rope_scaling, pooling, attention, flash_attention;
  float rope_base, rope_scale, yarn[4];
  std::uint32_t yarn_context;
  float defragment;
  void *evaluate, *evaluate_data;
  int key_type, value_type;
  void *abort, *abort_data;
  bool embeddings, offload_cache, no_times, offload_operations, full_window, unified;
  void* samplers;
  std::size_t sampler_count;
  void* other;
};
struct Batch {
  std::int32_t count;
  std::int32_t* tokens;
  float* embeddings;
  std::int32_t *positions, *sequence_counts, **sequences;
  std::int8_t* outputs;
};
struct Importance {
  const char* name;
  const float* data;
  std::size_t size;
};

constexpr int kDefaultFileType = 7, kTypeCount = 43, kOtherRelease = 77;

[[noreturn]] void die(int code, const std::string& text) {
  std::fprintf(stderr, "ggml_quantize_model: %s\n", text.c_str());
  std::exit(code);
}

void* open_library(const std::filesystem::path& folder, const std::string& prefix) {
  for (const auto& e : std::filesystem::directory_iterator(folder)) {
    const std::string name = e.path().filename().string();
    if (name.rfind(prefix, 0) == 0 && name.find(".so") != name.npos)
      if (void* handle = ::dlopen(e.path().c_str(), RTLD_NOW | RTLD_GLOBAL)) return handle;
  }
  die(2, "no " + prefix + " that loads in " + folder.string());
}

template <class F>
F* get(void* library, const char* name) {
  void* p = ::dlsym(library, name);
  if (!p) die(kOtherRelease, std::string("the library has no ") + name);
  return reinterpret_cast<F*>(p);
}

// A dry run tells each tensor's types in its log, in pieces:
// "[   1/  10] NAME - [ 256, 512, 1, 1], type = f16, " and "size = 1.0 MiB -> 0.5 MiB (q4_K)\n".
std::string log_line;
bool print_types = false;

std::string word_before(const std::string& line, std::size_t end) {
  const auto begin = line.rfind(' ', end - 1) + 1;
  return line.substr(begin, end - begin);
}

void read_line(const std::string& line) {
  const auto open = line.find("] "), dash = line.find(" - ["), type = line.find("type =");
  if (line.empty() || line[0] != '[' || open == line.npos || dash == line.npos || type == line.npos)
    return;
  std::string name = line.substr(open + 2, dash - open - 2);
  while (!name.empty() && name.back() == ' ') name.pop_back();
  std::string is = word_before(line, line.find(',', type));
  if (const auto to = line.find("-> "); to != line.npos) {
    const auto begin = line.find('(', to) + 1;
    is = line.substr(begin, line.find(')', begin) - begin);
  }
  for (char& c : is)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  std::printf("%s %s\n", name.c_str(), is.c_str());
}

void listen(int level, const char* text, void*) {
  if (level >= 4) std::fputs(text, stderr);  // errors
  for (; print_types && *text; ++text) {
    if (*text != '\n') {
      log_line += *text;
      continue;
    }
    read_line(log_line);
    log_line.clear();
  }
}

struct Libraries {
  void *ggml, *llama;
};
Libraries open_all(const std::filesystem::path& folder) {
  open_library(folder, "libggml-base.");
  const Libraries l{open_library(folder, "libggml."), open_library(folder, "libllama.")};
  get<void(void (*)(int, const char*, void*), void*)>(l.llama, "llama_log_set")(listen, nullptr);
  return l;
}

struct Matrix {
  std::vector<std::string> names;
  std::vector<std::vector<float>> values;

  std::vector<Importance> table() const {
    std::vector<Importance> out;
    for (std::size_t i = 0; i < names.size(); ++i)
      out.push_back({names[i].c_str(), values[i].data(), values[i].size()});
    out.push_back({nullptr, nullptr, 0});
    return out;
  }
};

// The .dat form: a count; then of each entry the name, calls, and so many sums.
Matrix read_matrix(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const auto number = [&] {
    std::int32_t n = 0;
    file.read(reinterpret_cast<char*>(&n), sizeof n);
    if (!file || n < 0) die(2, std::string("no importance matrix: ") + path);
    return n;
  };
  Matrix out;
  for (int left = number(); left > 0; --left) {
    std::string name(static_cast<std::size_t>(number()), ' ');
    file.read(name.data(), static_cast<std::streamsize>(name.size()));
    const auto calls = static_cast<float>(number());
    std::vector<float> values(static_cast<std::size_t>(number()));
    file.read(reinterpret_cast<char*>(values.data()),
              static_cast<std::streamsize>(values.size() * sizeof(float)));
    for (float& v : values) v /= calls;
    out.names.push_back(std::move(name));
    out.values.push_back(std::move(values));
  }
  return out;
}

int quantize(const Libraries& l, int argc, char** argv, bool dry_run) {
  const float one = 1;
  Matrix matrix{.names = {"no such tensor"}, .values = {{one}}};
  auto p = get<QuantizeParams()>(l.llama, "llama_model_quantize_default_params")();
  if (p.file_type != kDefaultFileType || p.output_type != kTypeCount ||
      p.embedding_type != kTypeCount || !p.quantize_output || p.pure || p.importance ||
      p.overrides || p.buffer != std::size_t{8} << 30)
    die(kOtherRelease, "the parameters are those of another release");
  p.file_type = std::atoi(argv[5]);
  p.dry_run = print_types = dry_run;
  p.threads = 2;
  bool with_importance = false;
  for (int i = 6; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "pure") p.pure = true;
    if (option == "leave-output") p.quantize_output = false;
    if (option == "requantize") p.allow_requantize = true;
    if (option == "importance" && i + 1 < argc) matrix = read_matrix(argv[++i]);
    with_importance |= option == "importance" || option == "imatrix";
  }
  const std::vector<Importance> importance = matrix.table();
  if (with_importance) p.importance = importance.data();
  using Quantize = std::uint32_t(const char*, const char*, const QuantizeParams*);
  return get<Quantize>(l.llama, "llama_model_quantize")(argv[3], argv[4], &p) == 0 ? 0 : 1;
}

void* open_model(const Libraries& l, const std::string& folder, const char* path) {
  get<void(const char*)>(l.ggml, "ggml_backend_load_all_from_path")(folder.c_str());
  get<void()>(l.llama, "llama_backend_init")();
  auto p = get<ModelParams()>(l.llama, "llama_model_default_params")();
  if (p.vocab_only || p.check_tensors || p.no_alloc || p.tensor_split || p.overrides || p.progress)
    die(kOtherRelease, "the parameters are those of another release");
  p.gpu_layers = 0;
  p.extra_buffers = false;
  p.check_tensors = true;
  return get<void*(const char*, ModelParams)>(l.llama, "llama_model_load_from_file")(path, p);
}

int load(const Libraries& l, const std::string& folder, const char* path) {
  void* model = open_model(l, folder, path);
  if (!model) return 1;
  get<void(void*)>(l.llama, "llama_model_free")(model);
  return 0;
}

std::vector<std::int32_t> tokens_of(void* llama, const void* vocabulary, const std::string& text) {
  using Tokenize =
      std::int32_t(const void*, const char*, std::int32_t, std::int32_t*, std::int32_t, bool, bool);
  const auto size = static_cast<std::int32_t>(text.size());
  std::vector<std::int32_t> out(text.size() + 8);
  const auto n = get<Tokenize>(llama, "llama_tokenize")(
      vocabulary, text.data(), size, out.data(), static_cast<std::int32_t>(out.size()), true, true);
  if (n <= 0) die(1, "the library cannot tokenize the text");
  out.resize(static_cast<std::size_t>(n));
  return out;
}

void print_probabilities(const float* logits, std::int32_t n) {
  double most = -INFINITY, sum = 0;
  for (std::int32_t i = 0; i < n; ++i) most = std::fmax(most, double{logits[i]});
  for (std::int32_t i = 0; i < n; ++i) sum += std::exp(logits[i] - most);
  std::printf("next");
  for (std::int32_t i = 0; i < n; ++i) std::printf(" %.9g", std::exp(logits[i] - most) / sum);
  std::printf("\n");
}

struct Open {
  void *model, *context;
  const void* vocabulary;
};

Open open_context(const Libraries& l, void* model, bool embeddings) {
  auto p = get<ContextParams()>(l.llama, "llama_context_default_params")();
  if (p.context != 512 || p.batch != 2048 || p.yarn[0] != -1 || p.yarn[3] != -1 ||
      p.key_type != 1 || p.value_type != 1 || p.embeddings || !p.no_times || p.samplers || p.other)
    die(kOtherRelease, "the parameters are those of another release");
  p.threads = p.batch_threads = 1;
  p.embeddings = embeddings;
  if (embeddings) p.pooling = 0;  // each token's own
  void* context = get<void*(void*, ContextParams)>(l.llama, "llama_init_from_model")(model, p);
  if (!context) die(1, "the library makes no context of the model");
  return {model, context, get<const void*(const void*)>(l.llama, "llama_model_get_vocab")(model)};
}

std::vector<std::int32_t> run(const Libraries& l, const Open& open, const char* text, bool encode) {
  std::vector<std::int32_t> tokens = tokens_of(l.llama, open.vocabulary, text);
  std::printf("tokens");
  for (const std::int32_t t : tokens) std::printf(" %d", t);
  std::printf("\n");
  const auto count = static_cast<std::int32_t>(tokens.size());
  std::vector<std::int8_t> all(tokens.size(), 1);
  Batch batch =
      get<Batch(std::int32_t*, std::int32_t)>(l.llama, "llama_batch_get_one")(tokens.data(), count);
  if (encode) batch.outputs = all.data();
  const char* how = encode ? "llama_encode" : "llama_decode";
  if (get<std::int32_t(void*, Batch)>(l.llama, how)(open.context, batch) != 0)
    die(1, "the library cannot run the model");
  return tokens;
}

int embed(const Libraries& l, const std::string& folder, const char* path, const char* text) {
  void* model = open_model(l, folder, path);
  if (!model) return 1;
  const Open open = open_context(l, model, true);
  const auto tokens = run(l, open, text, true);
  const auto width = get<std::int32_t(const void*)>(l.llama, "llama_model_n_embd")(model);
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(tokens.size()); ++i) {
    const float* x = get<const float*(void*, std::int32_t)>(l.llama, "llama_get_embeddings_ith")(
        open.context, i);
    if (!x) die(1, "the library gives no result");
    std::printf("state");
    for (std::int32_t k = 0; k < width; ++k) std::printf(" %.9g", double{x[k]});
    std::printf("\n");
  }
  get<void(void*)>(l.llama, "llama_free")(open.context);
  get<void(void*)>(l.llama, "llama_model_free")(model);
  return 0;
}

int predict(const Libraries& l, const std::string& folder, const char* path, const char* text) {
  void* model = open_model(l, folder, path);
  if (!model) return 1;
  const auto ask = [&](const char* what, const void* of) {
    return get<std::int32_t(const void*)>(l.llama, what)(of);
  };
  const Open open = open_context(l, model, false);
  run(l, open, text, false);
  const bool adds = get<bool(const void*)>(l.llama, "llama_vocab_get_add_bos")(open.vocabulary);
  std::printf("special %d %d %d\n", ask("llama_vocab_bos", open.vocabulary),
              ask("llama_vocab_eos", open.vocabulary), adds);
  const float* logits =
      get<const float*(void*, std::int32_t)>(l.llama, "llama_get_logits_ith")(open.context, -1);
  if (!logits) die(1, "the library gives no result");
  print_probabilities(logits, ask("llama_vocab_n_tokens", open.vocabulary));
  get<void(void*)>(l.llama, "llama_free")(open.context);
  get<void(void*)>(l.llama, "llama_model_free")(model);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 3 ? argv[2] : "";
  if (what == "load") return load(open_all(argv[1]), argv[1], argv[3]);
  if (what == "embed" && argc == 5) return embed(open_all(argv[1]), argv[1], argv[3], argv[4]);
  if (what == "predict" && argc == 5) return predict(open_all(argv[1]), argv[1], argv[3], argv[4]);
  if (argc < 6 || (what != "types" && what != "write"))
    die(2, "usage: ggml_quantize_model LIBRARY-FOLDER types|write|load|predict|embed FILE …");
  return quantize(open_all(argv[1]), argc, argv, what == "types");
}
