# find_package first, pkg-config second. With WTOOL_STATIC the static libraries are taken.
if(WTOOL_STATIC)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
  set(OPENSSL_USE_STATIC_LIBS ON)
endif()

find_package(fmt REQUIRED)
add_library(wtool_fmt INTERFACE)
if(WTOOL_STATIC)  # Debian's package has no static library, but the sources
  target_link_libraries(wtool_fmt INTERFACE fmt::fmt-header-only)
else()
  target_link_libraries(wtool_fmt INTERFACE fmt::fmt)
endif()
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(OpenSSL 3 REQUIRED COMPONENTS Crypto)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

add_library(wtool_re2 INTERFACE)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
if(WTOOL_STATIC)
  target_link_libraries(wtool_re2 INTERFACE ${RE2_STATIC_LDFLAGS})
else()
  target_link_libraries(wtool_re2 INTERFACE PkgConfig::RE2)
endif()

# Highway is used for its headers: the choice of instruction set is our own (lib/numeric/kernels), so
# nothing links to its library and the static binary needs no static libhwy.
add_library(wtool_highway INTERFACE)
find_path(HIGHWAY_INCLUDE hwy/highway.h REQUIRED)
target_include_directories(wtool_highway SYSTEM INTERFACE ${HIGHWAY_INCLUDE})

add_library(wtool_zstd INTERFACE)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
if(WTOOL_STATIC)
  target_link_libraries(wtool_zstd INTERFACE ${ZSTD_STATIC_LDFLAGS})
else()
  target_link_libraries(wtool_zstd INTERFACE PkgConfig::ZSTD)
endif()
