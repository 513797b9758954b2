#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "lib/base/bytes.h"
#include "lib/trust/key.h"

namespace wtool {

// SubjectPublicKeyInfo (RFC 5480) of a key on one of our curves: the algorithm, then the point, as
// 04 X Y or compressed to 02 or 03 and X. OpenSSL's own reader and writer take a millisecond.
Buffer spki_of(Curve curve, Bytes point);
std::string pem_of_spki(Bytes der);

// Of the first such PEM block in a text. Nothing if it is of any other kind, or not written as
// everybody writes it: then OpenSSL may judge it. That it is a point of the curve is not checked.
struct SpkiPoint {
  Curve curve;
  Buffer point;
};
std::optional<SpkiPoint> point_of_pem(std::string_view pem);

// 04 X Y compressed.
Buffer compressed(Bytes point);

}  // namespace wtool
