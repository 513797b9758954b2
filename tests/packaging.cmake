# Installation, man pages, schemas, hardening.
find_package(Python3 COMPONENTS Interpreter)

add_test(NAME cli.install COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/cli/install_test.sh
  ${PROJECT_BINARY_DIR} ${PROJECT_SOURCE_DIR})
add_test(NAME cli.man_lint COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/cli/man_lint.sh
  ${PROJECT_SOURCE_DIR}/man)
set_tests_properties(cli.man_lint PROPERTIES SKIP_RETURN_CODE 77)
if(Python3_FOUND)
  add_test(NAME cli.options_drift COMMAND ${Python3_EXECUTABLE}
    ${CMAKE_CURRENT_LIST_DIR}/cli/options_drift.py $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR}/man)
  add_test(NAME cli.schema COMMAND ${Python3_EXECUTABLE}
    ${CMAKE_CURRENT_LIST_DIR}/cli/schema_test.py $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR}/man/schema)
  set_tests_properties(cli.options_drift cli.schema PROPERTIES LABELS cli TIMEOUT 120)
endif()
set_tests_properties(cli.install cli.man_lint PROPERTIES LABELS cli TIMEOUT 120)
if(NOT WTOOL_SANITIZE)
  add_test(NAME cli.hardening COMMAND ${Python3_EXECUTABLE}
    ${CMAKE_CURRENT_LIST_DIR}/cli/hardening_test.py $<TARGET_FILE:wtool> ${CMAKE_CXX_COMPILER})
  set_tests_properties(cli.hardening PROPERTIES LABELS cli TIMEOUT 120 SKIP_RETURN_CODE 77)
endif()
