"""`LearningRateLogger`: what it logs against what the weights were moved by, in every way that `fit` can run.

The rate used is measured, not computed: SGD on a loss whose gradient is -1 moves a weight by the rate itself.
"""

import csv
import glob
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run_python

import lrops
from lrops import LearningRateLogger, reference

ARGUMENTS = (0.01, 8, 40)
EXPECTED = reference.warmup_cosine_decay(np.arange(60), *ARGUMENTS)
ROWS = np.ones((10, 1), "float32")


class Weight(keras.layers.Layer):
    def build(self, shape):
        self.weight = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return x * self.weight


class Moves(keras.callbacks.Callback):
    """How far the weight moved, and what the logs said, batch by batch."""

    def __init__(self):
        super().__init__()
        self.at, self.moved, self.logged = np.float32(0), [], []

    def on_train_batch_end(self, batch, logs=None):
        now = self.model.layers[-1].weight.numpy()
        self.moved.append(now - self.at)
        self.logged.append(logs["learning_rate"])
        self.at = now


def schedule(**changes):
    return lrops.WarmupCosineDecay(*ARGUMENTS, **changes)


def model_of(rate, steps_per_execution=1, run_eagerly=False, **arguments):
    model = keras.Sequential([keras.Input((1,)), Weight()])
    optimizer = keras.optimizers.SGD(rate, **arguments)
    model.compile(
        optimizer, lambda y, p: -p, steps_per_execution=steps_per_execution, run_eagerly=run_eagerly, jit_compile=False
    )
    return model


def fit(model, *callbacks, x=ROWS, epochs=2, **arguments):
    if not isinstance(x, tf.data.Dataset):
        arguments |= {"y": x, "batch_size": 1, "shuffle": False}
    return model.fit(x, epochs=epochs, verbose=0, callbacks=list(callbacks), **arguments)


def lines(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [int(row["step"]) for row in rows], np.array([row["learning_rate"] for row in rows], "float32")


def scalars(folder):
    found = {}
    for path in glob.glob(f"{folder}/*"):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.tag == "learning_rate" and event.step not in found
                found[event.step] = tf.make_ndarray(value.tensor)[()]
    return found


RATES = {
    "lrops": schedule,
    "keras": lambda: keras.optimizers.schedules.CosineDecay(1e-4, 30, warmup_target=0.01, warmup_steps=8),
    "constant": lambda: 0.01,
    "callable": lambda: lambda: np.float32(0.01),
}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("rate", RATES)
def test_it_logs_the_rate_that_moved_the_weight(rate, run_eagerly, tmp_path):
    moves = Moves()
    logger = LearningRateLogger(log_dir=tmp_path / "board", csv=tmp_path / "rates.csv")
    history = fit(model_of(RATES[rate](), run_eagerly=run_eagerly), logger, moves)
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    if rate == "lrops":
        assert moves.logged == EXPECTED[:20].tolist()
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(20)) and rates.tolist() == moves.logged
    assert scalars(tmp_path / "board") == dict(enumerate(rates))
    assert history.history["learning_rate"] == [moves.logged[9], moves.logged[19]]


def test_csv_logger_and_progress_bar_have_it(tmp_path, capsys):
    after = keras.callbacks.CSVLogger(str(tmp_path / "keras.csv"))
    model = model_of(schedule())
    model.fit(ROWS, ROWS, batch_size=1, verbose=2, callbacks=[LearningRateLogger(), after])
    with open(tmp_path / "keras.csv") as file:
        assert [float(row["learning_rate"]) for row in csv.DictReader(file)] == [EXPECTED[9]]
    assert f"learning_rate: {EXPECTED[9]:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("known", [True, False], ids=["known_length", "unknown_length"])
