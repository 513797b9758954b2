#include "cli/json_edit.h"

#include "tests/catch.h"

namespace wtool {
namespace {

const std::string kTyped =
    "{\n"
    "  \"a\": [1,2,  3], \"eps\": 1e-05,\n"
    "  \"big\": 12345678901234567890123, \"x\": 1.50,\n"
    "  \"deep\": {\"q\": \"} , \\\" \\u00e9\", \"r\": [{}, []]}\n"
    "}\n";

TEST_CASE("A member that is added leaves every other byte of the object alone", "[json]") {
  CHECK(with_member(kTyped, "q", "{\"n\":[1]}") ==
        kTyped.substr(0, kTyped.size() - 3) +
            ",\n  \"q\": {\n    \"n\": [\n      1\n    ]\n  }\n}\n");
}

TEST_CASE("A member is set where it stands, also under an escaped name", "[json]") {
  CHECK(with_member("{\"a\": 1.0, \"\\u0062\" : [ 1 ] , \"c\":2e0}", "b", "\"n\"") ==
        "{\"a\": 1.0, \"\\u0062\" : \"n\" , \"c\":2e0}");
  CHECK(with_member("{\"b\":1,\"b\":2}", "b", "3") == "{\"b\":1,\"b\":3}");
  // Only members of the object itself are meant.
  CHECK(with_member("{\"a\": {\"b\": 1}}", "b", "2") == "{\"a\": {\"b\": 1}, \"b\": 2}");
}

TEST_CASE("A new member is laid out as its neighbours are", "[json]") {
  CHECK(with_member("{\"a\":1}", "b", "[1,{\"c\":2}]") == "{\"a\":1, \"b\": [1,{\"c\":2}]}");
  CHECK(with_member("{\n\t\"a\": 1\n}", "b", "[1]") == "{\n\t\"a\": 1,\n\t\"b\": [\n\t\t1\n\t]\n}");
  CHECK(with_member("{\r\n    \"a\": 1\r\n}", "b", "1") ==
        "{\r\n    \"a\": 1,\r\n    \"b\": 1\r\n}");
  CHECK(with_member("{}\n", "b", "1") == "{\n  \"b\": 1\n}\n");
  CHECK(with_member(" { \n }", "b", "true") == " {\n  \"b\": true\n}");
}

TEST_CASE("A member is removed with its comma, wherever it stands", "[json]") {
  CHECK(without_member("{\"a\": 1, \"b\": 2, \"c\": 3}", "a") == "{\"b\": 2, \"c\": 3}");
  CHECK(without_member("{\"a\": 1, \"b\": [2, \"}\"], \"c\": 3}", "b") == "{\"a\": 1, \"c\": 3}");
  CHECK(without_member("{\n  \"a\": 1,\n  \"b\": {\"a\": 2}\n}", "b") == "{\n  \"a\": 1\n}");
  CHECK(without_member("{\"a\": 1}", "a") == "{}");
  CHECK(without_member("{\"a\": 1, \"b\": 2, \"a\": 3}", "a") == "{\"b\": 2}");
  CHECK(without_member(kTyped, "nothing") == kTyped);
}

}  // namespace
}  // namespace wtool
