// Compressed files that lie, are damaged, or are others'.
#include "tests/unit/compressed_files.h"

namespace wtool {

TEST_CASE("compressed: what is no such file is left to others", "[compressed]") {
  CHECK_FALSE(open_compressed(from_memory("empty", {})));
  CHECK_FALSE(open_compressed(from_memory("short", bytes({0x28, 0xB5, 0x2F}))));
  CHECK_FALSE(open_compressed(from_memory("m", safetensors(a_model()))));
  const SourcePtr gguf = from_memory("m.gguf", to_buffer("GGUF and more"));
  CHECK(unwrap_compressed(gguf) == gguf);
}

TEST_CASE("compressed: zstd's own files are refused with a way out", "[compressed]") {
  Buffer one;
  FrameWriter().append(Coder::Strong, to_buffer(std::string(500, 'a') + "b"), one);
  check_file(from_memory("m.zst", one), "without a table of frames", Fault::Unsupported);
  Buffer with_table = one;
  append_seek_table({{static_cast<std::uint32_t>(one.size()), 501, 0}}, with_table);
  check_file(from_memory("m.zst", with_table), "no index", Fault::Unsupported);
  Buffer skippable;
  append_skippable(6, as_bytes("{}"), skippable);
  append_seek_table({{10, 0, 0}}, skippable);
  check_file(from_memory("m.zst", skippable), "no index", Fault::Unsupported);
  Buffer nothing;
  append_seek_table({}, nothing);
  check_file(from_memory("m.zst", nothing), "has no frames");
}

TEST_CASE("compressed: an index frame that is not as long as the table has it is refused",
          "[compressed]") {
  const std::string text = index_text("", 0);
  REQUIRE(open_compressed(Frames().file(text)));
  Buffer stretched;
  append_skippable(7, as_bytes(text), stretched);
  stretched.push_back(std::byte{' '});
  append_seek_table({{static_cast<std::uint32_t>(stretched.size()), 0, 0}}, stretched);
  check_file(from_memory("m.zst", stretched), "an index of");
  // Entries without checksums: whoever reads could not tell damage.
  Buffer unchecked;
  append_skippable(7, as_bytes(text), unchecked);
  const auto size = static_cast<std::uint32_t>(unchecked.size());
  for (const std::uint32_t v : {0x184D2A5Eu, 17u, size, 0u, 1u}) append(unchecked, v);
  unchecked.push_back(std::byte{0});
  append(unchecked, std::uint32_t{0x8F92EAB1});
  check_file(from_memory("m.zst", unchecked), "no checksums");
}

TEST_CASE("compressed: cut off anywhere it is refused or nothing of ours", "[compressed]") {
  const Buffer sevens(3000, std::byte{7});
  Frames frames;
  const Buffer whole = all_of(*frames.add(sevens).file(
      index_text(R"({"offset":0,"bytes":3000,"codec":"bytes","first_frame":0})", 3000)));
  REQUIRE(open(whole));
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const SourcePtr cut = from_memory("cut", part(whole, 0, n));
    if (n < 4)
      CHECK_FALSE(open_compressed(cut));
    else
      REQUIRE_THROWS_AS(open_compressed(cut), Error);
  }
  for (std::size_t n = 1; n < whole.size(); ++n) {  // the beginning is missing
    std::shared_ptr<CompressedFile> rest;
    try {
      rest = open_compressed(from_memory("cut", part(whole, n, whole.size() - n)));
    } catch (const Error& e) {
      CHECK((e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported));
    }
    REQUIRE_FALSE(rest);
  }
}

