# What `cmake --install` puts in place, and the packages made of it (cpack -G DEB, cpack -G TGZ).
include(GNUInstallDirs)

# The program writes its own completions, so they cannot lag behind its options.
set(completion_files)
foreach(shell bash zsh fish)
  set(file ${PROJECT_BINARY_DIR}/completions/wtool.${shell})
  add_custom_command(OUTPUT ${file}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/completions
    COMMAND wtool completion ${shell} > ${file}
    DEPENDS wtool VERBATIM)
  list(APPEND completion_files ${file})
endforeach()
add_custom_target(completions ALL DEPENDS ${completion_files})

set(completions ${PROJECT_BINARY_DIR}/completions)
install(TARGETS wtool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${completions}/wtool.bash RENAME wtool
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${completions}/wtool.zsh RENAME _wtool
  DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${completions}/wtool.fish
  DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(DIRECTORY man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING
  PATTERN "*.1" PATTERN schema EXCLUDE)
install(DIRECTORY man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man7 FILES_MATCHING
  PATTERN "*.7" PATTERN schema EXCLUDE)
install(DIRECTORY man/schema/ DESTINATION ${CMAKE_INSTALL_DATADIR}/wtool/schema FILES_MATCHING
  PATTERN "*.json")
install(FILES LICENSE RENAME copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md CHANGELOG.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_PACKAGE_NAME wtool)
set(CPACK_PACKAGE_VENDOR "The wtool authors")
set(CPACK_PACKAGE_CONTACT "The wtool authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_DESCRIPTION
  "Inspects, shows, converts, quantizes, digests and verifies the weight files of neural networks: safetensors, GGUF and NPY.")
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_FILE_NAME wtool-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
include(CPack)
