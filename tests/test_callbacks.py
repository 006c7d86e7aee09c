"""`LearningRateLogger` logs the rates that were applied, in every way that Keras 3 and tf_keras train.

The rates are measured, not computed: see `recording` and `Moves`.
"""

import csv
import resource
from inspect import signature

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from training import (
    ARGUMENTS,
    BOTH,
    EXPECTED,
    ROWS,
    Moves,
    accumulates,
    apply,
    count,
    dataset,
    fit,
    in_py_function,
    model_of,
    model_with,
    one_weight,
    plain,
    recording,
    schedule,
    wgan,
    wrapped,
)

import lrops
from lrops import LearningRateLogger


def lines(path, key="learning_rate"):
    with tf.io.gfile.GFile(str(path)) as file:
        rows = [row for row in csv.DictReader(file) if row[key]]
    return [int(row["step"]) for row in rows], np.array([row[key] for row in rows], "float32")


def scalars(folder, key="learning_rate"):
    found = {}
    for path in tf.io.gfile.glob(f"{folder}/*.tfevents.*"):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == key:
                    assert event.step not in found and value.metadata.plugin_data.plugin_name == "scalars"
                    found[event.step] = tf.make_ndarray(value.tensor)[()]
    return found


class Older(LearningRateLogger):
    """As Keras 3.0 to 3.10 call it: both hooks name the first batch of an execution."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(self._begun, logs)


# Patterns of public reports. Each is a function of a Keras that gives a model and its optimizers.
PATTERNS = {
    "plain": plain,
    "xla": lambda K: plain(K, jit_compile=True),
    "eager": lambda K: plain(K, run_eagerly=True),
    "executions": lambda K: plain(K, steps_per_execution=3),
    "executions, older": lambda K: plain(K, steps_per_execution=3),
    "accumulation": accumulates,
    "wgan": wgan,
    "py_function": in_py_function,
    "wrapper": wrapped,
}


@BOTH
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(pattern, K, tmp_path):
    """The files have each update with the rate that it was made with, and `history` the one of each epoch's last."""
    model, optimizers = PATTERNS[pattern](K)
    last, on_disk = [], []

    def see(*_):
        last.append([rates[~np.isnan(rates)][-1] for rates in (one.applied.numpy() for one in optimizers)])
        on_disk.append((tmp_path / "rates.csv").read_bytes().count(b"\n") - 1)

    kind, several = (Older if pattern.endswith("older") else LearningRateLogger), len(optimizers) > 1
    logger = kind(csv=tmp_path / "rates.csv", log_dir=tmp_path / "board", optimizer=optimizers if several else None)
    # Keras' TensorBoard keeps such a condition for all writers while it trains. The logger must not heed it.
    with tf.summary.record_if(False):
        history = fit(model, logger, K.callbacks.LambdaCallback(on_epoch_end=see), epochs=3).history
    assert on_disk == [on_disk[2] // 3, 2 * on_disk[2] // 3, on_disk[2]] or pattern == "accumulation"
    for number, optimizer in enumerate(optimizers):
        key = f"learning_rate_{optimizer.name}" if several else "learning_rate"
        applied = optimizer.applied.numpy()
        steps = np.flatnonzero(~np.isnan(applied))
        found, rates = lines(tmp_path / "rates.csv", key)
        assert sorted(found) == steps.tolist()
        np.testing.assert_array_equal(rates[np.argsort(found)], applied[steps])
        assert scalars(tmp_path / "board", key) == dict(zip(found, rates, strict=True))
        np.testing.assert_array_equal(np.array(history[key], "float32"), [one[number] for one in last])
    if several:  # each resumes from its own step
        for optimizer, resumed in zip(optimizers, (100, 20), strict=True):
            optimizer.iterations.assign(resumed)
        fit(model, logger, epochs=1)
        for optimizer in optimizers:
            steps, rates = lines(tmp_path / "rates.csv", f"learning_rate_{optimizer.name}")
            assert sorted(steps) == list(range(count(optimizer)))
            assert rates.tolist() == EXPECTED[steps].tolist()


def legacy_with_a_callable():
    counter, rate = tf.Variable(0, dtype=tf.int64), schedule()
    optimizer = tf_keras.optimizers.legacy.SGD(lambda: rate(counter))
    counts = tf_keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: counter.assign_add(1))
    return model_of(optimizer, tf_keras), [counts], {}