@pytest.mark.parametrize("executed_at_once", [2, 4, 10, 16])
def test_steps_per_execution(executed_at_once, known, tmp_path):
    data = tf.data.Dataset.from_tensor_slices((ROWS, ROWS)).batch(1)
    data = data if known else data.filter(lambda x, y: True)
    model = model_of(schedule(), steps_per_execution=executed_at_once)
    history = fit(model, LearningRateLogger(csv=tmp_path / "rates.csv"), x=data)
    assert int(model.optimizer.iterations) == 20
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(20)) and rates.tolist() == EXPECTED[:20].tolist()
    assert history.history["learning_rate"] == [EXPECTED[9], EXPECTED[19]]


def test_gradient_accumulation_logs_what_the_schedule_is_given(tmp_path):
    moves = Moves()
    model = model_of(schedule(), gradient_accumulation_steps=2)
    fit(model, LearningRateLogger(csv=tmp_path / "rates.csv"), moves)
    assert int(model.optimizer.iterations) == 10
    assert lines(tmp_path / "rates.csv")[0] == list(range(20))
    assert moves.logged == EXPECTED[:20].tolist()
    np.testing.assert_allclose(moves.moved[1::2], EXPECTED[1:20:2], rtol=1e-3)
    assert not np.any(moves.moved[::2])


def test_mirrored_strategy(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    for name, rate in {"schedule": schedule, "constant": lambda: 0.01}.items():
        with strategy.scope():
            model = model_of(rate())
        moves = Moves()
        fit(model, LearningRateLogger(csv=tmp_path / name), moves)
        np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
        assert lines(tmp_path / name)[0] == list(range(20))


def test_loss_scaling():
    model = model_of(schedule())
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule()), initial_scale=2.0)
    model.compile(scaled, lambda y, p: -p, jit_compile=False)
    moves = Moves()
    fit(model, LearningRateLogger(), moves)
    assert moves.logged == EXPECTED[:20].tolist()


def test_every_thins_the_files_by_the_optimizers_step(tmp_path):
    model = model_of(schedule())
    moves = Moves()
    logger = LearningRateLogger(every=3, csv=tmp_path / "rates.csv", log_dir=tmp_path / "board")
    fit(model, logger, moves)
    assert lines(tmp_path / "rates.csv")[0] == sorted(scalars(tmp_path / "board")) == [0, 3, 6, 9, 12, 15, 18]
    assert moves.logged == EXPECTED[:20].tolist()


def test_a_constant_that_is_assigned_is_read_before_each_batch():
    model = model_of(0.01)
    moves = Moves()
    halve = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: model.optimizer.learning_rate.assign(0.01 / (batch + 1))
    )
    fit(model, halve, LearningRateLogger(), moves)
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    assert len(set(moves.logged)) == 10


def test_resume_doubles_no_line_and_loses_none(tmp_path):
    path = tmp_path / "rates.csv"
    model = model_of(schedule())
    fit(model, LearningRateLogger(csv=path), epochs=1)
    model.optimizer.save_own_variables(saved := {})
    fit(model, LearningRateLogger(csv=path), epochs=1)  # of which nothing is saved
    with open(path, "a") as file:
        file.write("20,0.0")  # a line cut short by a crash
    again = model_of(schedule())
    again.optimizer.build(again.trainable_variables)
    again.optimizer.load_own_variables(saved)
    fit(again, LearningRateLogger(csv=path))
    steps, rates = lines(path)
    assert steps == list(range(30)) and rates.tolist() == EXPECTED[:30].tolist()


def test_backup_and_restore_after_it_in_the_list(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.optimizer.iterations.numpy() == 15:
                raise KeyboardInterrupt

    def callbacks():
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), delete_checkpoint=False)
        return LearningRateLogger(csv=tmp_path / "rates.csv"), backup

    with pytest.raises(KeyboardInterrupt):
        fit(model_of(schedule()), *callbacks(), Crash(), epochs=3)
    fit(model_of(schedule()), *callbacks(), epochs=3)
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(30)) and rates.tolist() == EXPECTED[:30].tolist()


def test_lines_are_on_disk_when_an_epoch_ends(tmp_path):
    seen = []
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(len(lines(tmp_path / "rates.csv")[0])))
    fit(model_of(schedule()), LearningRateLogger(csv=tmp_path / "rates.csv"), after)
    assert seen == [10, 20]


