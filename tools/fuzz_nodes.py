"""Damages nodes of the ops at random: each must give the rate it asks for, or a TensorFlow error. fuzz.py runs it.

Only our own nodes are changed: checking the rest of a file is TensorFlow's task.
"""

import dataclasses
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import attr_value_pb2, graph_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from lrops import _hyperparameters, _native

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "saved" / "0.1"
MODEL = saved_model_pb2.SavedModel.FromString((FOLDER / "saved_model.pb").read_bytes())
RATES = json.loads((FOLDER / "rates.json").read_text())
STEPS = [-(2**63), -1, 0, 4, 9, 10, 14, 15, 16, 2**31, 2**39, 2**40 - 2, 2**40, 2**63 - 1]  # of RATES
CASES = {
    "Lrops>WarmupDecay": (_hyperparameters.DecayArguments, _native.warmup_decay),
    "Lrops>WarmupInverseSqrt": (_hyperparameters.InverseSqrtArguments, _native.warmup_inverse_sqrt),
    "Lrops>WarmupCosineRestarts": (_hyperparameters.RestartsArguments, _native.warmup_cosine_restarts),
}
COPY = Path(tempfile.mkdtemp())
shutil.copytree(FOLDER, COPY, dirs_exist_ok=True)


def bits(rates):
    """Floating numbers as text that holds every bit."""
    return np.asarray(rates).tobytes().hex()


def ours(model):
    """The lrops nodes of a model, in the order of the file."""
    functions = model.meta_graphs[0].graph_def.library.function
    return [node for function in functions for node in function.node_def if node.op in CASES]


NODES = ours(MODEL)
ATTRIBUTES = sorted({name for node in NODES for name in node.attr if not name.startswith("_")})


def anything(consume):
    """An attribute of any kind; more often of one that the ops have."""
    texts = ["", " 1", "1 ", "1\0", "1,5", *"1 0 0.5 1e-3 2 nan inf -0 1e400 1e-400 0x1p-3 linear minus_sqrt".split()]
    kind = consume.PickValueInList(["text", "integer", "dtype"] * 4 + ["string", "f", "b", "shape", "tensor", "list"])
    value = attr_value_pb2.AttrValue()
    if kind == "text":
        value.s = consume.PickValueInList(texts).encode()
    elif kind == "string":
        value.s = consume.ConsumeBytes(20)
    elif kind == "integer":
        value.i = consume.ConsumeInt(8) if consume.ConsumeBool() else consume.ConsumeIntInRange(-2, 70)
    elif kind == "dtype":
        value.type = consume.PickValueInList([tf.half, tf.bfloat16, tf.float32, tf.float64]).as_datatype_enum
        if consume.ConsumeBool():
            value.type = consume.ConsumeIntInRange(0, 200)
    elif kind == "f":
        value.f = consume.ConsumeFloat() % 2.0**100
    elif kind == "b":
        value.b = consume.ConsumeBool()
    elif kind == "shape":
        value.shape.dim.add(size=consume.ConsumeIntInRange(-2, 3))
    elif kind == "tensor":
        value.tensor.CopyFrom(tf.make_tensor_proto(consume.ConsumeIntInRange(-2, 3)))
    else:
        value.list.i.append(consume.ConsumeInt(8))
    return value


def changed(node, consume):
    """The node, changed in up to four places; None if the result is no longer a node of ours."""
    node = node_def_pb2.NodeDef.FromString(node.SerializeToString())
    for _ in range(consume.ConsumeIntInRange(0, 4)):
        kind = consume.ConsumeIntInRange(0, 9)
        name = consume.PickValueInList([*ATTRIBUTES, "other"])
        if kind == 0:
            node.attr.pop(name, None)
        elif kind == 1:
            del node.input[:]
            node.input.extend(["step"] * consume.ConsumeIntInRange(0, 2))
        elif kind == 2:
            text = bytearray(node.SerializeToString(deterministic=True))
            for _ in range(consume.ConsumeIntInRange(1, 4)):
                text[consume.ConsumeIntInRange(0, len(text) - 1)] = consume.ConsumeIntInRange(0, 255)
            try:
                node.ParseFromString(bytes(text))
            except DecodeError:
                return None
            if node.op not in CASES:
                return None
        else:
            node.attr[name].CopyFrom(anything(consume))
    return node


