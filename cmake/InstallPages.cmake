# Run by `cmake --install`; `glovebox` is the program that was built.
set(share "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/share")
set(bash "${share}/bash-completion/completions/glovebox")
set(fish "${share}/fish/vendor_completions.d/glovebox.fish")
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(zsh "${share}/zsh/vendor-completions/_glovebox")
else()
  set(zsh "${share}/zsh/site-functions/_glovebox")
endif()

execute_process(COMMAND "${glovebox}" --home /nonexistent man --dir "${share}/man/man1" COMMAND_ERROR_IS_FATAL ANY)
foreach(shell bash zsh fish)
  execute_process(COMMAND "${glovebox}" --home /nonexistent completion ${shell} OUTPUT_VARIABLE script
                  COMMAND_ERROR_IS_FATAL ANY)
  file(WRITE "${${shell}}" "${script}")
endforeach()
