# Small programs that tests/bench/bench runs; built only when it asks.
foreach(name open digest kernels ggml stats check pack)
  if(EXISTS ${CMAKE_CURRENT_LIST_DIR}/bench_${name}.cc)
    add_executable(bench_${name} EXCLUDE_FROM_ALL bench/bench_${name}.cc)
    target_link_libraries(bench_${name} PRIVATE wtool_formats OpenSSL::Crypto wtool_zstd)
    set_target_properties(bench_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  endif()
endforeach()

if(TARGET bench_ggml)
  target_compile_definitions(bench_ggml PRIVATE WTOOL_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(bench_ggml PRIVATE ${CMAKE_DL_LIBS})
endif()

# Other JSON parsers for comparison: nlohmann's, and simdjson where it is installed.
if(TARGET bench_open)
  target_link_libraries(bench_open PRIVATE nlohmann_json::nlohmann_json)
  find_package(simdjson QUIET)
  if(simdjson_FOUND)
    target_link_libraries(bench_open PRIVATE simdjson::simdjson)
    target_compile_definitions(bench_open PRIVATE WTOOL_HAVE_SIMDJSON)
  endif()
endif()
