// The index of a compressed file, as JSON.
#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "formats/compressed.h"
#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/base/utf8.h"

namespace wtool {
namespace {

constexpr std::string_view kSchema = "wtool.compressed/1";

Error broken(std::string text) {
  return Error(Fault::BadFile, std::move(text)).in("index");
}
// A file's name may be any bytes; JSON is UTF-8.
std::string json(std::string_view name) {
  std::string text, out;
  while (!name.empty()) {
    const CodePoint c = next_code_point(name);
    text += c.valid ? name.substr(0, c.length) : std::string_view("\xEF\xBF\xBD");
    name.remove_prefix(c.length);
  }
  append_json(out, text);
  return out;
}

void append_piece(std::string& out, const PackIndex& index, const Piece& p) {
  out += fmt::format("{{\"offset\":{},\"bytes\":{}", p.offset, p.bytes);
  if (p.tensor) {
    out += fmt::format(",\"tensor\":{},\"dtype\":\"{}\",\"shape\":[", json(*p.tensor),
                       name_of(p.dtype));
    for (std::size_t i = 0; i < p.shape.size(); ++i)
      out += fmt::format("{}{}", i == 0 ? "" : ",", p.shape[i]);
    out += fmt::format("],\"tensor_bytes\":{},\"sha256\":\"{}\"", p.tensor_bytes, p.digest.hex());
  }
  if (p.same_as)
    out += fmt::format(",\"same_as\":{}", json(*index.pieces[*p.same_as].tensor));
  else if (p.same_as_base)
    out += ",\"same_as_base\":true";
  else
    out += fmt::format(",{},\"first_frame\":{}", codec_members(p.codec), p.first_frame);
  out += '}';
}

// ---- Reading: members in any order, unknown ones passed over (a later version's).

class Parser {
 public:
  Parser(std::string text, std::size_t frames)
      : text_(std::move(text)), reader_({text_.data(), text_.size()}), frames_(frames) {}

  PackIndex parse() {
    std::string_view key;
    std::string schema;
    reader_.begin_object();
    while (reader_.next_member(key)) {
      if (key == "schema")
        schema = reader_.string();
      else if (key == "form")
        form(reader_.string());
      else if (key == "source")
        source();
      else if (key == "base")
        list([&] { base_file(); });
      else if (key == "pieces")
        list([&] { piece(); });
      else
        reader_.skip();
    }
    reader_.finish();
    if (schema != kSchema) {
      if (schema.starts_with("wtool.compressed/"))
        throw Error(Fault::Unsupported,
                    fmt::format("is of version {}, this wtool reads {}", quoted(schema), kSchema))
            .in("index");
      throw broken(fmt::format("has schema {}, not {}", quoted(schema), kSchema));
    }
    settle();
    return std::move(out_);
  }

 private:
  void list(auto&& item) {
    reader_.begin_array();
    while (reader_.next_item()) item();
  }
  std::uint64_t number(std::string_view what) {
    std::uint64_t v = 0;
    if (!reader_.unsigned_integer(v)) throw broken(fmt::format("{} is no plain number", what));
    return v;
  }
  Sha256 digest() {
    const std::string_view hex = reader_.string();
    const auto d = parse_sha256(hex);
    if (!d) throw broken(fmt::format("{} is no SHA-256", quoted(hex)));
    return *d;
  }
  void form(std::string_view name) {
    for (const PackForm f : {PackForm::Plain, PackForm::Planes})
      if (name == name_of(f)) {
        out_.form = f;
        return;
      }
    throw Error(Fault::Unsupported, fmt::format("has the unknown form {}", quoted(name)))
        .in("index");
  }
  void file_members(std::string& name, std::uint64_t& bytes, Sha256& sha256) {
    std::string_view key;
    reader_.begin_object();
    while (reader_.next_member(key)) {
      if (key == "name")
        name = reader_.string();
      else if (key == "bytes")
        bytes = number("'bytes'");
      else if (key == "sha256")
        sha256 = digest();
      else
        reader_.skip();
    }
  }
  void source() {
    file_members(out_.name, out_.bytes, out_.digest);
    has_source_ = true;
  }
  void base_file() {
    BaseFile& f = out_.base.emplace_back();
    file_members(f.name, f.bytes, f.digest);
  }