def stepped_by_a_callback():
    """And another model has trained the optimizer before."""
    optimizer = keras.optimizers.SGD(schedule())
    fit(other := model_of(optimizer))
    step = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: apply(optimizer, tf.constant(-1.0), other.layers[-1].weight)
    )
    return model_of(schedule()), [step], {"optimizer": optimizer}


@pytest.mark.parametrize("make", [legacy_with_a_callable, stepped_by_a_callback])
def test_no_alarm_without_evidence(make, recwarn):
    model, callbacks, arguments = make()
    for _ in range(2):
        fit(model, LearningRateLogger(**arguments), *callbacks)
    assert not [one for one in recwarn if "learning rate" in str(one.message)]


@BOTH
def test_columns_do_not_depend_on_the_numbers_of_optimizers(K, tmp_path):
    """A notebook's cell that runs again makes adam_2 and adam_3."""
    for _ in range(2):
        pair = [K.optimizers.Adam(schedule()), K.optimizers.Adam(0.1)]
        model, _ = model_with(K, lambda model: None, *pair)
        logger = LearningRateLogger(csv=tmp_path / "rates.csv", optimizer=pair, verify=False)
        assert len(fit(model, logger).history) == 3
        header = (tmp_path / "rates.csv").read_text()
        assert header.lower() == "step,learning_rate_adam,learning_rate_adam_1\n"
    (tmp_path / "rates.csv").write_text("step,learning_rate_a,learning_rate_b\n0,0.1,0.1\n")
    fit(model, logger)
    assert (tmp_path / "rates.csv").read_text() == header


def test_every_thins_the_files_in_each_file_system(tmp_path):
    for folder in ("ram://logger", f"file://{tmp_path}"):
        moves, logger = Moves(), LearningRateLogger(every=3, csv=f"{folder}/new/rates.csv", log_dir=f"{folder}/board")
        fit(model_of(schedule()), logger, moves)
        assert moves.logged == EXPECTED[:20].tolist()
        assert lines(f"{folder}/new/rates.csv")[0] == sorted(scalars(f"{folder}/board")) == [0, 3, 6, 9, 12, 15, 18]


def cosine(K, rate=1e-3):
    return K.optimizers.schedules.CosineDecay(rate, 30, warmup_target=0.01, warmup_steps=8)


class Stairs(lrops.WarmupCosineRestarts):
    def __call__(self, step):
        return super().__call__(step // 4 * 4)


class Half(lrops.WarmupCosineDecay):
    def __call__(self, step):
        return 0.5 * super().__call__(step)


Scaler = tf_keras.mixed_precision.LossScaleOptimizer
RATES = {
    "stairs": lambda K: Stairs(*ARGUMENTS),
    "warmup": lambda K: lrops.LinearWarmup(cosine(K), 3),
    "constant": lambda K: 0.01,
}
OPTIMIZERS = {
    "keras": (keras, keras.optimizers.SGD),
    "keras_scaled": (keras, lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate))),
    "callable": (keras, lambda rate: keras.optimizers.SGD(lambda *_: np.float32(0.01))),
    "mirrored": (keras, keras.optimizers.SGD),
    "new": (tf_keras, tf_keras.optimizers.SGD),
    "new_mirrored": (tf_keras, tf_keras.optimizers.SGD),
    "legacy": (tf_keras, tf_keras.optimizers.legacy.SGD),
    "legacy_decay": (tf_keras, lambda rate: tf_keras.optimizers.legacy.SGD(rate, decay=0.1)),
    "scaled": (tf_keras, lambda rate: Scaler(tf_keras.optimizers.SGD(rate))),
    "legacy_scaled": (tf_keras, lambda rate: Scaler(tf_keras.optimizers.legacy.SGD(rate))),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rate", RATES)
def test_it_logs_the_rate_that_moved_the_weight(rate, optimizer, tmp_path):
    K, make = OPTIMIZERS[optimizer]
    strategy = tf.distribute.MirroredStrategy(["CPU:0"]) if "mirrored" in optimizer else tf.distribute.get_strategy()
    with strategy.scope():
        model = model_of(make(RATES[rate](K)), K)
    moves = Moves(K)
    history = fit(model, LearningRateLogger(csv=tmp_path / "rates.csv"), moves).history
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    steps, rates = lines(tmp_path / "rates.csv")
    begin = 20 - len(steps)  # an optimizer whose loss scale falls makes fewer updates
    assert steps == list(range(len(steps)))
    np.testing.assert_array_equal(rates, np.array(moves.logged[begin:], "float32"))
    assert history["learning_rate"][-1] == moves.logged[-1]


