# What makes a memory error harder to use. tests/cli/hardening_test.py reads the binary for each of these.
# Whoever packages wtool may have flags of his own: ours come first, his CMAKE_CXX_FLAGS are added to them.
include(CheckCXXCompilerFlag)

# Checks of std's indices, fronts and pointers cost nothing that can be measured (tests/bench): everywhere.
add_compile_definitions(_GLIBCXX_ASSERTIONS)
if(WTOOL_SANITIZE)
  return()  # the sanitizers watch the stack and the calls themselves
endif()

# A definition of the distribution's own is taken back first. Without optimisation glibc only warns.
set(wtool_optimised "$<OR:$<CONFIG:Release>,$<CONFIG:RelWithDebInfo>,$<CONFIG:MinSizeRel>>")
add_compile_options("$<${wtool_optimised}:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>" -fstack-protector-strong)
foreach(flag -fstack-clash-protection -fcf-protection=full -mbranch-protection=standard)
  string(MAKE_C_IDENTIFIER "WTOOL_HAS${flag}" known)
  check_cxx_compiler_flag("-Werror ${flag}" ${known})  # two of them are of one processor family each
  if(${known})
    add_compile_options(${flag})
  endif()
endforeach()

# Programs at a place that nobody knows before; what is loaded with them (a module of tests) is -fPIC already.
add_compile_options("$<$<NOT:$<STREQUAL:$<TARGET_PROPERTY:TYPE>,MODULE_LIBRARY>>:-fPIE>")
if(NOT WTOOL_STATIC)  # that one is linked as -static-pie
  add_link_options("$<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-pie>")
endif()
add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
