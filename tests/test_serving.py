"""SavedModels that hold the op, and what docs/clusters.md says about serving, converting and other tools."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import output_of, run_snippet
from training import dense_model, fit

import lrops
from lrops import reference

NAME = "Lrops>WarmupDecay"


class Rate(tf.Module):
    """A program for a SavedModel: a function of the step."""

    def __init__(self, function):
        super().__init__()
        signature = [tf.TensorSpec([], tf.int64, name="step")]
        self.rate = tf.function(lambda step: {"rate": function(step)}, input_signature=signature)


@pytest.fixture
def saved(tmp_path):
    """A SavedModel that holds the op."""
    module = Rate(lrops.WarmupCosineDecay(1e-3, 10, 100))
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.rate})
    assert NAME.encode() in (tmp_path / "saved/saved_model.pb").read_bytes()
    return tmp_path / "saved"


def test_a_training_step_goes_on_where_it_was_saved(tmp_path):
    optimizer = keras.optimizers.AdamW(lrops.WarmupCosineDecay(0.01, 8, 40), weight_decay=0.1)
    weights = [keras.Variable(np.ones(3, "float32")) for _ in range(3)]
    optimizer.build(weights)
    module = tf.Module()
    module.variables_of_it = [variable.value for variable in [*weights, *optimizer.variables]]

    @tf.function(input_signature=[])
    def step():
        rate = optimizer.learning_rate
        optimizer.apply([tf.ones(3)] * 3)
        return rate

    module.step = step
    for _ in range(5):
        step()
    tf.saved_model.save(module, tmp_path / "model")
    load = """
import tensorflow as tf
module = tf.saved_model.load("model")
print([float(module.step()) for _ in range(30)])
"""
    rates = reference.warmup_decay(np.arange(5, 35), 0.01, 8, 40).tolist()
    assert output_of("import lrops" + load, folder=tmp_path) == f"{rates}\n"
    result = run_snippet(load, folder=tmp_path)
    assert result.returncode == 1 and NAME in result.stderr.strip().splitlines()[-1], result.stderr


@pytest.mark.filterwarnings("ignore")
def test_an_exported_model_holds_no_op(tmp_path):
    fit(model := dense_model(keras.optimizers.AdamW(lrops.WarmupCosineDecay(1e-3, 10, 100))))
    model.export(tmp_path / "exported", verbose=False)
    assert b"Lrops" not in (tmp_path / "exported/saved_model.pb").read_bytes()


def test_saved_model_cli(saved):
    run = ["run", "--dir", saved, *"--tag_set serve --signature_def serving_default --input_exprs step=5".split()]
    script = "from tensorflow.python.tools import saved_model_cli; saved_model_cli.main()"
    result = run_snippet(script, *run, folder=saved)
    assert result.returncode == 1 and f"Op type not registered '{NAME}'" in result.stderr, result
    assert "0.0005" in output_of(f"import lrops; {script}", *run, folder=saved)


def test_a_process_that_loads_the_op_library_by_its_path(saved):
    script = f"""
import ctypes, os, sys
import tensorflow as tf  # for its C API
framework = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_framework.so.2"))
cc = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2"))
framework.TF_NewStatus.restype = ctypes.c_void_p
status = ctypes.c_void_p(framework.TF_NewStatus())
cc.TF_LoadLibrary.restype = ctypes.c_void_p
assert cc.TF_LoadLibrary({lrops.op_library_path()!r}.encode(), status)
assert framework.TF_GetCode(status) == 0 and "lrops" not in sys.modules
print(tf.saved_model.load({str(saved)!r}).signatures["serving_default"](tf.constant(5, tf.int64))["rate"].numpy())
"""
    assert output_of(script, folder=saved) == "0.0005\n"


@pytest.mark.filterwarnings("ignore")
def test_tflite_takes_a_table(saved):
    with pytest.raises(Exception, match=f"'tf.{NAME}' op is neither a custom op nor a flex op"):
        tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert()
    schedule = lrops.WarmupCosineDecay(1e-3, 10, 100)
    table = schedule.on_host(np.arange(101))
    module = Rate(lambda step: tf.gather(tf.constant(table), tf.minimum(step, 100)))
    function = module.rate.get_concrete_function()
    model = tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert()
    interpreter = tf.lite.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    for step in (0, 5, 50, 100, 10**12):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.int64(step))
        interpreter.invoke()
        assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]) == schedule.on_host(step)


def test_dtensor_takes_the_rate_and_not_the_op(tmp_path):
    script = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import lrops
from tensorflow.experimental import dtensor
schedule = lrops.WarmupCosineDecay(1e-3, 10, 100)
mesh = dtensor.create_mesh([("x", 2)], devices=["CPU:0", "CPU:1"])
layout = dtensor.Layout.replicated(mesh, rank=0)
step = dtensor.copy_to_mesh(tf.constant(5, tf.int64), layout)
try:
    print(tf.function(schedule)(step))
except tf.errors.UnknownError as error:
    print(error)
print(dtensor.fetch_layout(dtensor.copy_to_mesh(schedule(tf.constant(5)), layout)) == layout)
"""
    said = output_of(script, folder=tmp_path)
    assert f"'tf.{NAME}' op does not implement layout propagation" in said and said.endswith("True\n")