def test_csv_logger_and_progress_bar_have_it(tmp_path, capsys):
    after = keras.callbacks.CSVLogger(str(tmp_path / "keras.csv"))
    model = model_of(schedule())
    model.fit(ROWS, ROWS, batch_size=1, verbose=2, callbacks=[LearningRateLogger(), after])
    with open(tmp_path / "keras.csv") as file:
        assert [float(row["learning_rate"]) for row in csv.DictReader(file)] == [EXPECTED[9]]
    assert f"learning_rate: {EXPECTED[9]:.4f}" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_epoch", [None, 5])
@pytest.mark.parametrize("known", [True, False], ids=["known_length", "unknown_length"])
@pytest.mark.parametrize("executed_at_once", [1, 4, 16][: 2 if keras.__version__.startswith("3.3.") else 3])
def test_datasets_and_executions(executed_at_once, known, steps_per_epoch, tmp_path):
    """If data of unknown length end, Keras may count one more step, in which no weight moves.

    Keras 3.3 itself fails with an execution that is longer than the data.
    """
    model, moves = model_of(schedule(), steps_per_execution=executed_at_once), Moves()
    logger = LearningRateLogger(csv=tmp_path / "rates.csv")
    history = fit(model, logger, moves, x=dataset(known), epochs=3, steps_per_epoch=steps_per_epoch).history
    steps, rates = lines(tmp_path / "rates.csv")
    assert rates.tolist() == EXPECTED[steps].tolist()
    np.testing.assert_allclose(rates.sum(), model.layers[-1].weight.numpy(), rtol=1e-5)
    assert set(moves.logged) <= set(rates)
    assert history["learning_rate"][0] == rates[(steps_per_epoch or 10) - 1] or executed_at_once > 1
    current = EXPECTED[len(rates) : count(model.optimizer) + 1]  # of an epoch in which no update was made
    assert set(history["learning_rate"]) <= {*rates, *current}
    if executed_at_once == 1:
        np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)


@pytest.mark.skipif("gradient_accumulation_steps" not in str(signature(keras.optimizers.SGD)), reason="an older Keras")
def test_gradient_accumulation_logs_what_the_schedule_is_given(tmp_path):
    moves = Moves()
    model = model_of(schedule(), gradient_accumulation_steps=2)
    fit(model, LearningRateLogger(csv=tmp_path / "rates.csv"), moves)
    assert count(model.optimizer) in (10, 20)  # 20 in Keras 3.3, which counts the micro-batches
    assert lines(tmp_path / "rates.csv")[0] == list(range(20))
    assert moves.logged == EXPECTED[:20].tolist()
    np.testing.assert_allclose(moves.moved[1::2], EXPECTED[1:20:2], rtol=1e-3)
    assert not np.any(moves.moved[::2])


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_begin", "on_train_batch_end"])
def test_what_a_callback_assigns_is_logged_for_the_batches_after_it(hook, tmp_path):
    for make in (lrops.WarmupCosineDecay, Half, None):
        peak, moves = tf.Variable(0.01), Moves()
        model = model_of(make(peak, *ARGUMENTS[1:]) if make else 0.01)
        variable = peak if make else model.optimizer.learning_rate
        lower = keras.callbacks.LambdaCallback(**{hook: lambda *_, it=variable, **__: it.assign(it * 0.9)})
        history = fit(model, lower, LearningRateLogger(csv=tmp_path / f"{make}"), moves)
        np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
        np.testing.assert_allclose(lines(tmp_path / f"{make}")[1], moves.moved, rtol=1e-3)
        assert history.history["learning_rate"] == [moves.logged[9], moves.logged[19]]


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
    assert [one.name for one in tmp_path.iterdir()] == ["rates.csv"]


@BOTH
@pytest.mark.parametrize("rate", [schedule, lambda: 0.25], ids=["schedule", "constant"])
def test_backup_and_restore_after_it_in_the_list(rate, K, tmp_path):
    """tf_keras resumes in the middle of an epoch, whereas Keras 3 starts the epoch again."""

    class Crash(K.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.optimizer.iterations.numpy() == 17:
                raise KeyboardInterrupt

    for crash in ([Crash()], []):
        arguments = {"delete_checkpoint": False} if K is keras else {"save_freq": 5}
        backup = K.callbacks.BackupAndRestore(str(tmp_path / "backup"), **arguments)
        model = model_of(rate(), K)
        try:
            fit(model, LearningRateLogger(csv=tmp_path / "rates.csv"), backup, *crash, epochs=3)
        except KeyboardInterrupt:
            assert crash
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(count(model.optimizer)))  # 30; Keras 3.0 forgets which epochs it has trained
    assert rates.tolist() == (EXPECTED[steps].tolist() if rate is schedule else [0.25] * len(steps))


