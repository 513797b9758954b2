# Every script of this folder but those that other lists run with arguments of their own: each in a
# fresh folder, with $WTOOL and $LIB set. A new script needs no line here.
file(GLOB cli_scripts CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.sh)
foreach(script ${cli_scripts})
  get_filename_component(name ${script} NAME_WE)
  if(name MATCHES "^(lib|run_in_fresh_folder|install_test|man_lint)$")
    continue()
  endif()
  add_test(NAME cli.${name}
    COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/run_in_fresh_folder.sh ${script})
  set_tests_properties(cli.${name} PROPERTIES LABELS cli TIMEOUT 120 SKIP_RETURN_CODE 77
    ENVIRONMENT "WTOOL=$<TARGET_FILE:wtool>;LIB=${CMAKE_CURRENT_LIST_DIR}/lib.sh;LC_ALL=C.UTF-8;SOURCE=${PROJECT_SOURCE_DIR}")
endforeach()

add_test(NAME cli.mixes COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/mixes_test.py
                                $<TARGET_FILE:wtool>)
set_tests_properties(cli.mixes PROPERTIES LABELS cli TIMEOUT 300)
add_test(NAME cli.hf COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/hf_test.py
                             $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
set_tests_properties(cli.hf PROPERTIES LABELS cli TIMEOUT 300)
add_test(NAME cli.stats COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/stats_test.py
                                $<TARGET_FILE:wtool>)
set_tests_properties(cli.stats PROPERTIES LABELS cli TIMEOUT 300)
add_test(NAME cli.diff COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/diff_test.py
                               $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
set_tests_properties(cli.diff PROPERTIES LABELS cli TIMEOUT 300)

add_test(NAME cli.limits COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/limits_test.py
                                 $<TARGET_FILE:wtool> ${PROJECT_SOURCE_DIR})
add_test(NAME cli.umask COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/umask_test.py
                                $<TARGET_FILE:wtool>)
add_test(NAME cli.compressed_folders COMMAND Python3::Interpreter
                                             ${CMAKE_CURRENT_LIST_DIR}/compressed_folders_test.py $<TARGET_FILE:wtool>)
set_tests_properties(cli.limits cli.umask cli.compressed_folders PROPERTIES LABELS cli TIMEOUT 300)
if(NOT WTOOL_SANITIZE)  # they take memory of their own
  add_test(NAME cli.memory COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/memory_test.py
                                   $<TARGET_FILE:wtool>)
  set_tests_properties(cli.memory PROPERTIES LABELS cli TIMEOUT 300)
endif()
