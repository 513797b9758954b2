// Makes weights that look like a small llama's, always the same bytes: for the quick start, and at
// any size for tests/bench. Values are computed when asked for, so memory does not follow the size.
#include <array>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "formats/registry.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

// Bell-shaped noise around `mean`: element i's value depends on the seed and i alone.
class Noise final : public Tensor {
 public:
  Noise(Shape shape, std::uint64_t seed, float mean)
      : Tensor(DType::F32, std::move(shape)), seed_(seed), mean_(mean) {}

  void read(const Box& box, MutableBytes out, Scratch&) const override {
    std::size_t i = 0;
    for (std::uint64_t row = box.row; row < box.row + box.rows; ++row)
      for (std::uint64_t col = box.col; col < box.col + box.cols; ++col)
        store(out, value(row * whole().cols + col), i++);
  }

 private:
  float value(std::uint64_t index) const noexcept {
    std::uint64_t x = seed_ + (index + 1) * 0x9e3779b97f4a7c15;  // splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    x ^= x >> 31;
    // The sum of four 16-bit numbers, centred: a deviation of about 37,837, scaled to 0.02.
    const auto sum = static_cast<std::int64_t>((x & 0xffff) + (x >> 16 & 0xffff) +
                                               (x >> 32 & 0xffff) + (x >> 48));
    return mean_ + static_cast<float>(sum - 2 * 65535) * (0.02F / 37837);
  }

  std::uint64_t seed_;
  float mean_;
};

struct Size {
  std::uint64_t layers = 4, width = 256, inner = 640, vocab = 1024;
  std::uint64_t tokens = 0;  // of a tokenizer, in GGUF
};

class Builder {
 public:
  Builder(const Format& format, DType dtype) : gguf_(format.name == "gguf"), dtype_(dtype) {
    plan.files.push_back({"model", &format, {}, 0});
  }

  void model(const Size& size) {
    matrix(gguf_ ? "token_embd.weight" : "model.embed_tokens.weight", size.vocab, size.width);
    for (std::uint64_t i = 0; i < size.layers; ++i) layer(std::to_string(i), size);
    norm(gguf_ ? "output_norm.weight" : "model.norm.weight", size.width);
    matrix(gguf_ ? "output.weight" : "lm_head.weight", size.vocab, size.width);
    gguf_ ? describe_gguf(size) : plan.files[0].meta.set("format", std::string("pt"));
  }

  Plan plan;

 private:
  void layer(const std::string& number, const Size& size) {
    struct Part {
      std::string_view hf, gguf;
      std::uint64_t rows, cols;  // no columns: a norm
    };
    const std::uint64_t w = size.width, in = size.inner;
    for (const Part& p : {Part{"input_layernorm", "attn_norm", w, 0},
                          {"self_attn.q_proj", "attn_q", w, w},
                          {"self_attn.k_proj", "attn_k", w, w},
                          {"self_attn.v_proj", "attn_v", w, w},
                          {"self_attn.o_proj", "attn_output", w, w},
                          {"post_attention_layernorm", "ffn_norm", w, 0},
                          {"mlp.gate_proj", "ffn_gate", in, w},
                          {"mlp.up_proj", "ffn_up", in, w},
                          {"mlp.down_proj", "ffn_down", w, in}}) {
      const std::string name = (gguf_ ? "blk." : "model.layers.") + number + "." +
                               std::string(gguf_ ? p.gguf : p.hf) + ".weight";
      p.cols ? matrix(name, p.rows, p.cols) : norm(name, p.rows);
    }
  }

  void matrix(const std::string& name, std::uint64_t rows, std::uint64_t cols) {
    add(name, std::make_shared<Noise>(Shape{rows, cols}, seed_ += 0x5851f42d4c957f2d, 0.0F),
        dtype_);
  }
  void norm(const std::string& name, std::uint64_t n) {  // GGUF keeps these in f32
    add(name, std::make_shared<Noise>(Shape{n}, seed_ += 0x5851f42d4c957f2d, 1.0F),
        gguf_ ? DType::F32 : dtype_);
  }
  void add(const std::string& name, TensorPtr values, DType to) {
    ++plan.files[0].tensors;
    plan.steps.push_back(values->dtype() == to ? copy_step(name, std::move(values))
                                               : cast_step(name, std::move(values), to));
  }

