"""`total_steps` against the `optimizer.iterations` that a real `fit` ends with."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lrops import total_steps

X, Y = np.ones((100, 2), "float32"), np.ones((100, 1), "float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        return X[:4], Y[:4]


def dataset(rows=100):
    return tf.data.Dataset.from_tensor_slices((X[:rows], Y[:rows]))


def run(x, y=None, steps_per_execution=1, keras=keras, **arguments):
    """The steps that fit runs, and the optimizer counts."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    model.fit(x, y, verbose=0, **arguments)
    return int(model.optimizer.iterations.numpy())


CASES = {
    "batched": (lambda: dataset().batch(32), {}),
    "drop_remainder": (lambda: dataset().batch(32, drop_remainder=True), {"epochs": 2}),
    "repeat_then_batch": (lambda: dataset().repeat(3).batch(32), {"epochs": 2}),
    "endless": (lambda: dataset().batch(32).repeat(), {"epochs": 3, "steps_per_epoch": 5}),
    "asserted": (
        lambda: dataset().filter(lambda x, y: True).batch(32).apply(tf.data.experimental.assert_cardinality(4)),
        {"epochs": 2},
    ),
    "steps_divide": (lambda: dataset().batch(10), {"epochs": 4, "steps_per_epoch": 5}),
    "steps_below": (lambda: dataset().batch(10), {"epochs": 7, "steps_per_epoch": 4}),
    "steps_above": (lambda: dataset().batch(10), {"epochs": 3, "steps_per_epoch": 12}),
    "py_dataset": (lambda: Batches(7), {"epochs": 3}),
    "py_dataset_endless": (lambda: Batches(None), {"epochs": 3, "steps_per_epoch": 2}),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("case", CASES)
def test_data_made_of_batches(case):
    make, arguments = CASES[case]
    assert total_steps(make(), **arguments, keras=keras) == run(make(), **arguments)


class Sequence(tf_keras.utils.Sequence):
    def __len__(self):
        return 7

    __getitem__ = Batches.__getitem__


@pytest.mark.parametrize("module, preprocessing", [(keras, tf.keras.preprocessing), (tf_keras, tf_keras.preprocessing)])
def test_batches_with_a_length_that_are_iterators_too(module, preprocessing):
    images = np.ones((10, 8, 8, 3), "float32")
    flow = preprocessing.image.ImageDataGenerator().flow(images, Y[:10], batch_size=4)
    model = module.Sequential([module.layers.Flatten(), module.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(flow, epochs=2, verbose=0)
    assert total_steps(flow, 2) == int(model.optimizer.iterations.numpy()) == 6


# Data of tf_keras, values of steps_per_epoch that it lasts for, and values for which it ends too early.
TF_KERAS_DATA = {
    # A dataset goes on where the epoch before has ended, unless that took all of it.
    "batched": (lambda: dataset().batch(14), [None, 2, 8], [3, 12]),
    "endless": (lambda: dataset().batch(14).repeat(), [5], []),
    "sequence": (Sequence, [None, 3, 7], [8]),
    "rows": (lambda: X, [None, 3, 5], [7]),
}


@pytest.mark.slow
@pytest.mark.parametrize("data", TF_KERAS_DATA)
def test_tf_keras(data):
    """If the data end too early, Keras stops and may count one more step. `total_steps` raises then."""
    make, lasting, too_long = TF_KERAS_DATA[data]
    how = {"epochs": 3, "keras": tf_keras} | ({"batch_size": 20} if data == "rows" else {})
    for steps in lasting:
        expected = run(make(), Y if data == "rows" else None, steps_per_epoch=steps, **how)
        assert total_steps(make(), steps_per_epoch=steps, **how) == expected
    for steps in too_long:
        with pytest.raises(ValueError, match=f"data ends before training does.*repeat.*steps_per_epoch={steps}"):
            total_steps(make(), steps_per_epoch=steps, **how)


def test_which_keras():
    arguments = {"epochs": 3, "steps_per_epoch": 5}
    with pytest.warns(UserWarning, match="Keras 3 runs 12 steps on this data, .*keras=tf_keras") as told:
        assert total_steps(dataset(98).batch(14), **arguments) == 12
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="Keras 3 runs 21 steps on this data, and tf_keras ends training"):
        assert total_steps(X[:98], 3, batch_size=14, steps_per_epoch=9) == 21
    assert total_steps(Batches(7), **arguments) == total_steps(dataset(98).batch(14), **arguments, keras=keras) == 12
    assert total_steps(Sequence(), **arguments) == 15
    with pytest.raises(TypeError, match="keras must be the module"):
        total_steps(dataset(98).batch(14), **arguments, keras=3)


@pytest.mark.parametrize(
    "legacy, missing, tf_keras_runs", [("1", "", True), ("", "keras", True), ("", "tf_keras", False)]
)
def test_which_keras_is_meant_by_the_process(monkeypatch, recwarn, legacy, missing, tf_keras_runs):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", legacy)
    monkeypatch.setitem(sys.modules, missing, None)
    arguments = {"data": dataset(98).batch(14), "epochs": 3, "steps_per_epoch": 5}
    if tf_keras_runs:
        with pytest.raises(ValueError, match="data ends before training does"):
            total_steps(**arguments)
    else:
        assert total_steps(**arguments) == 12 and not recwarn.list


class Grain:
    """What Keras takes for a Grain dataset, whose length it does not ask for."""

    __module__ = "grain._src.python.dataset.dataset"
    __len__ = Sequence.__len__


class DataLoader:
    """What Keras 3 takes for a PyTorch DataLoader, which may have no length."""

    __module__ = "torch.utils.data.dataloader"

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return -(-len(self.dataset) // 4)


def test_data_of_other_packages():
    assert total_steps(DataLoader(X), 2) == 50
    for data, said in ((Grain(), "unknown or infinite length.*Grain"), (DataLoader(iter(X)), "unknown or infinite")):
        with pytest.raises(ValueError, match=said):
            total_steps(data, 3)
    assert total_steps(Grain(), 3, steps_per_epoch=2) == 6
    with pytest.raises(ValueError, match="data ends before training does.*7 batches"):
        total_steps(Grain(), 3, steps_per_epoch=5)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_size": 33, "epochs": 3},
        {"validation_split": 0.25, "batch_size": 32, "epochs": 2},
        {"steps_per_epoch": 7, "epochs": 2},
        {"steps_per_epoch": 60, "epochs": 2},
        {"steps_per_epoch": 3, "batch_size": 16, "epochs": 3},
        {"steps_per_epoch": 9, "validation_split": 0.5},
    ],
    ids=str,
)
def test_arrays_and_rows(arguments):
    expected = run(X, Y, **arguments)
    arguments |= {"keras": keras}
    assert total_steps(X, **arguments) == expected
    assert total_steps((X, Y), **arguments) == expected
    assert total_steps({"a": tf.constant(X), "b": Y}, **arguments) == expected
    assert total_steps(100, **arguments) == total_steps(np.int64(100), **arguments) == expected


def test_steps_per_execution_changes_nothing():
    expected = total_steps(dataset().batch(10), 2)
    for executed_at_once in (4, 7):
        assert run(dataset().batch(10), epochs=2, steps_per_execution=executed_at_once) == expected


def test_distributed():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = strategy.experimental_distribute_dataset(dataset().batch(32))
    with strategy.scope():
        assert total_steps(distributed, 2) == run(distributed, epochs=2) == 8


@pytest.mark.parametrize(
    "data",
    [
        lambda: dataset().batch(32).repeat(),
        lambda: dataset().filter(lambda x, y: True).batch(32),
        lambda: Batches(None),
        lambda: (pair for pair in [(X, Y)]),
    ],
    ids=["endless", "unknown", "endless_py_dataset", "generator"],
)
def test_a_length_that_nobody_knows(data):
    with pytest.raises(ValueError, match="steps_per_epoch.*assert_cardinality"):
        total_steps(data(), 2)
    assert total_steps(data(), 2, steps_per_epoch=5) == 10


NO_DATA = [None, True, 1000.0, "rows", [], [[1.0], [2.0]], np.float32(3), Ellipsis]
WRONG_DATA = [
    *((TypeError, "data must be", data, {}) for data in NO_DATA),
    (ValueError, "batch_size is for arrays.*batch_size=32", dataset().batch(32), {"batch_size": 32}),
    (ValueError, "validation_split is for arrays", Batches(3), {"validation_split": 0.1}),
    (ValueError, "holds no batch", dataset(0).batch(4), {}),
    (ValueError, "holds no batch", np.ones((0, 2)), {}),
    (ValueError, r"equal numbers of rows.*\[50, 100\]", (X, Y[:50]), {}),
    (ValueError, "data must be at least 1", 0, {}),
]
WRONG_ARGUMENTS = [
    (TypeError, "epochs must be an integer.*epochs=1.5", {"epochs": 1.5}),
    (ValueError, "epochs must be at least 1.*epochs=0", {"epochs": 0}),
    (TypeError, "batch_size must be an integer", {"batch_size": 32.0}),
    (ValueError, "steps_per_epoch must be at least 1", {"steps_per_epoch": -1}),
    (TypeError, "validation_split must be a number", {"validation_split": "0.1"}),
    (ValueError, r"validation_split must be in \[0, 1\)", {"validation_split": 1.0}),
    (ValueError, r"validation_split must be in \[0, 1\)", {"validation_split": float("nan")}),
    (ValueError, "rows for training and for validation.*0.999 of 100 rows", {"validation_split": 0.999}),
]


@pytest.mark.parametrize(
    ("error", "message", "data", "arguments"),
    [*WRONG_DATA, *((error, message, X, arguments) for error, message, arguments in WRONG_ARGUMENTS)],
)
def test_wrong_data_and_wrong_arguments(error, message, data, arguments):
    with pytest.raises(error, match=message):
        total_steps(data, **arguments)
