# Tests against reference implementations. Each is skipped (77) where its peer is not installed.

find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
  add_test(NAME corpus
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/corpus.py $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
  # The system's Python is the one that has Debian's numpy.
  find_program(WTOOL_NUMPY_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH)
  if(NOT WTOOL_NUMPY_PYTHON)
    set(WTOOL_NUMPY_PYTHON ${Python3_EXECUTABLE})
  endif()
  add_test(NAME numpy_interop
    COMMAND ${WTOOL_NUMPY_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/numpy_interop.py $<TARGET_FILE:wtool>)
  add_test(NAME numpy_stats
    COMMAND ${WTOOL_NUMPY_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/numpy_stats.py $<TARGET_FILE:wtool>)
  add_test(NAME numpy_schemes
    COMMAND ${WTOOL_NUMPY_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/numpy_schemes.py $<TARGET_FILE:wtool>)
  # Any Python will do, but one with jsonschema also holds our bundles against the specification's schemas.
  add_test(NAME interop.oms
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/oms.py $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
  add_test(NAME interop.content
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/content.py $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
  add_test(NAME interop.planes
    COMMAND ${WTOOL_NUMPY_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/restore_planes.py test $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
  add_test(NAME interop.hf_back
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/hf_back.py $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
  set_tests_properties(interop.content interop.hf_back PROPERTIES LABELS interop TIMEOUT 300)
  set_tests_properties(interop.planes PROPERTIES SKIP_RETURN_CODE 77 LABELS interop TIMEOUT 300)
  set_tests_properties(interop.oms PROPERTIES LABELS interop TIMEOUT 600)
  set_tests_properties(corpus numpy_interop numpy_stats numpy_schemes PROPERTIES SKIP_RETURN_CODE 77 LABELS interop TIMEOUT 300)
  if(WTOOL_SANITIZE)
    set_tests_properties(corpus PROPERTIES ENVIRONMENT "WTOOL_SANITIZED=1")
  endif()
endif()

# llama.cpp's library and @huggingface/gguf: found in $WTOOL_PEERS (a node_modules folder), else
# where scripts/peers puts them.
add_executable(ggml_reader interop/ggml_reader.cc)
target_link_libraries(ggml_reader PRIVATE ${CMAKE_DL_LIBS})
add_executable(gguf_sample interop/gguf_sample.cc)
target_link_libraries(gguf_sample PRIVATE wtool_formats)
foreach(subject layout convert)
  add_test(NAME interop.gguf_${subject}
    COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/gguf_interop.sh ${subject} $<TARGET_FILE:wtool>
            $<TARGET_FILE:gguf_sample> $<TARGET_FILE:ggml_reader>)
  set_tests_properties(interop.gguf_${subject} PROPERTIES LABELS interop SKIP_RETURN_CODE 77
                       TIMEOUT 120 ENVIRONMENT
                       "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp")
endforeach()

# The types that mixes give, against llama.cpp's own quantiser.
add_executable(ggml_quantize_model interop/ggml_quantize_model.cc)
target_link_libraries(ggml_quantize_model PRIVATE ${CMAKE_DL_LIBS})
add_executable(mix_types interop/mix_types.cc)
target_link_libraries(mix_types PRIVATE wtool_formats)
set(sanitized 0)
if(WTOOL_SANITIZE)
  set(sanitized 1)
endif()
if(Python3_FOUND)
  foreach(subject types bytes)
    set(ours $<TARGET_FILE:mix_types>)
    if(subject STREQUAL bytes)
      set(ours $<TARGET_FILE:wtool>)
    endif()
    add_test(NAME interop.mixes_${subject}
      COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/mixes_interop.py ${subject} ${ours}
              $<TARGET_FILE:ggml_quantize_model>)
    set_tests_properties(interop.mixes_${subject} PROPERTIES LABELS interop SKIP_RETURN_CODE 77
                         TIMEOUT 300 ENVIRONMENT
                         "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp;WTOOL_SANITIZED=${sanitized}")
  endforeach()
endif()

# Quantised and decoded blocks against ggml's.
add_executable(ggml_quantize interop/ggml_quantize.cc)
target_link_libraries(ggml_quantize PRIVATE wtool_lib ${CMAKE_DL_LIBS})
target_compile_definitions(ggml_quantize PRIVATE WTOOL_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
add_test(NAME interop.ggml_quantize COMMAND ggml_quantize)
set_tests_properties(interop.ggml_quantize PROPERTIES LABELS interop SKIP_RETURN_CODE 77 TIMEOUT 300
                     ENVIRONMENT "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp")

# Hugging Face folders against llama.cpp's converter, and run by its library.
if(Python3_FOUND)
  foreach(subject files runs)
    set(name interop.hf2gguf)
    if(subject STREQUAL runs)
      set(name interop.hf2gguf_runs)
    endif()
    add_test(NAME ${name}
      COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/hf2gguf.py ${subject} $<TARGET_FILE:wtool>
              ${PROJECT_SOURCE_DIR} $<TARGET_FILE:ggml_quantize_model>)
    set_tests_properties(${name} PROPERTIES LABELS interop SKIP_RETURN_CODE 77 TIMEOUT 300 ENVIRONMENT
                         "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp")
  endforeach()
  add_test(NAME interop.hf_architectures
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/hf_architectures.py $<TARGET_FILE:wtool>
            ${PROJECT_SOURCE_DIR} $<TARGET_FILE:ggml_quantize_model>)
  set_tests_properties(interop.hf_architectures PROPERTIES LABELS interop SKIP_RETURN_CODE 77 TIMEOUT 300 ENVIRONMENT
                       "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp")
endif()
