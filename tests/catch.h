#pragma once
// Catch2 in the version that Debian has (2) or the next one (3).
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