  void piece() {
    Piece& p = out_.pieces.emplace_back();
    Wanted wanted;
    std::string_view key;
    reader_.begin_object();
    while (reader_.next_member(key)) {
      if (key == "offset")
        p.offset = number("'offset'");
      else if (key == "bytes")
        p.bytes = number("'bytes'");
      else if (key == "tensor")
        p.tensor = reader_.string();
      else if (key == "dtype")
        dtype(p, reader_.string());
      else if (key == "shape")
        list([&] {
          if (p.shape.size() == Catalog::kMaxRank) throw broken("a shape has too many dimensions");
          p.shape.push_back(number("a dimension"));
        });
      else if (key == "tensor_bytes")
        p.tensor_bytes = number("'tensor_bytes'");
      else if (key == "sha256")
        p.digest = digest();
      else if (key == "same_as")
        wanted.same_as = reader_.string();
      else if (key == "same_as_base")
        p.same_as_base = reader_.boolean();
      else if (key == "codec")
        codec(p, reader_.string());
      else if (key == "block")
        p.codec.block = narrow(number("'block'"));
      else if (key == "planes")
        list([&] { plane(p.codec); });
      else if (key == "first_frame")
        wanted.first_frame = number("'first_frame'");
      else
        reader_.skip();
    }
    check(p, wanted);
  }
  static std::uint16_t narrow(std::uint64_t v) {
    return static_cast<std::uint16_t>(std::min<std::uint64_t>(v, 0xFFFF));
  }
  void plane(PackCodec& codec) {
    if (codec.columns.size() == kMostPlanes)
      throw broken(fmt::format("more than {} planes", kMostPlanes));
    auto& columns = codec.columns.emplace_back();
    list([&] {
      if (columns.size() == kMostBlock) throw broken("too many columns in a plane");
      std::uint64_t v[2] = {};
      std::size_t n = 0;
      list([&] {
        if (n == 2) throw broken("a column is more than offset and length");
        v[n++] = number("a column");
      });
      if (n != 2) throw broken("a column is less than offset and length");
      columns.push_back({narrow(v[0]), narrow(v[1])});
    });
  }
  void dtype(Piece& p, std::string_view name) {
    const auto d = parse_dtype(name);
    if (!d || name_of(*d) != name)
      throw Error(Fault::Unsupported, fmt::format("has the unknown dtype {}", quoted(name)))
          .in("index");
    p.dtype = *d;
  }
  void codec(Piece& p, std::string_view name) {
    const auto kind = parse_codec_kind(name);
    if (!kind)
      throw Error(Fault::Unsupported, fmt::format("has the unknown codec {}", quoted(name)))
          .in("index")
          .hint("a later version of wtool may know it");
    p.codec.kind = *kind;
    coded_ = true;
  }

  struct Wanted {
    std::optional<std::string> same_as;
    std::optional<std::uint64_t> first_frame;
  };
  // Pieces follow each other, and so do their frames.
  void check(Piece& p, const Wanted& wanted) {
    const std::string what =
        p.tensor ? "tensor " + quoted(*p.tensor) : fmt::format("the piece at {}", p.offset);
    const auto fail = [&](const std::string& text) { return broken(text).in(what); };
    if (p.offset != end_)
      throw fail(fmt::format("begins at {}, but what is before it ends at {}", p.offset, end_));
    const auto end = checked_add(p.offset, p.bytes);
    if (!end || p.bytes == 0) throw fail(fmt::format("{} bytes at {}", p.bytes, p.offset));
    end_ = *end;
    if (p.tensor && (p.tensor_bytes == 0 || p.tensor_bytes > p.bytes))
      throw fail(fmt::format("a tensor of {} bytes in a piece of {}", p.tensor_bytes, p.bytes));
    const bool coded = std::exchange(coded_, false);
    if (coded + wanted.same_as.has_value() + p.same_as_base != 1)
      throw fail("needs one of 'codec', 'same_as' and 'same_as_base'");
    if (!coded && !p.tensor) throw fail("is no tensor and has no codec");
    if (p.same_as_base && p.tensor_bytes != p.bytes) throw fail("has more bytes than its tensor");
    if (!coded) p.codec = {};  // a block of 0 bytes, say, is nobody's
    if (p.tensor && !by_name_.emplace(*p.tensor, out_.pieces.size() - 1).second)
      throw fail("is in two pieces");
    if (wanted.same_as) return refer(p, *wanted.same_as, fail);
    if (coded) frames(p, wanted, fail);
  }
  void refer(Piece& p, const std::string& name, auto&& fail) {
    const auto it = by_name_.find(name);
    if (it == by_name_.end() || name == *p.tensor)
      throw fail(fmt::format("same as {}, which does not come before it", quoted(name)));
    const Piece& other = out_.pieces[it->second];
    if (other.same_as)
      throw fail(fmt::format("same as {}, which is itself the same", quoted(name)));
    if (other.tensor_bytes != p.bytes || p.tensor_bytes != p.bytes)
      throw fail(fmt::format("{} bytes, but the same as {} of {}", p.bytes, quoted(name),
                             other.tensor_bytes));
    if (other.digest != p.digest)  // damage to the name, maybe
      throw fail(fmt::format("has SHA-256 {}, but is the same as {} with {}", p.digest.hex(),
                             quoted(name), other.digest.hex()));
    p.same_as = it->second;
    p.codec = other.codec;
  }
  void frames(Piece& p, const Wanted& wanted, auto&& fail) {
    if (p.codec.kind != PackCodec::Kind::Columns) {
      p.codec.columns.clear();
      p.codec.block = block_of(p.codec.kind);
    }
    if (const auto why = fault_in(p.codec)) throw fail(*why);
    if (!wanted.first_frame || (frame_ && *frame_ != *wanted.first_frame))
      throw fail(fmt::format("begins with frame {}, but what is before it ends with {}",
                             wanted.first_frame.value_or(0), frame_.value_or(0)));
    p.first_frame = *wanted.first_frame;
    if (!frame_) first_ = p.first_frame;
    const auto count = checked_mul(p.chunks(), p.codec.planes());
    const auto next = count ? checked_add(p.first_frame, *count) : std::nullopt;
    if (!next || *next > frames_)
      throw fail(fmt::format("frames from {} on, {} chunks of {}, but the file has {}",
                             p.first_frame, p.chunks(), p.codec.planes(), frames_));
    frame_ = *next;
  }

