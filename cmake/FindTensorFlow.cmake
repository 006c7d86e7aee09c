# Finds the TensorFlow of the Python interpreter that builds, or the one in TensorFlow_ROOT, without importing it. Sets
# TensorFlow_VERSION, and makes TensorFlow::framework and TensorFlow::cc (XLA).
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/find_tensorflow.py" ${TensorFlow_ROOT}
  OUTPUT_VARIABLE _tensorflow OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT _tensorflow MATCHES "^(.+)\n(.+)$")
  message(FATAL_ERROR "lrops is built for a TensorFlow, and ${Python_EXECUTABLE} has none: run `pip install .` instead.")
endif()
set(_tensorflow_dir "${CMAKE_MATCH_1}")
set(TensorFlow_VERSION "${CMAKE_MATCH_2}")

add_compile_options("-ffile-prefix-map=${_tensorflow_dir}=tensorflow")  # its macros name their headers

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorFlow REQUIRED_VARS _tensorflow_dir VERSION_VAR TensorFlow_VERSION)

add_library(TensorFlow::framework SHARED IMPORTED)
set_target_properties(TensorFlow::framework PROPERTIES
  IMPORTED_LOCATION "${_tensorflow_dir}/libtensorflow_framework.so.2")
target_include_directories(TensorFlow::framework SYSTEM INTERFACE "${_tensorflow_dir}/include")
target_compile_definitions(TensorFlow::framework INTERFACE _GLIBCXX_USE_CXX11_ABI=1 EIGEN_MAX_ALIGN_BYTES=64)

# XLA's headers need two hash libraries, which TensorFlow's wheel carries outside its include path.
add_library(TensorFlow::cc SHARED IMPORTED)
set_target_properties(TensorFlow::cc PROPERTIES IMPORTED_LOCATION "${_tensorflow_dir}/libtensorflow_cc.so.2")
target_include_directories(TensorFlow::cc SYSTEM INTERFACE
  "${_tensorflow_dir}/include/external/highwayhash" "${_tensorflow_dir}/include/external/farmhash_archive/src")
target_link_libraries(TensorFlow::cc INTERFACE TensorFlow::framework)
# Headers that older minors lack; each file names its own. -idirafter lets TensorFlow's own headers win if they exist.
if(TensorFlow_VERSION VERSION_LESS 2.20)
  target_compile_options(TensorFlow::framework INTERFACE
    "SHELL:-idirafter \"${CMAKE_CURRENT_LIST_DIR}/older_tensorflow\"")
endif()