def test_a_new_run_begins_the_file_anew_and_a_strangers_file_is_refused(tmp_path):
    path = tmp_path / "rates.csv"
    for _ in range(2):
        fit(model_of(schedule()), LearningRateLogger(csv=path))
        assert lines(path)[0] == list(range(20))
    for text in ("epoch,loss\n0,1.5\n", "step,learning_rate\nx,y\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="csv must be a new file.*rates.csv"):
            fit(model_of(schedule()), LearningRateLogger(csv=path))
        assert path.read_text() == text
    path.write_text("step,lear")
    fit(model_of(schedule()), LearningRateLogger(csv=path))
    assert lines(path)[0] == list(range(20))
    with pytest.raises(OSError, match="missing"):
        fit(model_of(schedule()), LearningRateLogger(csv=tmp_path / "missing" / "rates.csv"))


def test_a_full_disk_ends_the_files_and_not_the_training(tmp_path):
    path, board = tmp_path / "rates.csv", tmp_path / "board"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = model_of(schedule())
    with pytest.warns(UserWarning, match="stops writing.*, and training goes on") as warned:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            fit(model, LearningRateLogger(csv=path, log_dir=board), epochs=3)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    told = [str(one.message).split(",")[0] for one in warned if "stops writing" in str(one.message)]
    assert sorted(told) == [f"LearningRateLogger stops writing {file}" for file in (board, path)]  # each once
    assert int(model.optimizer.iterations) == 30
    assert path.stat().st_size == 100
    fit(model, LearningRateLogger(csv=path), epochs=1)  # what was whole stays
    steps, _ = lines(path)
    assert steps[:3] == [0, 1, 2] and steps[-10:] == list(range(30, 40)) and len(set(steps)) == len(steps)


class NoUpdate(keras.Model):
    """A training step that forgets the optimizer."""

    def __init__(self):
        super().__init__()
        self.layer = Weight()

    def call(self, x):
        return self.layer(x)

    def train_step(self, data):
        return {"loss": tf.reduce_mean(self(data[0]))}


def idle_model(rate):
    model = NoUpdate()
    model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    return model


def test_a_rate_that_cannot_move_is_an_error():
    with pytest.raises(RuntimeError, match="never changes.*10 batches.*no update.*step 0.*rate is 0.0"):
        fit(idle_model(schedule()), LearningRateLogger())
    with pytest.warns(UserWarning, match="counted 0 in 10 batches"):
        fit(idle_model(schedule()), LearningRateLogger(verify=False))


@pytest.mark.parametrize("flat", [{"start_step": -100}, {"alpha": 1.0, "warmup_start": 1.0}], ids=["past_end", "alpha"])
def test_a_flat_schedule_is_no_error(flat, recwarn):
    fit(model_of(schedule(**flat)), LearningRateLogger())
    assert not [one for one in recwarn if "LearningRateLogger" in str(one.message)]
    with pytest.warns(UserWarning, match="counted 0 in 10 batches"):  # the rate is right, the steps are not
        fit(idle_model(schedule(**flat)), LearningRateLogger())


def test_more_than_one_update_a_batch_is_told_once():
    class Twice(NoUpdate):
        def train_step(self, data):
            for _ in range(2):
                self.optimizer.apply([tf.constant(-1.0)], [self.layer.weight])
            return {"loss": 0.0}

    model = Twice()
    model(ROWS)
    model.compile(keras.optimizers.SGD(schedule()), "mse", jit_compile=False)
    with pytest.warns(UserWarning, match="counted 20 in 10 batches from step 0") as warned:
        history = fit(model, LearningRateLogger())
    assert len([one for one in warned if "LearningRateLogger" in str(one.message)]) == 1
    assert history.history["learning_rate"] == [EXPECTED[9], EXPECTED[29]]


def test_a_schedule_that_is_compiled_out_is_an_error():
    model = model_of(schedule())
    fit(model, LearningRateLogger(), epochs=1)
    model.optimizer.learning_rate = schedule()  # another object, the same curve
    fit(model, LearningRateLogger(), epochs=1)
    model.optimizer.learning_rate = schedule(hold_steps=5)
    with pytest.raises(RuntimeError, match="replaced after.*make_train_function"):
        fit(model, LearningRateLogger(), epochs=1)
    fit(model, LearningRateLogger(verify=False), epochs=1)
    model.make_train_function(force=True)
    fit(model, LearningRateLogger(), epochs=1)

    class NoConfig(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    model.optimizer.learning_rate = NoConfig()
    model.make_train_function(force=True)
    fit(model, LearningRateLogger(), epochs=1)
    model.optimizer.learning_rate = NoConfig()
    with pytest.raises(RuntimeError, match="replaced after"):
        fit(model, LearningRateLogger(), epochs=1)


def test_bad_arguments():
    with pytest.raises(ValueError, match="every must be at least 1.*every=0"):
        LearningRateLogger(every=0)
    with pytest.raises(TypeError, match="every must be an integer.*every=1.5"):
        LearningRateLogger(every=1.5)
    for name in ("csv", "log_dir"):
        with pytest.raises(TypeError, match=f"{name} must be a path or None. Received: {name}=1"):
            LearningRateLogger(**{name: 1})
    logger = LearningRateLogger()
    logger.set_model(keras.Sequential())
    with pytest.raises(ValueError, match="model.compile"):
        logger.on_train_begin()


TF_KERAS = """
import sys
import numpy as np
IMPORTS
schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
model = keras.Sequential([keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(schedule), "mse", steps_per_execution=4)
rows = np.ones((10, 1), "float32")
logger = lrops.LearningRateLogger(csv=sys.argv[1])
assert isinstance(logger, keras.callbacks.Callback)
history = model.fit(rows, rows, batch_size=1, epochs=2, verbose=0, callbacks=[logger])
expected = schedule.on_host(np.arange(20))
assert history.history["learning_rate"] == [expected[9], expected[19]], history.history
assert np.loadtxt(sys.argv[1], delimiter=",", skiprows=1)[:, 0].tolist() == list(range(20))
"""


# It goes on in the middle of an epoch, where Keras 3 begins the epoch anew.
TF_KERAS_RESUMES = """
import sys
import numpy as np
import tf_keras as keras, lrops

class Crash(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == 13:
            raise KeyboardInterrupt

folder, rows = sys.argv[1], np.ones((16, 1), "float32")
schedule = lrops.WarmupCosineDecay(0.01, 8, 40)
for rate, name in ((schedule, "schedule"), (0.25, "constant")):
    path = f"{folder}-{name}.csv"
    for crash in ([Crash()], []):
        model = keras.Sequential([keras.layers.Dense(1, input_shape=(1,))])
        model.compile(keras.optimizers.SGD(rate), "mse")
        backup = keras.callbacks.BackupAndRestore(f"{folder}-{name}", save_freq=5)
        try:
            callbacks = [backup, lrops.LearningRateLogger(csv=path), *crash]
            history = model.fit(rows, rows, batch_size=1, epochs=2, verbose=0, callbacks=callbacks)
        except KeyboardInterrupt:
            assert crash
    expected = schedule.on_host(range(32)) if rate is schedule else np.full(32, 0.25, "float32")
    assert history.history["learning_rate"] == [expected[15], expected[31]], history.history
    steps, rates = np.loadtxt(path, delimiter=",", skiprows=1).T
    assert steps.tolist() == list(range(32)), steps
    assert (rates.astype("float32") == expected).all(), rates
"""


@pytest.mark.parametrize(
    "code",
    [
        *(
            TF_KERAS.replace("IMPORTS", f"import {order}")
            for order in ("tf_keras as keras, lrops", "lrops, tf_keras as keras")
        ),
        TF_KERAS_RESUMES,
    ],
    ids=["before lrops", "after lrops", "resumes"],
)
def test_tf_keras(code, tmp_path):
    result = run_python("-c", code, tmp_path / "rates.csv", folder=tmp_path)
    assert result.returncode == 0, result.stderr