@pytest.mark.parametrize(
    "where, executed_at_once",
    [("on_train_batch_begin", 1), ("on_train_batch_end", 4), ("before_it", 1), ("train_step", 1), ("train_step", 4)],
)
def test_an_interrupted_run_goes_on_with_the_same_logger(where, executed_at_once, tmp_path):
    model = model_of(schedule(), steps_per_execution=executed_at_once)
    logger = LearningRateLogger(csv=tmp_path / "rates.csv")

    def interrupt(*_, **__):
        if count(model.optimizer) >= 5:
            raise KeyboardInterrupt

    model.make_train_function()
    train = model.train_function
    if where == "train_step":
        model.train_function, callbacks = lambda iterator: (train(iterator), interrupt())[0], [logger]
    else:
        hook = where if where.startswith("on_") else "on_train_batch_end"
        callbacks = [logger, keras.callbacks.LambdaCallback(**{hook: interrupt})]
    with pytest.raises(KeyboardInterrupt):
        fit(model, *(reversed(callbacks) if where == "before_it" else callbacks), epochs=1)
    assert 5 <= count(model.optimizer) <= 8
    model.train_function = train
    fit(model, logger, x=ROWS[:8], epochs=1)
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(count(model.optimizer)))
    assert rates.tolist() == EXPECTED[: len(steps)].tolist()


def test_a_new_run_replaces_the_file_and_a_strangers_file_is_rejected(tmp_path):
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
    assert count(model.optimizer) == 30
    assert path.stat().st_size == 100
    fit(model, LearningRateLogger(csv=path), epochs=1)  # what was whole stays
    steps, _ = lines(path)
    with pytest.warns(UserWarning, match="stops writing.*below, and training goes on") as told:
        fit(model_of(schedule()), LearningRateLogger(csv=path / "below", log_dir=path))
    assert sum("stops writing" in str(one.message) for one in told) == 2
    assert steps[:3] == [0, 1, 2] and steps[-10:] == list(range(30, 40)) and len(set(steps)) == len(steps)


@BOTH
@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("known, first", [(True, False), (False, True), (False, False)])
def test_a_count_that_is_set_did_not_stand_still(known, first, hook, K):
    moves, model = Moves(K), model_of(schedule(), K)
    back = K.callbacks.LambdaCallback(**{hook: lambda *_: model.optimizer.iterations.assign(0)})
    callbacks = [back, LearningRateLogger()] if first else [LearningRateLogger(), back]
    history = fit(model, *callbacks, moves, x=dataset(known), epochs=3)
    np.testing.assert_allclose(moves.logged, moves.moved, rtol=1e-3)
    assert history.history["learning_rate"] == [EXPECTED[9]] * 3


def idle_model(rate):
    model, _ = model_with(keras, lambda model: None, keras.optimizers.SGD(rate))
    return model


def test_a_rate_that_cannot_move_is_an_error():
    with pytest.raises(RuntimeError, match="never changes.*10 batches.*no update.*step 0.*rate is 0.0.*verify=False"):
        fit(idle_model(schedule()), LearningRateLogger())
    fit(idle_model(schedule()), LearningRateLogger(verify=False))
    for flat in ({"start_step": -100}, {"alpha": 1.0, "warmup_start": 1.0}):
        assert fit(idle_model(schedule(**flat)), LearningRateLogger()).history["learning_rate"]


def overflowing(limit):
    """A model whose gradients are finite from a loss scale of `limit` on downward."""

    def train(model):
        scale = tf.convert_to_tensor(model.optimizer.dynamic_scale)
        gradient = tf.where(scale > limit, float("inf"), -1.0 * scale)
        model.optimizer.apply([gradient], [model.parts[0].weight])

    model, _ = model_with(keras, train, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule())))
    return model


