// The Python module lrops._native: the formula over NumPy arrays, the rules for hyper-parameters, and build facts.
// It works without TensorFlow.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "formula/schedule.h"

namespace py = pybind11;

namespace lrops {
extern const char* const kBuildInfo[6][2];  // in build_info.cc
}  // namespace lrops

namespace {

// The dtype of that name, if all rules hold.
template <class H>
const lrops::Dtype& Check(const H& hyperparameters, const std::string& dtype) {
  const lrops::Dtype* found = lrops::FindDtype(dtype);
  if (found == nullptr) {
    throw py::value_error("dtype must be 'float16', 'bfloat16', 'float32' or 'float64'. Received: dtype='" + dtype +
                          "'");
  }
  const std::string error = RuleError(hyperparameters, *found);
  if (!error.empty()) throw py::value_error(error);
  return *found;
}

template <class T>
T Cast(const char* name, const py::kwargs& arguments) {
  if (!arguments.contains(name)) throw py::type_error(std::string("missing the argument ") + name);
  const py::object value = arguments[name];
  try {
    return value.cast<T>();
  } catch (const py::cast_error&) {
    throw py::type_error(std::string(name) +
                         (std::is_same_v<T, double>        ? " must be a number."
                          : std::is_same_v<T, std::string> ? " must be a string."
                                                           : " must be an integer of 64 bits.") +
                         " Received: " + name + "=" + py::repr(value).cast<std::string>());
  }
}

// The rates of a curve. H is one of the ...Parameters; `arguments` holds the members of H by name, and the dtype.
template <class H>
py::array LearningRates(const py::array_t<std::int64_t, 0>& strided, const py::kwargs& arguments) {
  H hyperparameters;
  std::size_t known = 1;
  hyperparameters.Visit([&](const char* name, auto& value) {
    value = Cast<std::decay_t<decltype(value)>>(name, arguments);
    ++known;
  });
  const std::string dtype = Cast<std::string>("dtype", arguments);
  if (arguments.size() != known)
    throw py::type_error("unknown argument among " + py::repr(arguments).cast<std::string>());
  const lrops::Dtype& stored = Check(hyperparameters, dtype);
  const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast> step(strided);  // copied if need be
  const std::vector<py::ssize_t> shape(step.shape(), step.shape() + step.ndim());
  py::array result(py::dtype::from_args(py::str(dtype)), shape);
  void* out = result.mutable_data();
  const std::int64_t* in = step.data();
  const py::ssize_t count = step.size();
  {
    py::gil_scoped_release release;
    lrops::MakeSchedule(hyperparameters, stored).LearningRates(in, count, out);
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() = "The lrops formula over NumPy arrays, the rules for its hyper-parameters, and build facts.";
  m.def("warmup_decay", &LearningRates<lrops::DecayParameters>, py::arg("step").noconvert(),
        "The learning rate at `step`, an int64 array of any shape, as an array of `dtype` of that shape.\n"
        "Takes every argument of lrops.WarmupDecay except `name`, as a keyword. Releases the GIL.\n"
        "Raises ValueError for a broken rule and TypeError for a wrong type or name.");
  m.def("warmup_inverse_sqrt", &LearningRates<lrops::InverseSqrtParameters>, py::arg("step").noconvert(),
        "As warmup_decay, with the arguments of lrops.WarmupInverseSqrt.");
  m.def("warmup_cosine_restarts", &LearningRates<lrops::RestartsParameters>, py::arg("step").noconvert(),
        "As warmup_decay, with the arguments of lrops.WarmupCosineRestarts.");
  m.def(
      "cycle_starts",
      [](std::int64_t warmup_steps, std::int64_t first_decay_steps, double t_mul, std::int64_t at_most) {
        lrops::RestartsParameters restarts{{1, warmup_steps, 0, 0}, first_decay_steps, t_mul, 1, 0, 1};
        Check(restarts, "float64");
        restarts.cycles = at_most;
        return lrops::CycleStarts(restarts);
      },
      py::kw_only(), py::arg("warmup_steps"), py::arg("first_decay_steps"), py::arg("t_mul"), py::arg("at_most"),
      "The first step of each cycle of lrops.WarmupCosineRestarts, counted from its start_step, and the end of the\n"
      "last. Gives at most `at_most` cycles, and at most 65. Raises ValueError if an argument breaks a rule.");
  py::dict build_info;
  for (const auto& [fact, value] : lrops::kBuildInfo) build_info[fact] = value;
  m.attr("build_info") = build_info;
}
