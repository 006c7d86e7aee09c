# Finds the TensorFlow of the Python interpreter that builds, by asking it once.
#
# Called by CMakeLists.txt after find_package(Python). Sets TensorFlow_VERSION and TensorFlow_MINOR ("2.21"), and makes
# the targets TensorFlow::framework and TensorFlow::cc (XLA). Finding it imports no TensorFlow, which would take seconds.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c [=[
import importlib.metadata, importlib.util
names = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu", "tensorflow-gpu")
found = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
versions = [found[name] for name in names if name in found]
spec = importlib.util.find_spec("tensorflow")
if spec is not None and versions:
    print(spec.submodule_search_locations[0])
    print(versions[0])
]=]
  OUTPUT_VARIABLE _tensorflow
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE _tensorflow_result)
string(REPLACE "\n" ";" _tensorflow "${_tensorflow}")
list(LENGTH _tensorflow _tensorflow_lines)
if(NOT _tensorflow_result EQUAL 0 OR NOT _tensorflow_lines EQUAL 2)
  if(LROPS_TENSORFLOW)
    set(_tensorflow_pin "==${LROPS_TENSORFLOW}.*")
  endif()
  message(FATAL_ERROR "lrops is built against TensorFlow, and ${Python_EXECUTABLE} has none: "
                      "run `pip install tensorflow-cpu${_tensorflow_pin}` there, or build with pip's isolation.")
endif()
list(GET _tensorflow 0 _tensorflow_dir)
list(GET _tensorflow 1 TensorFlow_VERSION)
string(REGEX MATCH "^[0-9]+\\.[0-9]+" TensorFlow_MINOR "${TensorFlow_VERSION}")

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorFlow REQUIRED_VARS _tensorflow_dir VERSION_VAR TensorFlow_VERSION)

add_library(TensorFlow::framework SHARED IMPORTED)
set_target_properties(TensorFlow::framework PROPERTIES
  IMPORTED_LOCATION "${_tensorflow_dir}/libtensorflow_framework.so.2"
  IMPORTED_NO_SONAME FALSE)
target_include_directories(TensorFlow::framework SYSTEM INTERFACE "${_tensorflow_dir}/include")
target_compile_definitions(TensorFlow::framework INTERFACE _GLIBCXX_USE_CXX11_ABI=1 EIGEN_MAX_ALIGN_BYTES=64)

# XLA: its headers want two hash libraries, which TensorFlow's wheel carries off its include path.
add_library(TensorFlow::cc SHARED IMPORTED)
set_target_properties(TensorFlow::cc PROPERTIES IMPORTED_LOCATION "${_tensorflow_dir}/libtensorflow_cc.so.2")
target_include_directories(TensorFlow::cc SYSTEM INTERFACE
  "${_tensorflow_dir}/include/external/highwayhash" "${_tensorflow_dir}/include/external/farmhash_archive/src")
target_link_libraries(TensorFlow::cc INTERFACE TensorFlow::framework)
