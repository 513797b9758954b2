#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/quantize_job.h"

namespace wtool {
namespace {

CLI::Option* repeatable(CLI::Option* option) {
  return option->expected(1)->allow_extra_args(false)->multi_option_policy(
      CLI::MultiOptionPolicy::TakeAll);
}

void add_type_options(CLI::App& app, TypeOptions& t) {
  app.add_flag("--int8", t.int8, "8 bits: groups of 128; in GGUF q8_0");
  app.add_flag("--int4", t.int4, "4 bits: groups of 128; in GGUF q4_0");
  app.add_option("--bits", t.bits, "integers of N bits, 2 to 8")->option_text("N");
  app.add_flag("--w8a8", t.w8a8, "int8 per channel, for int8 activations");
  app.add_flag("--fp8", t.fp8, "e4m3 per channel, for fp8 activations");
  app.add_flag("--nvfp4", t.nvfp4, "4-bit floats in groups of 16");
  app.add_flag("--mxfp4,--fp4", t.mxfp4, "4-bit floats in groups of 32");
  app.add_flag("--mxfp8", t.mxfp8, "8-bit floats in groups of 32");
  app.add_flag("--nf4", t.nf4, "NF4 of bitsandbytes");
  app.add_flag("--bf16", t.bf16, "cast to bf16");
  app.add_flag("--fp16", t.fp16, "cast to f16; values that overflow stop it");
  app.add_option("--group-size", t.group_size, "columns that share a scale; or 'channel'")
      ->option_text("N");
  app.add_flag("--asym", t.asymmetric, "integers with zero points");
  app.add_flag("--block", t.block, "fp8: a scale for each 128 x 128");
  app.add_option("--scheme", t.scheme, "how it lies in safetensors: compressed-tensors, gptq, awq")
      ->option_text("NAME");
  app.add_option("--method", t.method, "scales by rtn, search, optimal; GGUF: exact, best")
      ->option_text("METHOD");
  app.add_flag("--signed-scales", t.signed_scales, "scales may be negative: not for all kernels");
  app.add_option("--compat", t.compat, "the bytes of another tool: compressed-tensors")
      ->option_text("TOOL");
  app.add_option("--type", t.type, "for GGUF, a mix or type: q4_k_m, iq4_xs, …")
      ->option_text("TYPE");
  repeatable(
      app.add_option("-T,--tensor-type", t.types, "type of the matching; the last rule wins"))
      ->option_text("PATTERN=TYPE");
  app.add_option("--recipe", t.recipe, "rules from a file, one PATTERN=TYPE a line")
      ->option_text("FILE");
  app.add_flag("--pure", t.pure, "with --type: its own type for everything");
  app.add_flag("--leave-output-tensor", t.leave_output, "keep the output tensor as it is");
  app.add_option("--output-tensor-type", t.output_type, "type of the output tensor")
      ->option_text("TYPE");
  app.add_option("--token-embedding-type", t.embedding_type, "type of the token embedding")
      ->option_text("TYPE");
}

// Options that the help only names: a line for each would not fit a screen.
void fold_options(CLI::App& app) {
  for (const char* name : {"--alone",
                           "--as",
                           "--allow-unmatched",
                           "--shard-size",
                           "--single",
                           "--rename",
                           "--set",
                           "--set-file",
                           "--unset",
                           "--drop-metadata",
                           "--endian",
                           "--lineage",
                           "--no-lineage",
                           "--saturate",
                           "--sign",
                           "--passphrase-fd",
                           "--passphrase-env",
                           "--manifest",
                           "--provenance",
                           "--bom",
                           "--as-is",
                           "--arch",
                           "--pre",
                           "--no-vocab"})
    app.get_option(name)->group("as in convert");
  for (const char* name :
       {"--pure", "--leave-output-tensor", "--output-tensor-type", "--token-embedding-type",
        "--require-imatrix", "--requantize", "--signed-scales", "--compat", "--block"})
    app.get_option(name)->group("more, in the page");
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<QuantizeCommand>();
  add_type_options(app, o->types);
  app.add_option("--imatrix", o->imatrix, "importance matrix: what errors count how much")
      ->option_text("FILE");
  app.add_flag("--require-imatrix", o->require_imatrix, "stop if it lacks an entry or one misfits");
  add_gate_option(app, o->gates, "only if 'max(rel_rmse) <= 0.01'; or @FILE");
  app.add_flag("--keep", o->keep, "write even if a gate failed; still exit 1");
  add_findings_options(app, o->findings);
  app.add_flag("--fallback", o->fallback, "take what fits where a shape does not");
  app.add_flag("--requantize,--allow-requantize", o->requantize, "quantize block types again");
  app.add_flag("--saturate", o->saturate, "what overflows becomes the largest that fits");
  add_rewrite_options(app, *o);
  fold_options(app);
  app.get_option("--tensors")->description("quantize only these, keep others; repeatable");
  app.get_option("--exclude")->description("keep these as they are; repeatable");
  app.footer("example:\n  wtool quantize --int8 model.safetensors");
  return [o](const Context& context) { return quantize(*o, context, "quantize"); };
}

}  // namespace

extern const Command kQuantize;
const Command kQuantize{"quantize", "fewer bits per weight, with the error measured", bind};

}  // namespace wtool
