# Compiler settings and the three functions that every folder's CMakeLists.txt uses.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Dev CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_DEV "-O1 -g1")
set(CMAKE_C_FLAGS_DEV "-O1 -g1")
# Assertions stay on in what is shipped.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g1")
find_program(GBX_CCACHE ccache)
if(GBX_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${GBX_CCACHE})
endif()

option(GBX_SANITIZE "Build with AddressSanitizer and UBSan" OFF)
option(GBX_TSAN "Build with ThreadSanitizer" OFF)
option(GBX_FUZZ "Build libFuzzer targets (clang only)" OFF)

add_library(gbx_flags INTERFACE)
target_compile_options(gbx_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow -Werror
  -fstack-protector-strong -fstack-clash-protection
  -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms of GCC 12 at -O2 and above on std::string and std::variant (GCC bugs 105651, 105562), and below the sanitizers
  # inside <regex>. The -O1 build keeps both.
  target_compile_options(gbx_flags INTERFACE $<$<CONFIG:Release>:-Wno-restrict>
    $<$<OR:$<CONFIG:Release>,$<BOOL:${GBX_SANITIZE}>>:-Wno-maybe-uninitialized>)
endif()
target_link_options(gbx_flags INTERFACE -Wl,-z,relro,-z,now)
if(GBX_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(GBX_TSAN)
  add_compile_options(-fsanitize=thread -Wno-tsan)  # Asio's fences: it locks as well, and that is seen
  add_link_options(-fsanitize=thread)
else()
  target_compile_definitions(gbx_flags INTERFACE
    $<$<OR:$<CONFIG:Dev>,$<CONFIG:Release>>:_FORTIFY_SOURCE=2> _GLIBCXX_ASSERTIONS)
endif()
if(GBX_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
endif()

find_package(OpenSSL 3.0 REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(GTest REQUIRED)

# gbx_library(name SOURCES ... LINK ... PRIVATE_LINK ...): one static library for one folder of src/.
# LINK names the folders that it may include; a test holds the includes against these lists.
function(gbx_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(gbx_${name} STATIC ${A_SOURCES})
  target_include_directories(gbx_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  set(links "")
  foreach(l ${A_LINK})
    list(APPEND links gbx_${l})
  endforeach()
  target_link_libraries(gbx_${name} PUBLIC ${links} PRIVATE gbx_flags ${A_PRIVATE_LINK})
endfunction()

# gbx_program(file-name SOURCES ... LINK ... PRIVATE_LINK ...)
function(gbx_program name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  set(links "")
  foreach(l ${A_LINK})
    list(APPEND links gbx_${l})
  endforeach()
  target_link_libraries(${name} PRIVATE ${links} gbx_flags ${A_PRIVATE_LINK})
  # Side by side: each finds the others beside itself.
  if(name MATCHES "^glovebox")
    install(TARGETS ${name} RUNTIME DESTINATION bin)
  endif()
endfunction()

# gbx_test(name SOURCES ... LINK ... PRIVATE_LINK ...): one GoogleTest binary, one ctest entry for it.
# Tests find the source tree in GBX_SOURCE_DIR and the programs in GBX_BIN_DIR.
function(gbx_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LINK;PRIVATE_LINK;LABELS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  set(links "")
  foreach(l ${A_LINK})
    list(APPEND links gbx_${l})
  endforeach()
  target_link_libraries(${name} PRIVATE ${links} gbx_flags GTest::gtest GTest::gtest_main ${A_PRIVATE_LINK})
  add_test(NAME ${name} COMMAND ${name})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
    if(GBX_SANITIZE OR GBX_TSAN)
      set(A_TIMEOUT 1200)
    endif()
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}"
    ENVIRONMENT "GBX_SOURCE_DIR=${CMAKE_SOURCE_DIR};GBX_BIN_DIR=${CMAKE_BINARY_DIR}/bin")
endfunction()
