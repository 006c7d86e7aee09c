"""The cases that overhead.py measures: `cases.py CASE ROUNDS SECONDS` runs one, and prints its rows as JSON."""

import dataclasses
import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from overhead import AGAIN, BY_HAND, CONSTANT, FEW, KERAS, LROPS, WARMED, in_a_process

import lrops
from lrops import benchmark, curves, reference
from lrops.benchmark import ALPHA, PEAK, TOTAL, WARMUP


class ReadsOnce(keras.optimizers.AdamW):
    """AdamW that evaluates its schedule once a step, as one may write it by hand."""

    _read = None

    @property
    def learning_rate(self):
        """During a step, what was read at its start."""
        return super().learning_rate if self._read is None else self._read

    def apply(self, grads, trainable_variables=None):
        """Reads the rate, and then updates the weights."""
        self._read = super().learning_rate
        try:
            return super().apply(grads, trainable_variables)
        finally:
            self._read = None


def contenders(names=None):
    """Those of `names`, or all: name -> what `adamw` takes."""
    rates = benchmark.contenders()
    rates[WARMED] = lrops.LinearWarmup(keras.optimizers.schedules.CosineDecay(PEAK, TOTAL - WARMUP, ALPHA), WARMUP)
    rates[BY_HAND] = (ReadsOnce, rates[KERAS])
    check_values({name: rate for name, rate in rates.items() if callable(rate)})
    return {name: rates[name] for name in names or rates}


def check_values(rates):
    """Checks that schedules draw the cosine, to float32's error."""
    config = benchmark.curves()["cosine"].get_config()
    del config["name"]
    for step in (0, 1, 500, 1000, 50_000, 99_000, TOTAL, TOTAL + 1):
        expected = getattr(reference, curves.function_of(config))(step, **config)
        for name, rate in rates.items():
            np.testing.assert_allclose(
                rate(tf.constant(step, tf.int64)), expected, rtol=1e-3, atol=1e-9, err_msg=f"{name}, {step}"
            )


def adamw(rate):
    """Keras' AdamW, or the subclass that comes with a rate."""
    optimizer, rate = rate if isinstance(rate, tuple) else (keras.optimizers.AdamW, rate)
    return optimizer(rate, weight_decay=0.01)


def step(rounds, seconds, optimizer, variables, mode, names):
    """An optimizer's update alone: gradients are given."""
    optimizer = adamw if optimizer == "AdamW" else optimizer

    def made(rate):
        return benchmark.training_step(rate, optimizer, variables, mode=mode)

    return benchmark.figures(benchmark.built(made, contenders(names)), rounds, seconds)


def model(rounds, seconds, model, names):
    """A training step of a network of keras.applications, on a batch of 4 images of 64 x 64."""
    images, classes = tf.random.stateless_uniform((4, 64, 64, 3), (0, 1)), tf.constant([0, 1, 2, 3])
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    counts = set()

    def made(rate):
        network = getattr(keras.applications, model)(
            input_shape=(64, 64, 3), weights=None, classes=10, classifier_activation=None
        )
        optimizer = adamw(rate)
        optimizer.build(network.trainable_variables)
        counts.add(len(network.trainable_variables))

        @tf.function
        def train():
            with tf.GradientTape() as tape:
                loss = loss_of(classes, network(images, training=True))
            optimizer.apply(tape.gradient(loss, network.trainable_variables))

        return benchmark.called(train, optimizer.iterations.numpy)

    # A step is long: a longer turn holds several.
    rows = benchmark.figures(benchmark.built(made, contenders(names)), rounds, 5 * seconds)
    rows[CONSTANT]["variables"] = counts.pop()
    return rows