TEST_CASE("compressed: a byte changed anywhere is an error or changes no values", "[compressed]") {
  // Names are short, so that no change makes a reference lead elsewhere.
  const Buffer file = safetensors({{"a", "BF16", "[40]", weights(40, 2, 1)},
                                   {"b", "F32", "[9]", weights(9, 4, 2)},
                                   {"c", "I8", "[7]", noise(7)}});
  for (const PackForm form : {PackForm::Plain, PackForm::Planes}) {
    Buffer out = compressed(opened(file), form);
    std::size_t refused = 0;
    for (std::size_t i = 0; i < out.size(); ++i)
      for (const std::byte flip : {std::byte{0x01}, std::byte{0x80}, std::byte{0xFF}}) {
        out[i] ^= flip;
        std::optional<Buffer> values;
        try {
          if (const auto damaged = open_compressed(from_memory("m.zst", out)))
            values = all_of(*damaged);
        } catch (const Error& e) {
          CHECK((e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported));
          ++refused;
        }
        out[i] ^= flip;
        INFO("byte " << i);
        if (values) REQUIRE(*values == file);
      }
    CHECK(refused > out.size());
  }
}

TEST_CASE("compressed: frames that are not what the index says are named", "[compressed]") {
  const std::string ten = R"({"offset":0,"bytes":10,"codec":"bytes","first_frame":0})";
  const Buffer good = noise(10);
  const auto with = [&](const Buffer& content) {
    return Frames().add(content).file(index_text(ten, 10));
  };
  REQUIRE(all_of(*open_compressed(with(good))) == good);
  check_read(with(noise(9)), "frame 0 at byte 0 is damaged: holds 9 bytes, not 10");
  check_read(with(noise(11)), "holds 11 bytes, not 10");
  // The table says ten where the frame has other ideas: nine, and a repetition of 4 GiB.
  Buffer nine;
  FrameSize size = FrameWriter().append(Coder::Raw, noise(9), nine);
  size.content = 10;
  check_read(Frames().raw(nine, size).file(index_text(ten, 10)), "holds 9 bytes, not 10");
  const Buffer bomb = bytes({0x28, 0xB5, 0x2F, 0xFD, 0xA4, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x00, 0x10,
                             'a', 0x99, 0x09, 0x77, 0xAD});
  const auto long_ = static_cast<std::uint32_t>(bomb.size());
  check_read(Frames().raw(bomb, {long_, 10, 0}).file(index_text(ten, 10)), "frame 0");
  // A skippable frame, and two frames, where one is wanted.
  Buffer skippable;
  append_skippable(3, good, skippable);
  check_read(Frames().raw(skippable, {18, 10, 0}).file(index_text(ten, 10)), "frame 0");
  Buffer two;
  FrameWriter writer;
  writer.append(Coder::Raw, Bytes(good).first(5), two);
  writer.append(Coder::Raw, Bytes(good).last(5), two);
  check_read(
      Frames().raw(two, {static_cast<std::uint32_t>(two.size()), 10, 0}).file(index_text(ten, 10)),
      "frame 0");
  // Much more stored than there is to store: nobody reads it.
  Buffer much;
  FrameSize stored = writer.append(Coder::Raw, noise(10'000), much);
  stored.content = 10;
  check_read(Frames().raw(much, stored).file(index_text(ten, 10)),
             "frames 0 to 0 take 10016 bytes for 10");
}

TEST_CASE("compressed: claims far beyond what files can hold are refused", "[compressed]") {
  // A tensor of 2^40 bytes, "as in the base", by a thousand names.
  const std::uint64_t huge = std::uint64_t{1} << 40;
  const auto piece = [&](std::uint64_t offset, const std::string& name, std::string_view how) {
    return fmt::format(R"({{"offset":{},"bytes":{},{},{}}})", offset, huge,
                       tensor_members(name, huge), how);
  };
  std::string many = piece(0, "t", R"("same_as_base":true)");
  // A base of that size is there or not, whatever this file claims.
  CHECK(open_compressed(Frames().file(index_text(many, huge, kBase)))->size() == huge);
  for (std::uint64_t i = 1; i < 1000; ++i)
    many += "," + piece(i * huge, fmt::format("t{}", i), R"("same_as":"t")");
  check_file(Frames().file(index_text(many, 1000 * huge, kBase)), "more than 65536 times");
  // 2^64 bytes and more.
  std::string all = piece(0, "t", R"("same_as_base":true)");
  const std::uint64_t half = std::uint64_t{1} << 63;
  const std::string twice = fmt::format(
      R"({{"offset":0,"bytes":{0},{1},"same_as_base":true}},{{"offset":{0},"bytes":{0},{2},"same_as":"t"}})",
      half, tensor_members("t", half), tensor_members("u", half));
  check_file(Frames().file(index_text(twice, 0, kBase)), "bytes at 9223372036854775808");
}

TEST_CASE("compressed: an original may be so many times as large as its file, and no more",
          "[compressed]") {
  static constexpr std::uint64_t kMiB = 1 << 20, kTensor = 16 * kMiB;
  // Frames as small as they can be, which nobody looks at; one tensor of them and `names` that are
  // the same, in a file of `size` bytes.
  const auto opens = [](std::uint64_t names, std::size_t size) {
    Frames frames;
    Buffer frame;
    append_skippable(0, {}, frame);
    for (int i = 0; i < 16; ++i) frames.raw(frame, {8, kMiB, 0});
    std::string pieces;
    for (std::uint64_t i = 0; i <= names; ++i)
      pieces += fmt::format(R"({}{{"offset":{},"bytes":{},{},{}}})", i == 0 ? "" : ",", i * kTensor,
                            kTensor, tensor_members(fmt::format("t{}", i), kTensor),
                            i == 0 ? R"("codec":"bytes","first_frame":0)" : R"("same_as":"t0")");
    const std::string text = index_text(pieces, (names + 1) * kTensor);
    const std::size_t least = frames.file(text)->size();
    REQUIRE(least <= size);
    const SourcePtr file = frames.file("{" + std::string(size - least, ' ') + text.substr(1));
    REQUIRE(file->size() == size);
    try {
      open_compressed(file);
      return true;
    } catch (const Error& e) {
      CHECK_THAT(e.what(), Catch::Contains("more than 65536 times as many"));
      return false;
    }
  };
  // 300 times 16 MiB are 65536 times 76800 bytes.
  CHECK(opens(299, 76'800));
  CHECK_FALSE(opens(299, 76'799));
  // References count where they are of more than 64 times what is stored: 66 times 16 MiB want
  // 16896 bytes, 16 MiB alone 256.
  CHECK(opens(64, 16'000));
  CHECK_FALSE(opens(65, 16'000));
  CHECK(opens(65, 16'896));
}

TEST_CASE("compressed: frames have the checksums of the table, trusted or not", "[compressed]") {
  const std::string ten = R"({"offset":0,"bytes":10,"codec":"bytes","first_frame":0})";
  const Buffer content = noise(10);
  const auto fault = [&](const Frames& frames) -> std::string {
    const auto file = open_compressed(frames.file(index_text(ten, 10)));
    Buffer out(10);
    try {
      file->decode(file->index().pieces[0], 0, FrameReader::Check::Trust, out);
    } catch (const Error& e) {
      return e.what();
    }
    CHECK(out == content);
    return "";
  };
  Buffer sound;
  FrameSize size = FrameWriter().append(Coder::Raw, content, sound);
  CHECK(fault(Frames().raw(sound, size)).empty());
  size.checksum ^= 1;
  CHECK_THAT(fault(Frames().raw(sound, size)), Catch::Contains("but the table says"));
  // One segment, a size of one byte, no checksum; a last raw block.
  Buffer unchecked = bytes({0x28, 0xB5, 0x2F, 0xFD, 0x20, 10, 0x51, 0, 0});
  append(unchecked, Bytes(content));
  CHECK_THAT(fault(Frames().raw(unchecked, {19, 10, 0})), Catch::Contains("frame 0"));
}

}  // namespace wtool