def number(text):
    """The number that TensorFlow reads from an attribute's text, also if it is hexadecimal."""
    return float.fromhex(text.decode()) if b"x" in text.lower() else float(text)


def in_a_graph(node, consume):
    """Runs the node on a step of any dtype and shape, and compares the result with the Python module's."""
    dtype = consume.PickValueInList([tf.int64] * 8 + [tf.int32, tf.float32, tf.string, tf.uint64])
    shape = consume.PickValueInList([[], [0], [3], [2, 1, 3], [1] * 9])
    steps = np.resize(np.array([*STEPS, consume.ConsumeInt(8)], np.int64), shape)
    node.name = "rate"
    node.input[:] = ["step" if not name.startswith("^") else "^step" for name in node.input]
    definition = graph_pb2.GraphDef(node=[node])
    definition.node.add(name="step", op="Placeholder").attr["dtype"].type = dtype.as_datatype_enum
    definition.versions.producer = MODEL.meta_graphs[0].graph_def.versions.producer
    with tf.Graph().as_default() as graph:
        try:
            tf.graph_util.import_graph_def(definition, name="")
        except ValueError:  # how TensorFlow's importer gives InvalidArgument
            return
        operation = graph.get_operation_by_name("rate")
        with tf.compat.v1.Session(graph=graph) as session:
            try:
                found = session.run("rate:0", {"step:0": steps})
            except tf.errors.OpError as error:
                rejected = f"{node.op}: " in str(error) and "Received: " in str(error)
                if not rejected:
                    return
                found = str(error)
    hyperparameters, native = CASES[node.op]
    names = [field.name for field in dataclasses.fields(hyperparameters) if field.name != "dtype"]
    arguments = {name: operation.get_attr(name) for name in names}
    if "decay" in arguments:
        arguments["decay"] = arguments["decay"].decode()
    texts = {name: value for name, value in arguments.items() if isinstance(value, bytes)}
    if isinstance(found, str) and not all(
        re.fullmatch(rb"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", text) for text in texts.values()
    ):
        return  # rejected, and no number
    arguments |= {name: number(text) for name, text in texts.items()}
    for name in arguments.keys() & {"cycles", "timescale"}:
        arguments[name] = arguments[name] or None
    try:
        expected = native(steps, **arguments, dtype=operation.get_attr("dtype").name)
    except ValueError:
        assert isinstance(found, str), f"{node} gave {found}"
        return
    assert not isinstance(found, str), f"{node} was rejected: {found}"
    assert found.tobytes() == expected.tobytes() and found.shape == steps.shape, f"{node} gave {found}"


def in_a_saved_model(index, node):
    """Replaces one node of the model, loads it and runs all of it."""
    model = saved_model_pb2.SavedModel.FromString(MODEL.SerializeToString())
    node.name = NODES[index].name
    node.input[:] = [NODES[index].input[0]] * len(node.input)
    ours(model)[index].CopyFrom(node)
    (COPY / "saved_model.pb").write_bytes(model.SerializeToString())
    try:
        rates = tf.saved_model.load(COPY).rates(tf.constant(STEPS, tf.int64))
    except (tf.errors.OpError, ValueError):
        return
    assert sum(bits(rate) != RATES[name] for name, rate in rates.items()) <= 1, node
    assert all(np.isfinite(rate.numpy().astype(float)).all() for rate in rates.values()), node


def check(data):
    """Called by libFuzzer for each input; what it raises is a finding."""
    consume = atheris.FuzzedDataProvider(data)
    index = consume.ConsumeIntInRange(0, len(NODES) - 1)
    saved = consume.ConsumeIntInRange(0, 200) == 1
    node = changed(NODES[index], consume)
    if node is not None:
        in_a_saved_model(index, node) if saved else in_a_graph(node, consume)


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
