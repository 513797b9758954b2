# Small programs that tests/bench/bench runs; built only when it asks.
foreach(name open digest kernels)
  if(EXISTS ${CMAKE_CURRENT_LIST_DIR}/bench_${name}.cc)
    add_executable(bench_${name} EXCLUDE_FROM_ALL bench/bench_${name}.cc)
    target_link_libraries(bench_${name} PRIVATE wtool_formats OpenSSL::Crypto)
    set_target_properties(bench_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  endif()
endforeach()

# Other JSON parsers for comparison: nlohmann's, and simdjson where it is installed.
if(TARGET bench_open)
  target_link_libraries(bench_open PRIVATE nlohmann_json::nlohmann_json)
  find_package(simdjson QUIET)
  if(simdjson_FOUND)
    target_link_libraries(bench_open PRIVATE simdjson::simdjson)
    target_compile_definitions(bench_open PRIVATE WTOOL_HAVE_SIMDJSON)
  endif()
endif()

# The driver of llama.cpp's libraries is shared between checkouts, not part of the repository.
set(peer ${PROJECT_SOURCE_DIR}/../shared/peers/ggml_peer.cpp)
if(EXISTS ${peer})
  add_executable(ggml_peer EXCLUDE_FROM_ALL ${peer})
  target_compile_options(ggml_peer PRIVATE -w)
  set_target_properties(ggml_peer PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  target_link_libraries(ggml_peer PRIVATE ${CMAKE_DL_LIBS})
  set_target_properties(ggml_peer PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endif()
