# Commands whose calls fail, that are killed or disturbed: each list of faults is a script. The shim is
# preloaded into wtool, so it is C, small, and not under the sanitizers; nor are the runs (an address
# space of terabytes has no use for a limit), so with sanitizers these tests are left out.
if(WTOOL_SANITIZE OR WTOOL_STATIC)
  return()
endif()
enable_language(C)
add_library(fault_shim MODULE ${CMAKE_CURRENT_LIST_DIR}/shim.c)
set_target_properties(fault_shim PROPERTIES PREFIX "" C_STANDARD 11 C_EXTENSIONS ON)
target_link_libraries(fault_shim PRIVATE ${CMAKE_DL_LIBS})
foreach(name calls memory order races signals verdict)
  add_test(NAME faults.${name} COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/${name}_test.py
                                       $<TARGET_FILE:wtool> $<TARGET_FILE:fault_shim>)
  set_tests_properties(faults.${name} PROPERTIES LABELS faults TIMEOUT 300)
endforeach()
