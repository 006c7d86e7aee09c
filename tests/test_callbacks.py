"""`LearningRateLogger` logs the rate that moved the weights, in every way that `fit` can run.

The rate used is measured, not computed: SGD on a loss whose gradient is -1 moves a weight by the rate itself.
"""

import csv
import glob
import resource
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from processes import run_snippet

import lrops
from lrops import LearningRateLogger, reference

ARGUMENTS = (0.01, 8, 40)
EXPECTED = reference.warmup_decay(np.arange(60), *ARGUMENTS)
ROWS = np.ones((10, 1), "float32")


class Weight(keras.layers.Layer):
    def build(self, shape):
        self.weight = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return x * self.weight


class Measure:
    """How far the weight moved, and what the logs said, batch by batch."""

    def __init__(self):
        super().__init__()
        self.at, self.moved, self.logged = np.float32(0), [], []

    def on_train_batch_end(self, batch, logs=None):
        now = self.model.layers[-1].weight.numpy()
        self.moved.append(now - self.at)
        self.logged.append(logs["learning_rate"])
        self.at = now


class Moves(Measure, keras.callbacks.Callback):
    pass


class TfKerasMoves(Measure, tf_keras.callbacks.Callback):
    pass


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


def scalars(folder, tag="learning_rate"):
    found = {}
    for path in glob.glob(f"{folder}/*"):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.tag.startswith("learning_rate")
                if value.tag == tag:
                    assert event.step not in found
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


