// The Python module lrops._native: the formula over NumPy arrays, the rules for hyper-parameters, and build facts.
//
// Imported by lrops/schedules.py, callbacks and tests. It must not know TensorFlow: it works where that cannot load.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formula/curve.h"
#include "formula/restarts.h"

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

template <class H>
void Check(const H& hyperparameters, const lrops::Dtype& dtype) {
  const std::string refusal = Refusal(hyperparameters, dtype);
  if (!refusal.empty()) throw py::value_error(refusal);
}

// The rates of a curve, of type Decay or Restarts, after its rules were checked.
template <class H>
py::array LearningRates(const py::array_t<std::int64_t, 0>& strided, const H& hyperparameters,
                        const std::string& dtype) {
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
  m.def(
      "warmup_cosine_decay",
      [](const py::array_t<std::int64_t, 0>& step, double initial_learning_rate, std::int64_t warmup_steps,
         std::int64_t total_steps, double alpha, std::int64_t hold_steps, double warmup_start, std::int64_t start_step,
         const std::string& dtype) {
        const lrops::Decay decay{
            {initial_learning_rate, warmup_steps, alpha, warmup_start, start_step}, total_steps, hold_steps};
        return LearningRates(step, decay, dtype);
      },
      py::arg("step").noconvert(), py::kw_only(), py::arg("initial_learning_rate"), py::arg("warmup_steps"),
      py::arg("total_steps"), py::arg("alpha") = 0.001, py::arg("hold_steps") = 0, py::arg("warmup_start") = 0.0,
      py::arg("start_step") = 0, py::arg("dtype") = "float64",
      "The learning rate at `step`, an int64 array of any shape, as an array of `dtype` of that shape.\n"
      "Releases the GIL. The arguments are those of lrops.WarmupCosineDecay. Raises ValueError where they are.");
  m.def(
      "warmup_cosine_restarts",
      [](const py::array_t<std::int64_t, 0>& step, double initial_learning_rate, std::int64_t warmup_steps,
         std::int64_t first_decay_steps, double t_mul, double m_mul, double alpha, std::optional<std::int64_t> cycles,
         double warmup_start, std::int64_t start_step, const std::string& dtype) {
        const lrops::Restarts restarts{{initial_learning_rate, warmup_steps, alpha, warmup_start, start_step},
                                       first_decay_steps,
                                       t_mul,
                                       m_mul,
                                       cycles};
        return LearningRates(step, restarts, dtype);
      },
      py::arg("step").noconvert(), py::kw_only(), py::arg("initial_learning_rate"), py::arg("warmup_steps"),
      py::arg("first_decay_steps"), py::arg("t_mul") = 2.0, py::arg("m_mul") = 1.0, py::arg("alpha") = 0.001,
      py::arg("cycles") = py::none(), py::arg("warmup_start") = 0.0, py::arg("start_step") = 0,
      py::arg("dtype") = "float64", "As warmup_cosine_decay, with the arguments of lrops.WarmupCosineRestarts.");
  m.def(
      "cycle_starts",
      [](std::int64_t warmup_steps, std::int64_t first_decay_steps, double t_mul, std::int64_t at_most) {
        lrops::Restarts restarts{{1, warmup_steps, 0, 0, 0}, first_decay_steps, t_mul, 1, 1};
        Check(restarts, DtypeNamed("float64"));
        restarts.cycles = at_most;
        return lrops::CycleStarts(restarts);
      },
      py::kw_only(), py::arg("warmup_steps"), py::arg("first_decay_steps"), py::arg("t_mul"), py::arg("at_most"),
      "The first step of each cycle of lrops.WarmupCosineRestarts, counted from its start_step, and the end of the\n"
      "last: of no more than `at_most` cycles, nor more than 65. Raises ValueError where an argument breaks a rule.");
  py::dict build_info;
  build_info["version"] = LROPS_VERSION;
  build_info["commit"] = LROPS_COMMIT;
  build_info["tensorflow"] = LROPS_TENSORFLOW_VERSION;
  build_info["compiler"] = LROPS_COMPILER;
  build_info["cuda"] = LROPS_CUDA;
  m.attr("build_info") = build_info;
}