def test_a_loss_scale_may_fall_for_some_batches():
    model = overflowing(2.0**6)
    history = fit(model, LearningRateLogger(), x=ROWS[:2], epochs=8)
    assert count(model.optimizer.inner_optimizer) == 16 - 9
    assert history.history["learning_rate"][-1] == EXPECTED[6]
    with pytest.raises(RuntimeError, match="never changes.*30 batches.*LossScaleOptimizer"):
        fit(overflowing(-1.0), LearningRateLogger(), x=ROWS[:2], epochs=40)
    model = idle_model(0.1)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule())), "mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="never changes.*2 batches"):  # its loss scale does not change
        fit(model, LearningRateLogger(), x=ROWS[:2], epochs=40)


BEFORE = {
    "lrops": (lambda K: schedule(hold_steps=5), {"steps_per_execution": 5}),
    "constant": (lambda K: 0.01, {}),
    "keras": (cosine, {"jit_compile": True}),
}


@pytest.mark.parametrize("optimizer", ["keras", "new", "legacy"])
@pytest.mark.parametrize("before", BEFORE)
def test_a_schedule_that_was_set_before_a_logger_came(before, optimizer):
    (rate, arguments), (K, make) = BEFORE[before], OPTIMIZERS[optimizer]
    model = model_of(make(rate(K)), K, **arguments)
    fit(model, epochs=1)
    model.optimizer.learning_rate = replaced = schedule()
    tf.function(replaced)(tf.constant(1))  # traced, but not into the training function
    with pytest.raises(RuntimeError, match="replaced after.*compile.*Received: lrops.WarmupCosineDecay.*verify=False"):
        fit(model, LearningRateLogger(), epochs=1)
    fit(model, LearningRateLogger(verify=False), epochs=1)
    model.compile(make(schedule()), lambda y, p: -p, **({"jit_compile": False} if K is keras else {}) | arguments)
    fit(model, epochs=1)
    fit(model, LearningRateLogger(), epochs=1)  # it was compiled in without a logger


class NoConfig(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1


PEAKS = [tf.Variable(0.01, dtype=tf.float64), tf.Variable(0.01, dtype=tf.float64)]
INNER = schedule()
REPLACED = {
    "by another curve": (schedule(), schedule(hold_steps=5)),
    "by its own class without a config": (NoConfig(), NoConfig()),
    "by what was behind its warmup": (lrops.LinearWarmup(INNER, 5), INNER),
    "by one whose peak is another variable": [lrops.WarmupCosineDecay(peak, *ARGUMENTS[1:]) for peak in PEAKS],
}


@pytest.mark.parametrize("case", REPLACED)
def test_a_schedule_that_is_compiled_out_is_an_error(case):
    first, second = REPLACED[case]
    model = model_of(first)
    fit(model, LearningRateLogger(), epochs=1)
    if not isinstance(first, NoConfig):
        model.optimizer.learning_rate = type(first).from_config(first.get_config())  # the same curve
        fit(model, LearningRateLogger(verify=hasattr(first, "alpha") and first.alpha != second.alpha), epochs=1)
    model.optimizer.learning_rate = second
    with pytest.raises(RuntimeError, match="replaced after.*make_train_function"):
        fit(model, LearningRateLogger(), epochs=1)
    fit(model, LearningRateLogger(verify=False), epochs=1)
    model.make_train_function(force=True)
    fit(model, LearningRateLogger(), epochs=1)


def test_a_step_in_a_function_that_was_traced_before():
    function = []

    def train(model):
        if not function:
            function.append(tf.function(lambda: apply(model.optimizer, tf.constant(-1.0), model.parts[0].weight)))
        function[0]()

    model, (optimizer,) = model_with(keras, train, keras.optimizers.SGD(schedule()))
    for epoch in range(2):  # the second training function calls what the first has traced
        model.compile(optimizer, jit_compile=False)
        history = fit(model, LearningRateLogger(), epochs=1)
        assert history.history["learning_rate"] == [EXPECTED[10 * epoch + 9]]


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer")
@pytest.mark.parametrize(
    "scaled, arguments", [(True, {}), (False, {"steps_per_execution": 5}), (True, {"jit_compile": True})]
)
def test_each_part_of_a_multi_optimizer_has_a_series(scaled, arguments, tmp_path):
    first, second = keras.optimizers.SGD(schedule(), name="a"), keras.optimizers.SGD(cosine(keras), name="b")
    unused = keras.optimizers.SGD(schedule(), name="unused")
    layers = [one_weight(keras), one_weight(keras)]
    model = keras.Sequential([keras.Input((1,)), *layers])
    model(ROWS)
    paths = {layer.weight.path: optimizer for layer, optimizer in zip(layers, (first, second), strict=True)}
    optimizer = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(unused, paths))
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0)
    model.compile(optimizer, lambda y, p: -p, **{"jit_compile": False} | arguments)
    history = fit(model, LearningRateLogger(csv=tmp_path / "rates.csv", log_dir=tmp_path / "board")).history
    assert history["learning_rate_a"] == [EXPECTED[9], EXPECTED[19]]
    assert "learning_rate_unused" not in history and "learning_rate" not in history
    steps, *rates = np.loadtxt(tmp_path / "rates.csv", delimiter=",", skiprows=1, dtype="float32").T
    assert steps.tolist() == list(range(20))
    for key, found, source in zip("ab", rates, (schedule(), cosine(keras)), strict=True):
        assert found.tolist() == [float(source(step)) for step in range(20)]
        assert scalars(tmp_path / "board", f"learning_rate_{key}") == dict(enumerate(found))


