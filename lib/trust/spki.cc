#include "lib/trust/spki.h"

#include <algorithm>
#include <array>
#include <span>

#include "lib/trust/base64.h"

namespace wtool {
namespace {

constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----\n",
                           kEnd = "-----END PUBLIC KEY-----";
constexpr std::size_t kLine = 64;

// AlgorithmIdentifier: id-ecPublicKey, and the curve by its name.
struct Row {
  Curve curve;
  std::size_t coordinate;  // bytes
  std::string_view algorithm;
};
using namespace std::string_view_literals;
constexpr std::array kRows{
    Row{Curve::P256, 32,
        "\x30\x13\x06\x07\x2A\x86\x48\xCE\x3D\x02\x01\x06\x08\x2A\x86\x48\xCE\x3D\x03\x01\x07"sv},
    Row{Curve::P384, 48,
        "\x30\x10\x06\x07\x2A\x86\x48\xCE\x3D\x02\x01\x06\x05\x2B\x81\x04\x00\x22"sv},
    Row{Curve::P521, 66,
        "\x30\x10\x06\x07\x2A\x86\x48\xCE\x3D\x02\x01\x06\x05\x2B\x81\x04\x00\x23"sv}};

// A DER element of less than 256 bytes.
Buffer element(unsigned tag, Bytes content) {
  Buffer out{static_cast<std::byte>(tag)};
  if (content.size() >= 128) out.push_back(std::byte{0x81});
  out.push_back(static_cast<std::byte>(content.size()));
  out.insert(out.end(), content.begin(), content.end());
  return out;
}

}  // namespace

Buffer spki_of(Curve curve, Bytes point) {
  Buffer bits{std::byte{0}};  // none unused
  bits.insert(bits.end(), point.begin(), point.end());
  const Row& row = *std::ranges::find(kRows, curve, &Row::curve);
  const Bytes algorithm = as_bytes(row.algorithm);
  Buffer body(algorithm.begin(), algorithm.end());
  const Buffer key = element(0x03, bits);
  body.insert(body.end(), key.begin(), key.end());
  return element(0x30, body);
}

std::string pem_of_spki(Bytes der) {
  const std::string text = to_base64(der);
  std::string out(kBegin);
  for (std::size_t at = 0; at < text.size(); at += kLine) out += text.substr(at, kLine) + "\n";
  return out + std::string(kEnd) + "\n";
}

std::optional<SpkiPoint> point_of_pem(std::string_view pem) {
  const auto begin = pem.find(kBegin);
  if (begin == pem.npos) return std::nullopt;
  pem.remove_prefix(begin + kBegin.size());
  const auto end = pem.find(kEnd);
  if (end == pem.npos) return std::nullopt;
  std::string text(pem.substr(0, end));
  std::erase(text, '\n');
  const auto der = from_base64(text);
  if (!der) return std::nullopt;
  for (const Row& row : kRows)
    for (const std::size_t size : {2 * row.coordinate + 1, row.coordinate + 1}) {
      if (der->size() < size) continue;
      const Bytes point = Bytes(*der).last(size);
      if (spki_of(row.curve, point) == *der)
        return SpkiPoint{row.curve, Buffer(point.begin(), point.end())};
    }
  return std::nullopt;
}

Buffer compressed(Bytes point) {
  const std::size_t coordinate = point.size() / 2;
  Buffer out(point.begin(), point.begin() + static_cast<std::ptrdiff_t>(coordinate) + 1);
  out[0] = std::byte{2} | (point.back() & std::byte{1});
  return out;
}

}  // namespace wtool
