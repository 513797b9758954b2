# What `wtool --version` says: the commit, looked up at every build and written only when it changed,
# and the versions of libraries whose headers do not tell.
add_custom_target(wtool_revision
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUT=${PROJECT_BINARY_DIR}/generated/revision.h
          -P ${PROJECT_SOURCE_DIR}/cmake/write_revision.cmake
  BYPRODUCTS ${PROJECT_BINARY_DIR}/generated/revision.h)
add_dependencies(wtool_cli wtool_revision)
target_include_directories(wtool_cli PRIVATE ${PROJECT_BINARY_DIR}/generated)

pkg_check_modules(HWY libhwy)
# RE2's headers and package file have no version; its library's file name has one.
set(wtool_re2_version "unknown")
find_library(WTOOL_RE2_FILE re2)
if(WTOOL_RE2_FILE)
  get_filename_component(wtool_re2_real "${WTOOL_RE2_FILE}" REALPATH)
  if(wtool_re2_real MATCHES "\\.so\\.([0-9.]+)$")
    set(wtool_re2_version "${CMAKE_MATCH_1}")
  endif()
endif()
set_source_files_properties(cli/version.cc PROPERTIES COMPILE_DEFINITIONS
  "WTOOL_VERSION=\"${PROJECT_VERSION}\";WTOOL_RE2_VERSION=\"${wtool_re2_version}\";WTOOL_JSON_VERSION=\"${nlohmann_json_VERSION}\";WTOOL_HIGHWAY_VERSION=\"${HWY_VERSION}\"")
