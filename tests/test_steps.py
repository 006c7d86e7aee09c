"""`total_steps` against the `optimizer.iterations` that a real `fit` ends with."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from processes import run_snippet

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
    "batch_then_repeat": (lambda: dataset().batch(32).repeat(3), {"epochs": 2}),
    "endless": (lambda: dataset().batch(32).repeat(), {"epochs": 3, "steps_per_epoch": 5}),
    "asserted": (
        lambda: dataset().filter(lambda x, y: True).batch(32).apply(tf.data.experimental.assert_cardinality(4)),
        {"epochs": 2},
    ),
    "steps_divide": (lambda: dataset().batch(10), {"epochs": 4, "steps_per_epoch": 5}),
    "steps_below": (lambda: dataset().batch(10), {"epochs": 7, "steps_per_epoch": 4}),
    "steps_above": (lambda: dataset().batch(10), {"epochs": 3, "steps_per_epoch": 12}),
    "py_dataset": (lambda: Batches(7), {"epochs": 3}),
    "py_dataset_steps": (lambda: Batches(7), {"epochs": 3, "steps_per_epoch": 2}),
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


IMAGES, LABELS = np.ones((10, 8, 8, 3), "float32"), np.ones((10, 1), "float32")
MODULES = {"keras": (keras, tf.keras.preprocessing), "tf_keras": (tf_keras, tf_keras.preprocessing)}


@pytest.mark.parametrize("flavour", MODULES)
def test_batches_with_a_length_that_are_iterators_too(flavour, tmp_path):
    module, preprocessing = MODULES[flavour]
    generator = preprocessing.image.ImageDataGenerator()
    flow = generator.flow(IMAGES, LABELS, batch_size=4)
    model = module.Sequential([module.layers.Flatten(), module.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(flow, epochs=2, verbose=0)
    assert total_steps(flow, 2) == int(model.optimizer.iterations.numpy()) == 6
    for number in range(5):
        (tmp_path / "class").mkdir(exist_ok=True)
        (tmp_path / "class" / f"{number}.png").touch()
    assert total_steps(generator.flow_from_directory(tmp_path, batch_size=2), 3) == 9

    class Own(Batches if flavour == "keras" else Sequence):
        def __next__(self):
            return self[0]

        def __iter__(self):
            return self

    make = (lambda: Own(7)) if flavour == "keras" else Own
    assert total_steps(make(), 2) == run(make(), epochs=2, keras=module) == 14


# Data of tf_keras, its number of batches, and values of steps_per_epoch.
TF_KERAS_DATA = {
    "batched": (lambda: dataset().batch(14), 8, [None, 3, 8, 12]),
    "endless": (lambda: dataset().batch(14).repeat(), 99, [5]),
    "sequence": (Sequence, 7, [None, 3, 7, 8]),
    "rows": (lambda: X, 5, [None, 3, 5, 7]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "steps_per_epoch"), [(data, steps) for data, row in TF_KERAS_DATA.items() for steps in row[2]]
)
def test_tf_keras(data, steps_per_epoch):
    """If the data end too early, Keras stops and may count one more step. `total_steps` raises then."""
    make, batches, _ = TF_KERAS_DATA[data]
    arguments = {"epochs": 3, "steps_per_epoch": steps_per_epoch} | ({"batch_size": 20} if data == "rows" else {})
    # A dataset goes on where the epoch before has ended, unless that took all of it.
    enough = batches // 3 if data == "batched" and steps_per_epoch != batches else batches
    if (steps_per_epoch or 1) <= enough:
        expected = run(make(), Y if data == "rows" else None, keras=tf_keras, **arguments)
        assert total_steps(make(), **arguments, keras=tf_keras) == expected
        assert data != "sequence" or total_steps(make(), **arguments) == expected
    else:
        said = f"data ends before training does.*repeat.*steps_per_epoch={steps_per_epoch}"
        with pytest.raises(ValueError, match=said):
            total_steps(make(), **arguments, keras=tf_keras)


def test_which_keras():
    arguments = {"epochs": 3, "steps_per_epoch": 5}
    with pytest.warns(UserWarning, match="Keras 3 runs 12 steps on this data, .*keras=tf_keras") as told:
        assert total_steps(dataset(98).batch(14), **arguments) == 12
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="Keras 3 runs 21 steps on this data, and tf_keras ends training"):
        assert total_steps(X[:98], 3, batch_size=14, steps_per_epoch=9) == 21
    assert total_steps(Batches(7), **arguments) == total_steps(dataset(98).batch(14), **arguments, keras=keras) == 12
    with pytest.raises(TypeError, match="keras must be the module"):
        total_steps(dataset(98).batch(14), **arguments, keras=3)


ONLY_TF_KERAS = """
import tf_keras, lrops, tensorflow as tf
data = tf.data.Dataset.range(7).batch(1)
assert lrops.total_steps(data, 3, steps_per_epoch=2) == 6
assert lrops.total_steps(data, 3, steps_per_epoch=7) == 21
try:
    lrops.total_steps(data, 3, steps_per_epoch=5)
except ValueError as error:
    print(error)
"""


def test_tf_keras_where_tf_keras_is_what_is_meant(tmp_path):
    result = run_snippet(ONLY_TF_KERAS, folder=tmp_path, TF_USE_LEGACY_KERAS="1")
    assert "data ends before training does" in result.stdout, result.stderr


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
        {"batch_size": 1000},
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


@pytest.mark.parametrize("executed_at_once", [4, 7])
def test_steps_per_execution_changes_nothing(executed_at_once):
    assert run(dataset().batch(10), epochs=2, steps_per_execution=executed_at_once) == total_steps(10, 2, batch_size=1)


def test_distributed():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = strategy.experimental_distribute_dataset(dataset().batch(32))
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(distributed, epochs=2, verbose=0)
    assert total_steps(distributed, 2) == model.optimizer.iterations.numpy() == 8


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
    (TypeError, "epochs must be an integer.*epochs=True", {"epochs": True}),
    (ValueError, "epochs must be at least 1.*epochs=0", {"epochs": 0}),
    (TypeError, "batch_size must be an integer", {"batch_size": 32.0}),
    (ValueError, "batch_size must be at least 1", {"batch_size": 0}),
    (ValueError, "steps_per_epoch must be at least 1", {"steps_per_epoch": -1}),
    (TypeError, "steps_per_epoch must be an integer", {"steps_per_epoch": 2.0}),
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
