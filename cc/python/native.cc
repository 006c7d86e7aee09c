// The Python module lrops._native: the formula over NumPy arrays, the rules for hyper-parameters, and build facts.
//
// Imported by lrops/schedules.py, callbacks and tests. It must not know TensorFlow: it works where that cannot load.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "formula/curve.h"

namespace py = pybind11;

namespace {

const lrops::Dtype& DtypeNamed(const std::string& name) {
  const lrops::Dtype* dtype = lrops::FindDtype(name);
  if (dtype == nullptr) {
    throw py::value_error("dtype must be 'float16', 'bfloat16', 'float32' or 'float64'. Received: dtype='" + name +
                          "'");
  }
  return *dtype;
}

void Check(const lrops::Hyperparameters& hyperparameters, const lrops::Dtype& dtype) {
  const std::string refusal = lrops::Refusal(hyperparameters, dtype);
  if (!refusal.empty()) throw py::value_error(refusal);
}

py::array WarmupCosineDecay(const py::array_t<std::int64_t, 0>& strided, double initial_learning_rate,
                            std::int64_t warmup_steps, std::int64_t total_steps, double alpha, std::int64_t hold_steps,
                            double warmup_start, std::int64_t start_step, const std::string& dtype) {
  const lrops::Hyperparameters hyperparameters{initial_learning_rate, warmup_steps, total_steps, alpha, hold_steps,
                                               warmup_start,          start_step};
  const lrops::Dtype& stored = DtypeNamed(dtype);
  Check(hyperparameters, stored);
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
  m.def("warmup_cosine_decay", &WarmupCosineDecay, py::arg("step").noconvert(), py::kw_only(),
        py::arg("initial_learning_rate"), py::arg("warmup_steps"), py::arg("total_steps"), py::arg("alpha") = 0.001,
        py::arg("hold_steps") = 0, py::arg("warmup_start") = 0.0, py::arg("start_step") = 0,
        py::arg("dtype") = "float64",
        "The learning rate at `step`, an int64 array of any shape, as an array of `dtype` of that shape.\n"
        "Releases the GIL. The arguments are those of lrops.WarmupCosineDecay. Raises ValueError where they are.");
  m.def(
      "check",
      [](double initial_learning_rate, std::int64_t warmup_steps, std::int64_t total_steps, double alpha,
         std::int64_t hold_steps, double warmup_start, std::int64_t start_step, const std::string& dtype) {
        Check({initial_learning_rate, warmup_steps, total_steps, alpha, hold_steps, warmup_start, start_step},
              DtypeNamed(dtype));
      },
      py::kw_only(), py::arg("initial_learning_rate"), py::arg("warmup_steps"), py::arg("total_steps"),
      py::arg("alpha"), py::arg("hold_steps"), py::arg("warmup_start"), py::arg("start_step"), py::arg("dtype"),
      "Raises ValueError, with the argument, the rule and the value, where a hyper-parameter breaks a rule.");
  py::dict build_info;
  build_info["version"] = LROPS_VERSION;
  build_info["commit"] = LROPS_COMMIT;
  build_info["tensorflow"] = LROPS_TENSORFLOW_VERSION;
  build_info["compiler"] = LROPS_COMPILER;
  build_info["cuda"] = LROPS_CUDA;
  m.attr("build_info") = build_info;
}