@pytest.mark.slow
def test_mirrored_strategy(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    for name, rate in {"schedule": schedule, "constant": lambda: 0.01, "scaled": schedule}.items():
        with strategy.scope():
            model = model_of(rate())
            if name == "scaled":
                scaled = keras.optimizers.LossScaleOptimizer(model.optimizer, initial_scale=2.0)
                model.compile(scaled, lambda y, p: -p, jit_compile=False)
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


def test_a_folder_is_made_and_a_file_that_cannot_be_opened_is_done_without(tmp_path):
    path = tmp_path / "new" / "folder" / "rates.csv"
    fit(model_of(schedule()), LearningRateLogger(csv=path))
    assert lines(path)[0] == list(range(20))
    model = model_of(schedule())
    with pytest.warns(UserWarning, match="stops writing.*below, and training goes on") as told:
        fit(model, LearningRateLogger(csv=path / "below", log_dir=path))
    assert sum("stops writing" in str(one.message) for one in told) == 2
    assert int(model.optimizer.iterations) == 20


class Scaled(lrops.WarmupCosineDecay):
    def __call__(self, step):
        return 0.5 * super().__call__(step)


class Stairs(lrops.WarmupCosineDecay):
    def __call__(self, step):
        return super().__call__(step // 4 * 4)


class RestartStairs(lrops.WarmupCosineRestarts):
    def __call__(self, step):
        return super().__call__(step // 4 * 4)


@pytest.mark.parametrize("kind", [Scaled, Stairs, RestartStairs])
def test_a_subclass_with_its_own_call_is_logged_as_it_is_applied(kind, tmp_path):
    applied = kind(*ARGUMENTS)
    moves = Moves()
    fit(model_of(applied), LearningRateLogger(csv=tmp_path / "rates.csv"), moves)
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    np.testing.assert_array_equal(lines(tmp_path / "rates.csv")[1], applied.on_host(np.arange(20)))
    np.testing.assert_array_equal(applied.on_host(np.arange(20)), applied(np.arange(20)))
    assert applied.on_host(5) == float(applied(5)) and np.ndim(applied.on_host(5)) == 0
    drawn = lrops.plotting.plot(applied).lines[0]
    np.testing.assert_array_equal(drawn.get_ydata(), applied.on_host(drawn.get_xdata().astype(int)))


class Apart(keras.Model):
    """Two weights, each moved by an optimizer that its name chooses."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Weight(name="first"), Weight(name="second")

    def call(self, x):
        return self.first(x) + self.second(x)


class Both(keras.callbacks.Callback):
    """How far the two weights moved and what the logs said of it."""

    def __init__(self):
        super().__init__()
        self.at, self.moved, self.logged = np.zeros(2), [], []

    def on_train_batch_end(self, batch, logs=None):
        now = np.array([self.model.first.weight.numpy(), self.model.second.weight.numpy()], np.float64)
        self.moved.append(now - self.at)
        self.logged.append([logs["learning_rate_sgd_a"], logs["learning_rate_sgd_b"]])
        self.at = now


def optimizers():
    other = keras.optimizers.schedules.CosineDecay(0.02, 30)
    return keras.optimizers.SGD(schedule(), name="sgd_a"), keras.optimizers.SGD(other, name="sgd_b")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer")
@pytest.mark.parametrize("arguments", [{}, {"steps_per_execution": 5}, {"jit_compile": True}], ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_each_of_several_optimizers_has_a_series(scaled, arguments, tmp_path):
    first, second = optimizers()
    unused = keras.optimizers.SGD(schedule(), name="unused")
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(unused, {".*first.*": first, ".*second.*": second})
    )
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0)
    model = Apart()
    model(ROWS)
    model.compile(optimizer, lambda y, p: -p, **arguments)
    both = Both()
    history = fit(model, LearningRateLogger(csv=tmp_path / "rates.csv", log_dir=tmp_path / "board"), both)
    if "steps_per_execution" not in arguments:
        np.testing.assert_allclose(both.logged, both.moved, rtol=1e-3)
    assert history.history["learning_rate_sgd_a"] == [EXPECTED[9], EXPECTED[19]]
    assert "learning_rate_unused" not in history.history and "learning_rate" not in history.history
    rates = np.loadtxt(tmp_path / "rates.csv", delimiter=",", skiprows=1)
    assert rates[:, 0].tolist() == list(range(20))
    np.testing.assert_allclose(rates[:, 1], EXPECTED[:20], rtol=1e-6)
    np.testing.assert_allclose(rates[:, 1:].sum(axis=0), both.at, rtol=1e-5)
    assert (tmp_path / "rates.csv").read_text().startswith("step,learning_rate_sgd_a,learning_rate_sgd_b\n")
    drawn = scalars(tmp_path / "board", "learning_rate_sgd_b")
    np.testing.assert_allclose([drawn[step] for step in range(20)], rates[:, 2], rtol=1e-6)


class Gan(Apart):
    def compile(self, optimizers):
        super().compile()
        self.both = optimizers

    def train_step(self, data):
        for optimizer, layer in zip(self.both, (self.first, self.second), strict=True):
            optimizer.apply([tf.constant(-1.0)], [layer.weight])
        return {"loss": 0.0}


def test_the_optimizers_of_a_gan_are_named():
    model, both = Gan(), Both()
    model(ROWS)
    model.compile(optimizers())
    fit(model, LearningRateLogger(optimizer=model.both), both)
    np.testing.assert_allclose(both.logged, both.moved, rtol=1e-3)
    history = fit(model, LearningRateLogger(optimizer=model.both[0]))
    assert history.history["learning_rate"] == [EXPECTED[29], EXPECTED[39]]


def test_an_optimizer_without_a_rate_is_refused_when_training_begins():
    class NoRate(keras.optimizers.SGD):
        _learning_rate = learning_rate = property(lambda self: None, lambda self, value: None)

    for verify in (True, False):
        logger = LearningRateLogger(verify=verify)
        logger.set_model(keras.Sequential())
        logger.model.optimizer = NoRate(0.1)
        with pytest.raises(ValueError, match=r"no learning rate that could be logged.*optimizer=\[...\]"):
            logger.on_train_begin()


def test_a_loop_of_ones_own(tmp_path):
    weight, optimizer = keras.Variable(0.0), keras.optimizers.SGD(schedule())
    model = keras.Sequential([keras.Input((1,)), Weight()])
    model.compile(optimizer)
    for number, epochs in enumerate((1, 2)):
        logged, moved = [], []
        logger = LearningRateLogger(csv=tmp_path / "rates.csv")
        reads = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, logged=logged: logged.append(logs["learning_rate"])
        )
        callbacks = keras.callbacks.CallbackList([logger, reads], model=model)
        callbacks.on_train_begin()
        for epoch in range(epochs):
            if number:  # a loop may leave it out
                callbacks.on_epoch_begin(epoch)
            for batch in range(10):
                callbacks.on_train_batch_begin(batch)
                before = weight.numpy()
                optimizer.apply([tf.constant(-1.0)], [weight])
                callbacks.on_train_batch_end(batch)
                moved.append(weight.numpy() - before)
            if number:
                callbacks.on_epoch_end(epoch)
        callbacks.on_train_end()
        np.testing.assert_allclose(logged, moved, rtol=1e-3)
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(30)) and rates.tolist() == EXPECTED[:30].tolist()


class Overflows(NoUpdate):
    """Its gradients are finite from a loss scale of `limit` on downward."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def train_step(self, data):
        scale = self.optimizer.dynamic_scale
        gradient = tf.where(tf.convert_to_tensor(scale) > self.limit, float("inf"), -1.0 * scale)
        self.optimizer.apply([gradient], [self.layer.weight])
        return {"loss": 0.0}


def overflowing(limit, **arguments):
    model = Overflows(limit)
    model(ROWS)
    inner = keras.optimizers.SGD(schedule())
    model.compile(keras.optimizers.LossScaleOptimizer(inner, **arguments), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_loss_scale_may_fall_for_some_batches():
    model = overflowing(2.0**6)
    with pytest.warns(UserWarning, match="counted 0 in 2 batches"):
        history = fit(model, LearningRateLogger(), x=ROWS[:2], epochs=8)
    assert int(model.optimizer.inner_optimizer.iterations) == 16 - 9
    assert history.history["learning_rate"][-1] == EXPECTED[6]


def test_a_loss_scale_that_falls_for_ever_is_told():
    with pytest.raises(RuntimeError, match="never changes.*30 batches.*LossScaleOptimizer"):
        with pytest.warns(UserWarning, match="counted 0 in 2 batches"):
            fit(overflowing(-1.0), LearningRateLogger(), x=ROWS[:2], epochs=40)
    model = idle_model(0.1)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule())), "mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="never changes.*2 batches"):  # its loss scale does not change
        fit(model, LearningRateLogger(), x=ROWS[:2], epochs=40)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("first", [True, False], ids=["before_it", "after_it"])
@pytest.mark.parametrize("known", [True, False], ids=["known_length", "unknown_length"])
def test_a_count_that_is_set_did_not_stand_still(known, first, hook, recwarn):
    moves, model = Moves(), model_of(schedule())
    back = keras.callbacks.LambdaCallback(**{hook: lambda *_: model.optimizer.iterations.assign(0)})
    data = tf.data.Dataset.from_tensor_slices((ROWS, ROWS)).batch(1)
    data = data if known else data.filter(lambda x, y: True)
    callbacks = [back, LearningRateLogger()] if first else [LearningRateLogger(), back]
    history = fit(model, *callbacks, moves, x=data, epochs=3)
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    assert history.history["learning_rate"] == [EXPECTED[9]] * 3
    assert not [one for one in recwarn if "LearningRateLogger" in str(one.message)]


@pytest.mark.slow
@pytest.mark.parametrize("executed_at_once", [1, 4])
@pytest.mark.parametrize("where", ["on_train_batch_begin", "on_train_batch_end", "before_it", "train_step"])
def test_an_interrupted_run_goes_on_with_the_same_logger(where, executed_at_once, tmp_path):
    model = model_of(schedule(), executed_at_once)
    logger = LearningRateLogger(csv=tmp_path / "rates.csv")

    def interrupt(*_, **__):
        if int(model.optimizer.iterations) >= 5:
            raise KeyboardInterrupt

    hook = keras.callbacks.LambdaCallback(
        **{where if where.startswith("on_") else "on_train_batch_end": interrupt},
    )
    if where == "train_step":
        model.make_train_function()
        train, model.train_function = model.train_function, None
        model.train_function = lambda iterator: (train(iterator), interrupt())[0]
    callbacks = {"before_it": [hook, logger], "train_step": [logger]}.get(where, [logger, hook])
    with pytest.raises(KeyboardInterrupt):
        fit(model, *callbacks, epochs=1)
    assert 5 <= int(model.optimizer.iterations) <= 8
    if where == "train_step":
        model.train_function = train
    fit(model, logger, epochs=1)
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(int(model.optimizer.iterations)))
    assert rates.tolist() == EXPECTED[: len(steps)].tolist()


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_epoch", [None, 5, 10])
@pytest.mark.parametrize("executed_at_once", [1, 4])
def test_data_of_unknown_length(executed_at_once, steps_per_epoch, tmp_path, recwarn):
    """When such data end, Keras counts one more step, in which no weight moves."""
    data = tf.data.Dataset.from_tensor_slices((ROWS, ROWS)).batch(1).filter(lambda x, y: True)
    model, moves = model_of(schedule(), executed_at_once), Moves()
    logger = LearningRateLogger(csv=tmp_path / "rates.csv")
    fit(model, logger, moves, x=data, epochs=3, steps_per_epoch=steps_per_epoch)
    assert not [one for one in recwarn if "LearningRateLogger" in str(one.message)]
    steps, rates = lines(tmp_path / "rates.csv")
    assert rates.tolist() == EXPECTED[steps].tolist()
    np.testing.assert_allclose(rates.sum(), moves.at, rtol=1e-5)
    if executed_at_once == 1:
        np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)