  void settle() {
    if (!has_source_) throw broken("does not say what it is made from");
    if (end_ != out_.bytes)
      throw broken(fmt::format("pieces of {} bytes, but the original has {}", end_, out_.bytes));
    const bool wants = std::ranges::any_of(out_.pieces, &Piece::needs_base);
    if (wants && out_.base.empty()) throw broken("differences to a base that is not named");
    if (!wants && !out_.base.empty())
      throw broken(fmt::format("names the base {}, but nothing is a difference to it",
                               quoted(out_.base[0].name)));
    check_frames();
  }
  // Nothing hides in frames that nobody reads; of no piece is only the header of planes.
  void check_frames() const {
    const std::uint64_t head = out_.form == PackForm::Planes ? 1 : 0;
    const std::uint64_t first = frame_ ? first_ : head, end = frame_.value_or(head);
    const auto nobody_reads = [](std::uint64_t from, std::uint64_t to) {
      return broken(fmt::format("no piece has frames {} to {}", from, to - 1));
    };
    if (frames_ < head) throw broken("has no frame for the header of planes");
    if (first < head) throw broken("a piece begins with frame 0, the header of planes");
    if (first > head) throw nobody_reads(head, first);
    if (end < frames_) throw nobody_reads(end, frames_);
  }

  std::string text_;
  JsonReader reader_;
  const std::size_t frames_;
  PackIndex out_;
  bool has_source_ = false, coded_ = false;
  std::uint64_t end_ = 0, first_ = 0;   // of the pieces so far; of their frames
  std::optional<std::uint64_t> frame_;  // the next one
  struct Hash {
    std::size_t operator()(const std::string& s) const noexcept { return hash_text(s); }
  };
  std::unordered_map<std::string, std::size_t, Hash> by_name_;
};

}  // namespace

std::string_view name_of(PackForm form) noexcept {
  return form == PackForm::Plain ? "plain" : "planes";
}

std::string codec_members(const PackCodec& codec) {
  std::string out = fmt::format("\"codec\":\"{}\"", name_of(codec.kind));
  if (codec.kind != PackCodec::Kind::Columns) return out;
  out += fmt::format(",\"block\":{},\"planes\":[", codec.block);
  for (std::size_t p = 0; p < codec.columns.size(); ++p) {
    out += p == 0 ? "[" : ",[";
    for (std::size_t i = 0; i < codec.columns[p].size(); ++i)
      out += fmt::format("{}[{},{}]", i == 0 ? "" : ",", codec.columns[p][i].offset,
                         codec.columns[p][i].length);
    out += ']';
  }
  return out + ']';
}

std::string to_json(std::span<const BaseFile> base) {
  std::string out = "[";
  for (std::size_t i = 0; i < base.size(); ++i)
    out += fmt::format("{}{{\"name\":{},\"bytes\":{},\"sha256\":\"{}\"}}", i == 0 ? "" : ",",
                       json(base[i].name), base[i].bytes, base[i].digest.hex());
  return out + ']';
}

std::string to_json(const PackIndex& index) {
  std::string out = fmt::format(
      "{{\"schema\":\"{}\",\"form\":\"{}\",\"source\":{{\"name\":{},\"bytes\":{},\"sha256\":\"{}\"}"
      "}",
      kSchema, name_of(index.form), json(index.name), index.bytes, index.digest.hex());
  if (!index.base.empty()) out += ",\"base\":" + to_json(index.base);
  out += ",\"pieces\":[";
  for (std::size_t i = 0; i < index.pieces.size(); ++i) {
    out += i == 0 ? "\n" : ",\n";
    append_piece(out, index, index.pieces[i]);
  }
  return out + "]}\n";
}

PackIndex parse_pack_index(std::string text, std::size_t frames) {
  try {
    return Parser(std::move(text), frames).parse();
  } catch (const JsonFault& e) {
    throw broken(fmt::format("{} (byte {})", e.text(), e.at));
  }
}

}  // namespace wtool