def fit(rounds, seconds, model):
    """The time of a batch in `model.fit` of a small model."""

    def residual(images, width):
        inner = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(images)
        inner = keras.layers.BatchNormalization()(inner)
        inner = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(keras.layers.ReLU()(inner))
        return keras.layers.ReLU()(images + keras.layers.BatchNormalization()(inner))

    def resnet():
        images = keras.Input((8, 8, 1))
        features = keras.layers.Conv2D(16, 3, padding="same")(images)
        for _ in range(6):
            features = residual(features, 16)
        return keras.Model(images, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(features)))

    def transformer():
        sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
        import train_vit

        return train_vit.vision_transformer()

    batches = 10
    images, classes = np.random.default_rng(0).random((16 * batches, 8, 8, 1), "float32"), np.zeros(16 * batches, int)

    def made(rate):
        built = transformer() if model == "ViT" else resnet()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        built.compile(adamw(rate), loss, jit_compile=False)

        def run():
            built.fit(images, classes, batch_size=16, verbose=0, shuffle=False)

        run()
        return benchmark.Step(run)

    rows = benchmark.figures(benchmark.built(made, contenders(FEW)), rounds, seconds)
    return {name: scaled(row, 1 / batches) for name, row in rows.items()}


def scaled(row, factor):
    """A row with its times multiplied."""
    return row | {"us": row["us"] * factor, "spread_us": row["spread_us"] * factor}


