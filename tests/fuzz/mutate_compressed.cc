// Mutations of compressed files: the file is taken apart into frames, the index and the table; one
// of them is changed, and the sizes that others give of it are put right most of the time. The
// table is read and written apart from lib/pack: what that reads wrongly, this must not.
#include <algorithm>
#include <vector>

#include "lib/pack/frame.h"
#include "tests/fuzz/mutate.h"

namespace wtool::fuzz {
namespace {

constexpr std::uint32_t kSkippable = 0x184D2A50, kEnd = 0x8F92EAB1;

struct Entry {
  std::string stored;
  std::uint32_t content = 0, checksum = 0;
};
struct File {
  std::vector<Entry> frames;
  std::string index;
};

void put(std::string& out, std::uint32_t v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof v);
}
std::uint32_t number_at(std::string_view data, std::size_t at) {
  return load<std::uint32_t>(as_bytes(data.substr(at, 4)));
}

// False if the table does not fit: then there is nothing to take apart.
bool take_apart(std::string_view data, File& out) {
  if (data.size() < 17 || number_at(data, data.size() - 4) != kEnd) return false;
  const std::uint64_t count = number_at(data, data.size() - 9), table = 8 + count * 12 + 9;
  if (count == 0 || table > data.size()) return false;
  std::size_t line = data.size() - static_cast<std::size_t>(table) + 8, at = 0;
  for (std::uint64_t i = 0; i < count; ++i, line += 12) {
    const std::size_t stored = number_at(data, line);
    if (stored > data.size() - at) return false;
    out.frames.push_back({std::string(data.substr(at, stored)), number_at(data, line + 4),
                          number_at(data, line + 8)});
    at += stored;
  }
  if (out.frames.back().stored.size() < 8) return false;
  out.index = out.frames.back().stored.substr(8);
  out.frames.pop_back();
  return true;
}

std::string put_together(const File& file) {
  std::string out, table;
  const auto line = [&](const std::string& stored, std::uint32_t content, std::uint32_t checksum) {
    out += stored;
    put(table, static_cast<std::uint32_t>(stored.size()));
    put(table, content);
    put(table, checksum);
  };
  for (const Entry& e : file.frames) line(e.stored, e.content, e.checksum);
  std::string index;
  put(index, kSkippable + 7);
  put(index, static_cast<std::uint32_t>(file.index.size()));
  line(index + file.index, 0, 0);
  put(out, kSkippable + 0xE);
  put(out, static_cast<std::uint32_t>(table.size() + 9));
  out += table;
  put(out, static_cast<std::uint32_t>(file.frames.size() + 1));
  out += '\x80';
  put(out, kEnd);
  return out;
}

// What a frame holds is changed behind its checksum: else nothing behind that would be tried. Up to
// 4 KiB of it; other frames become new ones.
void change_content(Entry& e, Mutation& how) {
  std::string content(e.content % 4096, '\0');
  const auto room = std::as_writable_bytes(std::span(content));
  if (!FrameReader().decode(as_bytes(e.stored), room, FrameReader::Check::Trust).empty())
    for (char& c : content) c = static_cast<char>(how.below(256));
  if (how.one_in(4))
    how.plain(content);
  else if (!content.empty())
    content[static_cast<std::size_t>(how.below(content.size()))] =
        static_cast<char>(how.below(256));
  if (how.one_in(8)) content.push_back('\0');
  if (how.one_in(8) && !content.empty()) content.pop_back();
  Buffer frame;
  append_raw_frame(as_bytes(content), frame);
  e.stored = as_text(frame);
  e.content = static_cast<std::uint32_t>(content.size());
  e.checksum = raw_frame_size(frame).checksum;
}

// A number of the index, and perhaps all others that are the same.
void change_number(std::string& index, Mutation& how) {
  std::vector<std::size_t> numbers;
  for (std::size_t i = 1; i < index.size(); ++i)
    if (index[i] >= '0' && index[i] <= '9' &&
        (index[i - 1] == ':' || index[i - 1] == '[' || index[i - 1] == ','))
      numbers.push_back(i);
  if (numbers.empty()) return;
  const std::size_t at = how.any(numbers);
  std::size_t end = at;
  std::uint64_t old = 0;
  while (end < index.size() && index[end] >= '0' && index[end] <= '9')
    old = old * 10 + static_cast<std::uint64_t>(index[end++] - '0');
  const std::uint64_t now = how.number(old);
  const std::string from = index.substr(at, end - at), to = std::to_string(now);
  index.replace(at, end - at, to);
  if (how.one_in(2) && from.size() > 1)
    for (std::size_t i = index.find(from); i != index.npos; i = index.find(from, i + to.size()))
      index.replace(i, from.size(), to);
}

void change_frame(File& file, Mutation& how) {
  if (file.frames.empty()) return;
  Entry& e = file.frames[static_cast<std::size_t>(how.below(file.frames.size()))];
  switch (how.below(7)) {
    case 0: e.content = static_cast<std::uint32_t>(how.number(e.content)); break;
    case 1:
      std::swap(e, file.frames[static_cast<std::size_t>(how.below(file.frames.size()))]);
      break;
    case 2:
    case 3:
    case 4: change_content(e, how); break;
    default: how.plain(e.stored);
  }
}

}  // namespace

void mutate_compressed(std::string& data, Mutation& how) {
  File file;
  if (how.one_in(12) || !take_apart(data, file)) return how.plain(data);
  switch (how.below(4)) {
    case 0: change_frame(file, how); break;
    case 1: change_number(file.index, how); break;
    default: mutate_json(file.index, how);
  }
  data = put_together(file);
  if (data.size() > how.most()) data.resize(how.most());
}

}  // namespace wtool::fuzz