KERAS_OWN = keras.optimizers.schedules.CosineDecay(1e-3, 300)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"steps_per_execution": 5}, {"jit_compile": True}], ids=str)
@pytest.mark.parametrize("before", [lambda: schedule(hold_steps=5), lambda: 0.01, lambda: KERAS_OWN])
def test_a_schedule_that_was_set_before_a_logger_came(before, arguments):
    model = keras.Sequential([keras.Input((1,)), Weight()])
    model.compile(keras.optimizers.SGD(before()), lambda y, p: -p, **arguments)
    fit(model, epochs=1)
    model.optimizer.learning_rate = replaced = schedule()
    tf.function(replaced)(tf.constant(1))  # traced, but not into the training function
    with pytest.raises(RuntimeError, match="replaced after.*model.compile.*Received: lrops.WarmupCosineDecay"):
        fit(model, LearningRateLogger(), epochs=1)
    fit(model, LearningRateLogger(verify=False), epochs=1)
    model.compile(model.optimizer, lambda y, p: -p, **arguments)
    fit(model, epochs=1)
    fit(model, LearningRateLogger(), epochs=1)  # it was compiled in without a logger


def test_a_schedule_without_the_warmup_it_was_traced_behind_is_another():
    model = keras.Sequential([keras.Input((1,)), Weight()])
    inner = schedule()
    model.compile(keras.optimizers.SGD(lrops.LinearWarmup(inner, 5)), lambda y, p: -p)
    fit(model, epochs=1)
    model.optimizer.learning_rate = inner
    with pytest.raises(RuntimeError, match="replaced after.*Received: lrops.WarmupCosineDecay"):
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