  void describe_gguf(const Size& size) {
    Metadata& meta = plan.files[0].meta;
    const auto count = [](std::uint64_t n) { return static_cast<std::uint32_t>(n); };
    meta.set("general.architecture", std::string("llama"));
    meta.set("general.name", std::string("sample"));
    meta.set("llama.block_count", count(size.layers));
    meta.set("llama.context_length", count(2048));
    meta.set("llama.embedding_length", count(size.width));
    meta.set("llama.feed_forward_length", count(size.inner));
    meta.set("llama.attention.head_count", count(size.width / 64));
    meta.set("llama.attention.layer_norm_rms_epsilon", 1e-5F);
    meta.set("llama.vocab_size", count(size.vocab));
    if (size.tokens > 0) describe_tokenizer(size.tokens);
  }

  // Arrays of the usual sizes: two of strings, one of floats, one of integers.
  void describe_tokenizer(std::uint64_t n) {
    std::vector<MetaValue> tokens, merges, scores, types;
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::string word = "word" + std::to_string(i);
      tokens.emplace_back(word);
      merges.emplace_back(word.substr(0, 3) + " " + word.substr(3));
      scores.emplace_back(-static_cast<float>(i));
      types.emplace_back(std::int32_t{1});
    }
    Metadata& meta = plan.files[0].meta;
    meta.set("tokenizer.ggml.model", std::string("gpt2"));
    meta.set("tokenizer.ggml.tokens", array_of(MetaType::String, tokens));
    meta.set("tokenizer.ggml.scores", array_of(MetaType::F32, scores));
    meta.set("tokenizer.ggml.token_type", array_of(MetaType::I32, types));
    meta.set("tokenizer.ggml.merges", array_of(MetaType::String, merges));
  }

  bool gguf_;
  DType dtype_;
  std::uint64_t seed_ = 1;
};

// NAME=NUMBER arguments.
void set(Size& size, DType& dtype, std::string_view argument) {
  const std::size_t at = argument.find('=');
  const std::string_view name = argument.substr(0, at);
  const std::string_view text = at == argument.npos ? "" : argument.substr(at + 1);
  if (name == "dtype" && parse_dtype(text)) {
    dtype = *parse_dtype(text);
    return;
  }
  const auto number = parse_u64(text);
  for (auto [known, field] : {std::pair{"layers", &size.layers},
                              {"width", &size.width},
                              {"inner", &size.inner},
                              {"vocab", &size.vocab},
                              {"tokens", &size.tokens}})
    if (name == known && number && *number > 0 && *number < (1U << 24)) {
      *field = *number;
      return;
    }
  throw Error(Fault::Usage, "cannot use " + quoted(argument))
      .hint("layers=, width=, inner=, vocab=, tokens= with a number, dtype= with a type");
}

void make(const std::string& path, const Size& size, DType dtype) {
  const Format* format = all_formats().by_suffix(path);
  if (!format || format->one_tensor)
    throw Error(Fault::Usage, "the name must end in .safetensors or .gguf").in(path);
  Builder builder(*format, dtype);
  builder.model(size);
  OutputSet outputs(path, OutputSet::Kind::File, OutputSet::Existing::Replace);
  RunOptions options;
  options.threads = 2;
  execute(builder.plan, options, &outputs);
  outputs.commit();
}

}  // namespace
}  // namespace wtool

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw wtool::Error(wtool::Fault::Usage, "make_sample OUTPUT [NAME=VALUE…]");
    wtool::Size size;
    wtool::DType dtype = wtool::DType::BF16;
    for (int i = 2; i < argc; ++i) wtool::set(size, dtype, argv[i]);
    wtool::make(argv[1], size, dtype);
    return 0;
  } catch (const wtool::Error& error) {
    std::fprintf(stderr, "make_sample: %s\n%s\n", error.what(), error.hint().c_str());
    return 2;
  }
}