def mirrored(rounds, seconds, replicas):
    """An AdamW update on several replicas, each a logical device of the CPU."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])

    def made(rate):
        with strategy.scope():
            weights = [keras.Variable(tf.ones(256)) for _ in range(10)]
            optimizer = adamw(rate)
            optimizer.build(weights)
        gradients = [tf.fill([256], 1e-3)] * 10
        run = tf.function(lambda: strategy.run(lambda: optimizer.apply(gradients)))
        return benchmark.called(run, optimizer.iterations.numpy, optimizer=optimizer)

    rates = contenders(FEW)
    steps = benchmark.built(made, rates)
    steps["assigned by the host"] = assigned_by_the_host(made(PEAK), rates[LROPS])
    return benchmark.figures(steps, rounds, seconds)


def assigned_by_the_host(step, schedule):
    """The step with its rate in a variable, which Python assigns before each step, as a callback does."""

    def run():
        step.optimizer.learning_rate = float(schedule.on_host(int(step.optimizer.iterations.numpy())))
        step.run()

    return dataclasses.replace(step, run=run)


def host(rounds, seconds):
    """An AdamW update whose rate Python assigns before each step, on one device."""
    rates = contenders([CONSTANT, LROPS])
    steps = benchmark.built(benchmark.training_step, rates)
    steps["assigned by the host"] = assigned_by_the_host(benchmark.training_step(PEAK), rates[LROPS])
    return benchmark.figures(steps, rounds, seconds)


def legacy(rounds, seconds):
    """An AdamW update of tf_keras, with its own schedule and with lrops."""
    import tf_keras

    rates = contenders([CONSTANT, AGAIN, LROPS])
    cosine = tf_keras.optimizers.schedules.CosineDecay
    rates[KERAS] = cosine(0.0, TOTAL - WARMUP, ALPHA, warmup_target=PEAK, warmup_steps=WARMUP)

    def made(rate):
        weights = [tf.Variable(tf.ones(256)) for _ in range(100)]
        optimizer = tf_keras.optimizers.AdamW(rate, weight_decay=0.01, jit_compile=False)
        optimizer.build(weights)
        pairs = [(tf.fill([256], 1e-3), weight) for weight in weights]
        run = tf.function(lambda: optimizer.apply_gradients(pairs))
        return benchmark.called(run, optimizer.iterations.numpy)

    return benchmark.figures(benchmark.built(made, rates), rounds, seconds)


def each_in_a_process(rounds, seconds, names, kind, under=(), **arguments):
    """The rows of a case, one process for each contender."""
    rows = {}
    for name in names:
        case = {"kind": kind, "arguments": {"name": name, **arguments}}
        rows[name], error = in_a_process(case, rounds, seconds, under)
        if error:
            raise RuntimeError(f"{name}: {error}")
    return rows


def size(rounds, seconds, names):
    """The size of a traced step."""
    return each_in_a_process(rounds, seconds, names, "footprint")


def footprint(rounds, seconds, name):
    """The file of a SavedModel with an AdamW update in it, and the memory of a process that ran it."""
    step = benchmark.training_step(contenders()[name])
    for _ in range(20):
        step.run()
    step.wait()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    module = tf.Module()
    module.step, module.held = step.run, step.run.get_concrete_function().graph.variables
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        return {"saved_kb": Path(folder, "saved_model.pb").stat().st_size / 1000, "peak_mib": peak / 1024}


def instructions(rounds, seconds, variables, mode, names):
    """The instructions of a step, counted by valgrind. They do not drift as its time does."""
    with tempfile.TemporaryDirectory() as folder:
        dumps = str(Path(folder, "dump"))
        under = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", "--smc-check=all-non-file"]
        under.append(f"--callgrind-out-file={dumps}")
        arguments = {"variables": variables, "mode": mode, "dumps": dumps}
        rows = each_in_a_process(rounds, seconds, names, "counted", under, **arguments)
    for row in rows.values():
        row["ratio"] = row["counted"] / rows[CONSTANT]["counted"]
    return rows


def counted(rounds, seconds, name, variables, mode, dumps):
    """Counts the steps of one contender. The process runs under valgrind, which writes each count to `dumps`.N."""
    # A thread that waits for work polls, and its instructions would be counted.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    step = benchmark.training_step(contenders()[name], adamw, variables, mode=mode)

    def order(*options):
        ordered = subprocess.Popen(["callgrind_control", *options, str(os.getpid())], stdout=subprocess.DEVNULL)
        while ordered.poll() is None:  # valgrind takes no orders while this process sleeps
            pass
        if ordered.returncode:
            raise RuntimeError("callgrind_control failed")

    numbers = itertools.count(1)

    def count(steps):
        order("--zero")
        for _ in range(steps):
            step.run()
        step.wait()
        order("--dump")
        return int(re.search(r"^summary: (\d+)", Path(f"{dumps}.{next(numbers)}").read_text(), re.MULTILINE)[1])

    order("--instr=on")
    count(5)
    per_step = [(count(20) - count(0)) / 20 for _ in range(5)]
    return {"counted": statistics.median(per_step) / 1e6}


def evaluation(rounds, seconds):
    """One eager evaluation, with the bare op and a no-op for comparison; and a million steps in one evaluation."""
    one, many, host = tf.constant(500, tf.int64), tf.range(1_000_000, dtype=tf.int64), np.arange(1_000_000)
    schedules = {name: rate for name, rate in contenders().items() if callable(rate)}
    op, attributes = lrops.load_ops().lrops_warmup_decay, schedules[LROPS]._attributes

    def made(run):
        run()
        return benchmark.Step(run)

    steps = {
        "the bare op": made(lambda: op(one, **attributes)),
        "a no-op (tf.identity)": made(lambda: tf.identity(one)),
    }
    steps |= {name: made(lambda rate=rate: rate(one)) for name, rate in schedules.items()}
    rows = benchmark.figures(steps, rounds, seconds, "the bare op")
    # Keras' own schedule with warmup takes no array, because it branches on its step. LinearWarmup evaluates it.
    arrays = (name for name in schedules if name not in (KERAS, WARMED))
    vector = {name: made(lambda rate=schedules[name]: rate(many)) for name in arrays}
    vector["lrops, on_host (one thread)"] = made(lambda: schedules[LROPS].on_host(host))
    for name, row in benchmark.figures(vector, rounds, seconds, LROPS).items():
        rows[f"{name}: ns a step of a million"] = scaled(row, 1e-3)
    return rows


def against_the_cosine(steps, rounds, seconds):
    """The figures of steps, with the ratio to the one named "cosine"."""
    rows = benchmark.figures(steps, rounds, seconds, "cosine")
    return {name: row | {"of_cosine": row.pop("ratio")} for name, row in rows.items()}


def curves_of_lrops(rounds, seconds, variables, mode):
    """An AdamW update with each curve of lrops."""
    rates = benchmark.curves() | {"cosine, again": benchmark.curves()["cosine"], CONSTANT: PEAK}
    steps = benchmark.built(lambda rate: benchmark.training_step(rate, variables=variables, mode=mode), rates)
    return against_the_cosine(steps, rounds, seconds)


def keras_schedules():
    """Each schedule of Keras, without a warmup."""
    made = keras.optimizers.schedules
    return {
        "PolynomialDecay": made.PolynomialDecay(PEAK, TOTAL, 0.0),
        "ExponentialDecay": made.ExponentialDecay(PEAK, TOTAL, 0.9),
        "InverseTimeDecay": made.InverseTimeDecay(PEAK, TOTAL, 0.5),
        "PiecewiseConstantDecay": made.PiecewiseConstantDecay([TOTAL // 2, TOTAL], [PEAK, PEAK / 2, PEAK / 4]),
        "CosineDecay": made.CosineDecay(PEAK, TOTAL),
        "CosineDecayRestarts": made.CosineDecayRestarts(PEAK, TOTAL // 4),
    }


def behind_a_warmup(rounds, seconds, variables, mode, names):
    """An AdamW update with schedules of Keras: alone, in a LinearWarmup of 0 steps, and behind a warmup."""
    schedules = keras_schedules()
    rates = {CONSTANT: PEAK, AGAIN: PEAK}
    for name in names or schedules:
        plain = schedules[name]
        merged, warmed = lrops.LinearWarmup(plain, 0), lrops.LinearWarmup(plain, WARMUP)
        for step in (0, 1, WARMUP, TOTAL // 2, TOTAL, TOTAL + 1):
            if not float(plain(step)) == float(merged(step)) == float(warmed(step + WARMUP)):
                raise ValueError(f"LinearWarmup of {name} is another curve at step {step}")
        rates |= {f"Keras {name}": plain, f"LinearWarmup({name}, 0)": merged}
        rates |= {f"LinearWarmup({name}, {WARMUP})": warmed}
    steps = benchmark.built(lambda rate: benchmark.training_step(rate, variables=variables, mode=mode), rates)
    return benchmark.figures(steps, rounds, seconds)


def curve_evaluation(rounds, seconds):
    """One evaluation of each curve of lrops, and a million steps in one evaluation."""
    one, many, host = tf.constant(500, tf.int64), tf.range(1_000_000, dtype=tf.int64), np.arange(1_000_000)

    def in_a_function(jit_compile):
        def made(schedule):
            function = tf.function(schedule, jit_compile=jit_compile)
            return benchmark.called(lambda: function(one))

        return made

    ways = {
        "eager": lambda schedule: benchmark.called(lambda: schedule(one)),
        "tf.function": in_a_function(False),
        "XLA": in_a_function(True),
        "ns a step of a million": lambda schedule: benchmark.called(lambda: schedule(many)),
        "ns a step of a million, on_host (one thread)": lambda schedule: benchmark.called(
            lambda: schedule.on_host(host)
        ),
    }
    rows = {}
    for way, made in ways.items():
        steps = benchmark.built(made, benchmark.curves())
        for name, row in against_the_cosine(steps, rounds, seconds).items():
            rows[f"{name}, {way}"] = scaled(row, 1e-3) if "million" in way else row
    return rows


def timed(hook):
    """A hook of `LearningRateLogger` that adds its time to `seconds`."""

    def run(self, *arguments, **named):
        start = time.perf_counter()
        getattr(lrops.LearningRateLogger, hook)(self, *arguments, **named)
        self.seconds += time.perf_counter() - start

    return run


class Timed(lrops.LearningRateLogger):
    """A logger that knows how long its hooks took."""

    seconds = 0.0
    on_epoch_begin, on_epoch_end = timed("on_epoch_begin"), timed("on_epoch_end")
    on_train_batch_begin, on_train_batch_end = timed("on_train_batch_begin"), timed("on_train_batch_end")


def logger(rounds, seconds):
    """What `LearningRateLogger` adds to a batch of `fit`: all hooks of an epoch of 500 batches, divided by 500."""
    batches = 500
    rows = np.ones((batches, 4), "float32")
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    network.compile(adamw(benchmark.curves()["cosine"]), "mse", jit_compile=False)
    with tempfile.TemporaryDirectory() as folder:

        def microseconds(files):
            new = tempfile.mkdtemp(dir=folder)
            callback = Timed(**{file: str(Path(new, file)) for file in files})
            network.fit(rows, rows[:, :1], batch_size=1, verbose=0, callbacks=[callback])
            return callback.seconds / batches * 1e6

        ways = {"without files": (), "csv": ("csv",), "log_dir": ("log_dir",), "both": ("csv", "log_dir")}
        microseconds(ways["both"])
        turns = [{name: microseconds(files) for name, files in ways.items()} for _ in range(rounds)]
    return benchmark.summary({name: [turn[name] for turn in turns] for name in ways}, "without files")


def main():
    case, rounds, seconds = json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(globals()[case["kind"]](rounds, seconds, **case["arguments"])))


if __name__ == "__main__":
    main()