class TfKerasWeight(tf_keras.layers.Layer):
    def build(self, shape):
        self.weight = self.add_weight(name="weight", shape=(), initializer="zeros")

    def call(self, x):
        return tf.cast(x, self.dtype) * self.weight


def tf_keras_model(optimizer, **arguments):
    model = tf_keras.Sequential([tf_keras.Input((1,)), TfKerasWeight()])
    model.compile(optimizer, lambda y, p: -p, **arguments)
    return model


TF_KERAS_COSINE = tf_keras.optimizers.schedules.CosineDecay(1e-3, 30, warmup_target=0.01, warmup_steps=8)
TF_KERAS_RATES = {"lrops": schedule, "tf_keras": lambda: TF_KERAS_COSINE, "constant": lambda: 0.01}
TF_KERAS_OPTIMIZERS = {
    "new": tf_keras.optimizers.SGD,
    "legacy": tf_keras.optimizers.legacy.SGD,
    "legacy_decay": lambda rate: tf_keras.optimizers.legacy.SGD(rate, decay=0.1),
    "scaled": lambda rate: tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.SGD(rate)),
    "legacy_scaled": lambda rate: tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.legacy.SGD(rate)),
}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", TF_KERAS_OPTIMIZERS)
@pytest.mark.parametrize("rate", TF_KERAS_RATES)
def test_tf_keras_optimizers(rate, optimizer, tmp_path, recwarn):
    moves = TfKerasMoves()
    model = tf_keras_model(TF_KERAS_OPTIMIZERS[optimizer](TF_KERAS_RATES[rate]()))
    fit(model, LearningRateLogger(csv=tmp_path / "rates.csv"), moves)
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    np.testing.assert_array_equal(lines(tmp_path / "rates.csv")[1], np.array(moves.logged, "float32"))
    assert not [one for one in recwarn if "LearningRateLogger" in str(one.message)]


class Composite(tf_keras.optimizers.legacy.Optimizer):
    """Like the optimizer of TensorFlow Recommenders: it hands the work to other optimizers."""

    def __init__(self, *optimizers):
        super().__init__("composite")
        self.optimizers = optimizers

    def apply_gradients(self, grads_and_vars, **_):
        for optimizer, pair in zip(self.optimizers, grads_and_vars, strict=True):
            optimizer.apply_gradients([pair])

    def get_config(self):
        raise NotImplementedError


@pytest.mark.parametrize("listed", [True, False])
def test_a_composite_of_legacy_optimizers(listed):
    legacy = tf_keras.optimizers.legacy
    parts = legacy.SGD(schedule()), legacy.SGD(TF_KERAS_COSINE)
    model = tf_keras.Sequential([tf_keras.Input((1,)), TfKerasWeight(), TfKerasWeight()])
    composite = Composite(*parts)
    model.compile(composite, lambda y, p: -p)
    if listed:
        del composite.optimizers
        composite.apply_gradients = lambda pairs, **_: Composite.apply_gradients(
            SimpleNamespace(optimizers=parts), pairs
        )
        with pytest.raises(ValueError, match="no learning rate that could be logged"):
            fit(model, LearningRateLogger())
    logger = LearningRateLogger(optimizer=list(parts) if listed else None)
    history = fit(model, logger).history
    assert history["learning_rate_SGD"] == [EXPECTED[9], EXPECTED[19]]
    np.testing.assert_allclose(history["learning_rate_SGD_1"], [TF_KERAS_COSINE(9), TF_KERAS_COSINE(19)])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["new", "legacy"])