@pytest.mark.parametrize("listed", [True, False])
def test_a_composite_of_legacy_optimizers(listed):
    """Like the optimizer of TensorFlow Recommenders, it hands the work to others."""
    parts = [tf_keras.optimizers.legacy.SGD(schedule()), tf_keras.optimizers.legacy.SGD(cosine(tf_keras))]

    class Composite(tf_keras.optimizers.legacy.Optimizer):
        get_config = None

        def apply_gradients(self, pairs, **_):
            for optimizer, pair in zip(parts, pairs, strict=True):
                optimizer.apply_gradients([pair])

    model = tf_keras.Sequential([tf_keras.Input((1,)), one_weight(tf_keras), one_weight(tf_keras)])
    model.compile(Composite("composite"), lambda y, p: -p)
    if listed:
        with pytest.raises(ValueError, match="no learning rate that could be logged"):
            fit(model, LearningRateLogger())
    else:
        model.optimizer.optimizers = parts
    history = fit(model, LearningRateLogger(optimizer=parts if listed else None)).history
    assert history["learning_rate_SGD"] == [EXPECTED[9], EXPECTED[19]]
    np.testing.assert_allclose(history["learning_rate_SGD_1"], [cosine(tf_keras)(9), cosine(tf_keras)(19)])


def test_a_loop_of_ones_own(tmp_path):
    weight, optimizer, logged = keras.Variable(0.0), recording(keras), []
    model = model_of(optimizer)
    reads = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: logged.append(logs["learning_rate"]))
    for epochs in (1, 2):
        logger = LearningRateLogger(csv=tmp_path / "rates.csv")
        callbacks = keras.callbacks.CallbackList([logger, reads], model=model)
        callbacks.on_train_begin()
        for epoch in range(epochs):
            if epochs > 1:  # a loop may leave it out
                callbacks.on_epoch_begin(epoch)
            for batch in range(10):
                callbacks.on_train_batch_begin(batch)
                apply(optimizer, tf.constant(-1.0), weight)
                callbacks.on_train_batch_end(batch)
            if epochs > 1:
                callbacks.on_epoch_end(epoch)
        callbacks.on_train_end()
    assert logged == optimizer.applied.numpy()[:30].tolist()
    steps, rates = lines(tmp_path / "rates.csv")
    assert steps == list(range(30)) and rates.tolist() == logged


def test_bad_arguments():
    for argument, value, error, said in (
        ("every", 0, ValueError, "every must be at least 1.*every=0"),
        ("every", 1.5, TypeError, "every must be an integer.*every=1.5"),
        ("csv", 1, TypeError, "csv must be a path or None. Received: csv=1"),
        ("log_dir", 1, TypeError, "log_dir must be a path or None. Received: log_dir=1"),
        ("csv", "nowhere://bucket/rates", ValueError, "csv must be in a file system .*Received: csv='nowhere://buc"),
        ("log_dir", "nowhere://bucket", ValueError, "log_dir must be in a file system .*Received: log_dir='nowhere"),
    ):
        with pytest.raises(error, match=said):
            LearningRateLogger(**{argument: value})
    logger = LearningRateLogger()
    logger.set_model(keras.Sequential())
    with pytest.raises(ValueError, match="model.compile"):
        logger.on_train_begin()

    class NoRate(keras.optimizers.SGD):
        _learning_rate = learning_rate = property(lambda self: None, lambda self, value: None)

    logger.model.optimizer = NoRate(0.1)
    with pytest.raises(ValueError, match=r"no learning rate that could be logged.*optimizer=\[...\]"):
        logger.on_train_begin()
