# Gives the op library its CUDA kernel: one PTX text, made by NVRTC and embedded, and the launcher for it.
#
# Included by CMakeLists.txt after the target lrops_ops. Sets LROPS_CUDA_FACTS, what lrops.build_info says. It needs no
# CUDA toolkit and must not know which flavour of TensorFlow it builds against.
set(LROPS_CUDA "AUTO" CACHE STRING "CUDA kernel: AUTO (ON where the Python that builds has NVRTC), ON or OFF")
set_property(CACHE LROPS_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT LROPS_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "LROPS_CUDA must be AUTO, ON or OFF. Received: LROPS_CUDA=${LROPS_CUDA}")
endif()

set(LROPS_CUDA_FACTS "none")
if(LROPS_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: off, as LROPS_CUDA=OFF asks")
  return()
endif()
set(_compile_ptx "${CMAKE_CURRENT_SOURCE_DIR}/cmake/compile_ptx.py")
execute_process(COMMAND "${Python_EXECUTABLE}" "${_compile_ptx}" RESULT_VARIABLE _result OUTPUT_VARIABLE _facts
                ERROR_VARIABLE _reason OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
if(NOT _result EQUAL 0)
  if(LROPS_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LROPS_CUDA=ON: ${_reason}, or build with -DLROPS_CUDA=OFF.")
  endif()
  message(STATUS "CUDA: off; ${_reason}")
  return()
endif()
set(LROPS_CUDA_FACTS "${_facts}")
message(STATUS "CUDA: on; ${LROPS_CUDA_FACTS}")

set(_generated "${CMAKE_CURRENT_BINARY_DIR}/generated")
set(_header "${_generated}/kernels/warmup_cosine_ptx.h")
file(MAKE_DIRECTORY "${_generated}/kernels")
add_custom_command(
  OUTPUT "${_header}"
  COMMAND "${Python_EXECUTABLE}" "${_compile_ptx}" "${_header}"
  DEPENDS "${_compile_ptx}" pyproject.toml cc/kernels/warmup_cosine.cu cc/formula/warmup_cosine.h
  COMMENT "Compiling warmup_cosine.cu to PTX"
  VERBATIM)
target_sources(lrops_ops PRIVATE cc/kernels/warmup_cosine_gpu.cc cc/kernels/cuda_driver.cc "${_header}")
target_include_directories(lrops_ops PRIVATE "${_generated}")
target_link_libraries(lrops_ops PRIVATE ${CMAKE_DL_LIBS})