@pytest.mark.parametrize("arguments", [{}, {"steps_per_execution": 5}, {"jit_compile": True}], ids=str)
@pytest.mark.parametrize("before", [lambda: schedule(hold_steps=5), lambda: 0.01, lambda: TF_KERAS_COSINE])
def test_a_schedule_that_was_set_before_a_logger_came_in_tf_keras(before, arguments, optimizer):
    model = tf_keras_model(TF_KERAS_OPTIMIZERS[optimizer](before()), **arguments)
    fit(model, epochs=1)
    model.optimizer.learning_rate = schedule()
    with pytest.raises(RuntimeError, match="replaced after.*model.compile.*Received: lrops.WarmupCosineDecay"):
        fit(model, LearningRateLogger(), epochs=1)
    model.compile(TF_KERAS_OPTIMIZERS[optimizer](schedule()), lambda y, p: -p, **arguments)
    fit(model, epochs=1)
    fit(model, LearningRateLogger(), epochs=1)  # it was compiled in without a logger


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("first", [True, False], ids=["before_it", "after_it"])
def test_a_count_that_is_set_in_tf_keras(first, hook, recwarn):
    model, moves = tf_keras_model(tf_keras.optimizers.SGD(schedule())), TfKerasMoves()
    back = tf_keras.callbacks.LambdaCallback(**{hook: lambda *_: model.optimizer.iterations.assign(0)})
    fit(model, *([back, LearningRateLogger()] if first else [LearningRateLogger(), back]), moves, epochs=3)
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    assert not [one for one in recwarn if "LearningRateLogger" in str(one.message)]


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


# It resumes in the middle of an epoch, whereas Keras 3 starts the epoch again.
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
    result = run_snippet(code, tmp_path / "rates.csv", folder=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_peak_in_another_variable_is_another_schedule():
    """Both hold the same number now, but assigning to the new one has no effect."""
    model = model_of(schedule())
    fit(model, LearningRateLogger(), epochs=1)
    for peak in (
        tf.Variable(float(ARGUMENTS[0]), dtype=tf.float64),
        tf.Variable(float(ARGUMENTS[0]), dtype=tf.float64),
    ):
        model.optimizer.learning_rate = lrops.WarmupCosineDecay(peak, *ARGUMENTS[1:])
        with pytest.raises(RuntimeError, match="replaced after"):
            fit(model, LearningRateLogger(), epochs=1)
        model.make_train_function(force=True)
        fit(model, LearningRateLogger(), epochs=1)


def test_a_step_in_a_function_that_was_traced_before(recwarn):
    class Nested(NoUpdate):
        @tf.function
        def one(self):
            self.optimizer.apply([tf.constant(-1.0)], [self.layer.weight])

        def train_step(self, data):
            self.one()
            return {"loss": 0.0}

    model, optimizer = Nested(), keras.optimizers.SGD(schedule())
    model(ROWS)
    for epoch in range(2):  # the second training function calls what the first has traced
        model.compile(optimizer, "mse", jit_compile=False)
        history = fit(model, LearningRateLogger(), epochs=1)
        assert history.history["learning_rate"] == [EXPECTED[10 * epoch + 9]]


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end"])
def test_what_a_callback_assigns_after_a_batch_is_not_logged_for_it(hook, tmp_path):
    class Half(lrops.WarmupCosineDecay):
        def __call__(self, step):
            return 0.5 * super().__call__(step)

    class Lower(keras.callbacks.Callback):
        pass

    for make in (lrops.WarmupCosineDecay, Half):
        peak, moves = tf.Variable(0.01), Moves()
        setattr(Lower, hook, lambda self, at, logs=None, peak=peak: peak.assign(peak * 0.9))
        model = model_of(make(peak, *ARGUMENTS[1:]))
        path = tmp_path / make.__name__
        history = fit(model, Lower(), LearningRateLogger(csv=path), moves)
        np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
        np.testing.assert_allclose(lines(path)[1], moves.moved, rtol=1e-3)
        assert history.history["learning_rate"] == [moves.logged[9], moves.logged[19]]
