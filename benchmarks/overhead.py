"""Measures the step time with lrops and with every schedule that a user could pick instead; `make bench` runs it.

Each case runs in its own process, in which the contenders take turns. report.py makes tables from results.json.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
FEW = ["constant", "constant, again", "lrops", "Keras CosineDecay, warmup"]
CORE = [*FEW, "hand-written, tf.where"]
ALL = [*CORE, "Keras PolynomialDecay + CosineDecay"]
NO_NOISE = [name for name in CORE if name != "constant, again"]  # where what is measured does not drift


def step_case(optimizer, variables, mode, names):
    return {
        "name": f"{optimizer}, {variables} variables, {mode}",
        "kind": "step",
        "arguments": {"optimizer": optimizer, "variables": variables, "mode": mode, "names": names},
    }


def fit_case(model):
    return {"name": f"{model}, model.fit, AdamW", "kind": "fit", "arguments": {"model": model}}


def mirrored_case(replicas):
    plural = "s" * (replicas > 1)
    name = f"AdamW, 10 variables, MirroredStrategy on {replicas} logical CPU{plural}"
    return {"name": name, "kind": "mirrored", "arguments": {"replicas": replicas}}


def curves_case(variables, mode):
    name = f"AdamW, {variables} variables, {mode}, each curve"
    return {"name": name, "kind": "curves", "arguments": {"variables": variables, "mode": mode}}


def behind_a_warmup_case(variables, mode, names):
    name = f"AdamW, {variables} variables, {mode}, Keras' schedules with and without LinearWarmup"
    arguments = {"variables": variables, "mode": mode, "names": names}
    return {"name": name, "kind": "behind_a_warmup", "arguments": arguments}


CURVES = {"name": "evaluation, each curve", "kind": "curve_evaluation", "arguments": {}}
QUICK = [
    step_case("AdamW", 100, "graph", CORE),
    step_case("AdamW", 100, "xla", CORE),
    {"name": "evaluation", "kind": "evaluation", "arguments": {}},
    CURVES,
]
FULL = [
    step_case("AdamW", 10, "graph", CORE),
    step_case("AdamW", 100, "graph", ALL),
    step_case("AdamW", 300, "graph", FEW),
    step_case("AdamW", 1000, "graph", ["constant", "lrops"]),  # Keras' schedule alone would trace for two minutes
    step_case("AdamW", 10, "xla", CORE),
    step_case("AdamW", 100, "xla", CORE),
    step_case("AdamW", 300, "xla", FEW),
    step_case("AdamW", 10, "eager", CORE),
    step_case("Adam", 100, "graph", CORE),
    step_case("SGD", 100, "graph", CORE),
    fit_case("ViT"),
    fit_case("ResNet"),
    *map(mirrored_case, (1, 2, 4, 8)),
    {"name": "AdamW, 100 variables, rate assigned by the host", "kind": "host", "arguments": {}},
    {"name": "AdamW, 100 variables, tf_keras", "kind": "legacy", "arguments": {}},
    {"name": "AdamW, 100 variables, optax in jax.jit", "kind": "optax", "arguments": {}},
    {"name": "AdamW, 100 variables, size", "kind": "size", "arguments": {}},
    {"name": "evaluation", "kind": "evaluation", "arguments": {}},
    curves_case(100, "graph"),
    curves_case(100, "xla"),
    curves_case(10, "eager"),
    CURVES,
    behind_a_warmup_case(10, "graph", ["PolynomialDecay", "CosineDecay"]),
    behind_a_warmup_case(100, "graph", None),
    behind_a_warmup_case(300, "graph", ["PolynomialDecay", "CosineDecay"]),
    behind_a_warmup_case(100, "xla", ["PolynomialDecay", "CosineDecay"]),
]
# Too slow for `make bench`: three minutes for each contender. Only --only runs them.
SLOW = [
    {
        "name": f"AdamW, 100 variables, {mode}, instructions",
        "kind": "instructions",
        "arguments": {"variables": 100, "mode": mode},
    }
    for mode in ("graph", "xla")
]


# ---- In a process of its own: one case


def check_values(rates=None):
    """Checks that all contenders draw the same curve, to float32's error: `rates` of the cosine, or all contenders."""
    import numpy as np
    import tensorflow as tf

    from lrops import benchmark, curves, reference

    for decay, curve in benchmark.curves().items():
        if rates and decay != "cosine":
            continue
        config = curve.get_config()
        del config["name"]
        compared = rates or benchmark.contenders(decay=decay)
        for step in (0, 1, 500, 1000, 50_000, 99_000, benchmark.TOTAL, benchmark.TOTAL + 1):
            expected = getattr(reference, curves.function_of(config))(step, **config)
            for name, rate in compared.items():
                if callable(rate):
                    np.testing.assert_allclose(
                        rate(tf.constant(step, tf.int64)), expected, rtol=1e-3, atol=1e-9, err_msg=f"{decay}: {name}"
                    )


def step(rounds, seconds, **arguments):
    from lrops import benchmark

    check_values()
    return benchmark.compare(rounds=rounds, seconds=seconds, **arguments)


def fit(rounds, seconds, model):
    """The time of a batch in `model.fit` of a real model."""
    import keras
    import numpy as np

    from lrops import benchmark

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
        sys.path.insert(0, str(HERE.parent / "examples"))
        import train_vit

        return train_vit.vision_transformer()

    batches = 10
    images, classes = np.random.default_rng(0).random((16 * batches, 8, 8, 1), "float32"), np.zeros(16 * batches, int)

    def made(rate):
        built = transformer() if model == "ViT" else resnet()
        built.compile(
            keras.optimizers.AdamW(rate, weight_decay=0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )

        def run():
            built.fit(images, classes, batch_size=16, verbose=0, shuffle=False)

        run()
        return benchmark.Step(run)

    steps = benchmark.built(made, benchmark.contenders(FEW))
    rows = benchmark.figures(steps, rounds, seconds)
    for row in rows.values():
        row["us"] /= batches
        row["spread_us"] /= batches
    return rows


def mirrored(rounds, seconds, replicas):
    """An AdamW step on several replicas, each a logical device of the CPU."""
    import keras
    import tensorflow as tf

    from lrops import benchmark

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    check_values()  # not earlier: it starts TensorFlow's devices, which can then no longer be split

    def made(rate):
        with strategy.scope():
            weights = [keras.Variable(tf.ones(256)) for _ in range(10)]
            optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01)
            optimizer.build(weights)
        gradients = [tf.fill([256], 1e-3)] * 10
        run = tf.function(lambda: strategy.run(lambda: optimizer.apply(gradients)))
        return benchmark.called(run, optimizer.iterations.numpy, optimizer=optimizer)

    rates = benchmark.contenders(FEW)
    steps = benchmark.built(made, rates)
    steps["assigned by the host"] = assigned_by_the_host(made(benchmark.PEAK), rates["lrops"])
    return benchmark.figures(steps, rounds, seconds)


def assigned_by_the_host(step, schedule):
    """The step with its rate in a variable, which Python assigns before each step, as a callback does."""

    def run():
        step.optimizer.learning_rate = float(schedule.on_host(int(step.optimizer.iterations.numpy())))
        step.run()

    return dataclasses.replace(step, run=run)


def host(rounds, seconds):
    """An AdamW step whose rate Python assigns before each step, on one device."""
    from lrops import benchmark

    rates = benchmark.contenders(["constant", "lrops"])
    steps = benchmark.built(benchmark.training_step, rates)
    steps["assigned by the host"] = assigned_by_the_host(benchmark.training_step(benchmark.PEAK), rates["lrops"])
    return benchmark.figures(steps, rounds, seconds)


def legacy(rounds, seconds):
    """An AdamW step of tf_keras, with its schedule and with that of the TensorFlow Model Garden."""
    import importlib.util

    import tensorflow as tf
    import tf_keras

    from lrops import benchmark

    cosine = tf_keras.optimizers.schedules.CosineDecay
    arguments = {"decay_steps": benchmark.TOTAL - benchmark.WARMUP, "alpha": benchmark.ALPHA}
    # Only this file is loaded: its package imports thirty others.
    path = importlib.metadata.distribution("tf-models-official").locate_file(
        "official/modeling/optimization/lr_schedule.py"
    )
    specification = importlib.util.spec_from_file_location("lr_schedule", path)
    garden = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(garden)
    after = garden.CosineDecayWithOffset(offset=benchmark.WARMUP, initial_learning_rate=benchmark.PEAK, **arguments)
    rates = benchmark.contenders(["constant", "constant, again", "lrops"]) | {
        "tf_keras CosineDecay, warmup": cosine(
            0.0, warmup_target=benchmark.PEAK, warmup_steps=benchmark.WARMUP, **arguments
        ),
        "Model Garden LinearWarmup + CosineDecay": garden.LinearWarmup(after, benchmark.WARMUP, 0.0),
    }
    check_values(rates)

    def made(rate):
        weights = [tf.Variable(tf.ones(256)) for _ in range(100)]
        optimizer = tf_keras.optimizers.AdamW(rate, weight_decay=0.01, jit_compile=False)
        optimizer.build(weights)
        pairs = [(tf.fill([256], 1e-3), weight) for weight in weights]
        run = tf.function(lambda: optimizer.apply_gradients(pairs))
        return benchmark.called(run, optimizer.iterations.numpy)

    return benchmark.figures(benchmark.built(made, rates), rounds, seconds)


def optax(rounds, seconds):
    """The same work in another framework: a constant rate and optax's schedule in a jitted AdamW step."""
    import jax
    import jax.numpy as jnp
    import optax as library

    from lrops import benchmark

    def made(rate):
        optimizer = library.adamw(rate, weight_decay=0.01)
        weights = [jnp.ones(256) for _ in range(100)]
        gradients = [jnp.full(256, 1e-3) for _ in range(100)]
        held = [weights, optimizer.init(weights)]

        @jax.jit
        def apply(weights, state):
            updates, state = optimizer.update(gradients, state, weights)
            return library.apply_updates(weights, updates), state

        def run():
            held[:] = apply(*held)

        return benchmark.called(run, lambda: jax.block_until_ready(held))

    schedule = library.warmup_cosine_decay_schedule(
        0.0, benchmark.PEAK, benchmark.WARMUP, benchmark.TOTAL, benchmark.PEAK * benchmark.ALPHA
    )
    rates = {"constant": benchmark.PEAK, "optax warmup_cosine_decay_schedule": schedule}
    return benchmark.figures(benchmark.built(made, rates), rounds, seconds)


def size(rounds, seconds):
    """The size of a traced step, each contender in its own process."""
    rows = {}
    for name in NO_NOISE:
        case = {"kind": "footprint", "arguments": {"name": name}}
        rows[name], error = in_a_process(case, rounds, seconds)
        if error:
            raise RuntimeError(f"{name}: {error}")
    return rows


def footprint(rounds, seconds, name):
    """The file of a SavedModel with an AdamW step in it, and the memory of a process that ran it."""
    import resource
    import tempfile

    import tensorflow as tf

    from lrops import benchmark

    step = benchmark.training_step(benchmark.contenders()[name])
    for _ in range(20):
        step.run()
    step.wait()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    module = tf.Module()
    module.step, module.held = step.run, step.run.get_concrete_function().graph.variables
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        return {"saved_kb": Path(folder, "saved_model.pb").stat().st_size / 1000, "peak_mib": peak / 1024}


def instructions(rounds, seconds, variables, mode):
    """The instructions of a step, counted by valgrind. They do not drift as its time does."""
    import tempfile

    rows = {}
    for name in counted_rates():
        with tempfile.TemporaryDirectory() as folder:
            dumps = str(Path(folder, "dump"))
            under = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", "--smc-check=all-non-file"]
            case = {
                "kind": "counted",
                "arguments": {"name": name, "variables": variables, "mode": mode, "dumps": dumps},
            }
            rows[name], error = in_a_process(case, rounds, seconds, [*under, f"--callgrind-out-file={dumps}"])
        if error:
            raise RuntimeError(f"{name}: {error}")
    for row in rows.values():
        row["ratio"] = row["counted"] / rows["constant"]["counted"]
    return rows


def counted_rates():
    """Those of the contenders that are counted, and a schedule of Keras with a LinearWarmup before it and without."""
    import lrops
    from lrops import benchmark

    plain = keras_schedules()["CosineDecay"]
    warmed = lrops.LinearWarmup(plain, benchmark.WARMUP)
    return benchmark.contenders(NO_NOISE) | {"Keras CosineDecay": plain, "LinearWarmup(Keras CosineDecay)": warmed}


def counted(rounds, seconds, name, variables, mode, dumps):
    """Counts the steps of one contender. The process runs under valgrind, which writes each count to `dumps`.N."""
    import tensorflow as tf

    from lrops import benchmark

    # A thread that waits for work polls, and its instructions would be counted.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    step = benchmark.training_step(counted_rates()[name], variables=variables, mode=mode)

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
    """One eager evaluation, beside the bare op and a no-op; and a million steps in one evaluation."""
    import numpy as np
    import tensorflow as tf

    import lrops
    from lrops import benchmark

    check_values()
    one, many = tf.constant(500, tf.int64), tf.range(1_000_000, dtype=tf.int64)
    schedules = {name: rate for name, rate in benchmark.contenders().items() if callable(rate)}
    op, attributes = lrops.load_ops().lrops_warmup_decay, schedules["lrops"]._attributes

    def made(run):
        run()
        return benchmark.Step(run)

    steps = {
        "the bare op": made(lambda: op(one, **attributes)),
        "a no-op (tf.identity)": made(lambda: tf.identity(one)),
    }
    steps |= {name: made(lambda rate=rate: rate(one)) for name, rate in schedules.items()}
    rows = benchmark.figures(steps, rounds, seconds, "the bare op")
    host = np.arange(1_000_000)
    # Keras' own schedule with warmup takes no array, because it branches on its step.
    arrays = ("lrops", "hand-written, tf.where", "Keras PolynomialDecay + CosineDecay")
    vector = {name: made(lambda rate=schedules[name]: rate(many)) for name in arrays}
    vector["lrops, on_host (one thread)"] = made(lambda: schedules["lrops"].on_host(host))
    for name, row in benchmark.figures(vector, rounds, seconds, "lrops").items():
        rows[f"{name}: ns a step of a million"] = row | {"us": row["us"] / 1000, "spread_us": row["spread_us"] / 1000}
    return rows


def against_the_cosine(steps, rounds, seconds):
    """The figures of steps, with the ratio to the one named "cosine"."""
    from lrops import benchmark

    rows = benchmark.figures(steps, rounds, seconds, "cosine")
    return {name: row | {"of_cosine": row.pop("ratio")} for name, row in rows.items()}


def curves(rounds, seconds, variables, mode):
    """An AdamW step with each curve of lrops."""
    from lrops import benchmark

    check_values()
    rates = benchmark.curves() | {"cosine, again": benchmark.curves()["cosine"], "constant": benchmark.PEAK}
    steps = benchmark.built(lambda rate: benchmark.training_step(rate, variables=variables, mode=mode), rates)
    return against_the_cosine(steps, rounds, seconds)


def keras_schedules():
    """Each schedule of Keras, without a warmup."""
    import keras

    from lrops import benchmark

    made, peak, total = keras.optimizers.schedules, benchmark.PEAK, benchmark.TOTAL
    return {
        "PolynomialDecay": made.PolynomialDecay(peak, total, 0.0),
        "ExponentialDecay": made.ExponentialDecay(peak, total, 0.9),
        "InverseTimeDecay": made.InverseTimeDecay(peak, total, 0.5),
        "PiecewiseConstantDecay": made.PiecewiseConstantDecay([total // 2, total], [peak, peak / 2, peak / 4]),
        "CosineDecay": made.CosineDecay(peak, total),
        "CosineDecayRestarts": made.CosineDecayRestarts(peak, total // 4),
    }


def behind_a_warmup(rounds, seconds, variables, mode, names):
    """An AdamW step with schedules of Keras: alone, in a LinearWarmup of 0 steps, and behind a warmup."""
    import lrops
    from lrops import benchmark

    peak, warmup, total = benchmark.PEAK, benchmark.WARMUP, benchmark.TOTAL
    schedules = keras_schedules()
    rates = {"constant": peak, "constant, again": peak}
    for name in names or schedules:
        plain = schedules[name]
        merged, warmed = lrops.LinearWarmup(plain, 0), lrops.LinearWarmup(plain, warmup)
        for step in (0, 1, warmup, total // 2, total, total + 1):
            if not float(plain(step)) == float(merged(step)) == float(warmed(step + warmup)):
                raise ValueError(f"LinearWarmup of {name} is another curve at step {step}")
        rates |= {f"Keras {name}": plain, f"LinearWarmup({name}, 0)": merged}
        rates |= {f"LinearWarmup({name}, {warmup})": warmed}
    steps = benchmark.built(lambda rate: benchmark.training_step(rate, variables=variables, mode=mode), rates)
    return benchmark.figures(steps, rounds, seconds)


def curve_evaluation(rounds, seconds):
    """One evaluation of each curve of lrops, and a million steps in one evaluation."""
    import numpy as np
    import tensorflow as tf

    from lrops import benchmark

    check_values()
    one, many, host = tf.constant(500, tf.int64), tf.range(1_000_000, dtype=tf.int64), np.arange(1_000_000)

    def in_a_function(jit_compile):
        def made(schedule):
            function = tf.function(schedule, jit_compile=jit_compile)
            step = benchmark.called(lambda: function(one))
            if jit_compile:
                step.instructions = function.experimental_get_compiler_ir(one)(stage="optimized_hlo").count(" = ")
            return step

        return made

    ways = {
        "eager": lambda schedule: benchmark.called(lambda: schedule(one)),
        "tf.function": in_a_function(False),
        "XLA": in_a_function(True),
        "a million": lambda schedule: benchmark.called(lambda: schedule(many)),
        "a million, on_host (one thread)": lambda schedule: benchmark.called(lambda: schedule.on_host(host)),
    }
    rows = {}
    for way, made in ways.items():
        steps = benchmark.built(made, benchmark.curves())
        for name, row in against_the_cosine(steps, rounds, seconds).items():
            if "million" in way:
                row |= {"us": row["us"] / 1000, "spread_us": row["spread_us"] / 1000}
            rows[f"{name}, {way}".replace("a million", "ns a step of a million")] = row
    return rows


# ---- The suite


def in_a_process(case, rounds, seconds, under=()):
    """The rows of a case, or why there are none. `under` is a command that runs the process."""
    command = [*under, sys.executable, __file__, "--case", json.dumps(case)]
    command += ["--rounds", str(rounds), "--seconds", str(seconds)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    if result.returncode:
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", result.stderr, re.MULTILINE)
        return {}, (errors or ["no error message"])[-1]
    return json.loads(result.stdout.splitlines()[-1]), ""


def version(name):
    """Of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit():
    """Of the checkout, with a mark where anything but the results differs from that."""

    def git(*command):
        return subprocess.run(
            ["git", "-C", HERE.parent, *command], capture_output=True, encoding="utf-8"
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results.json")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def facts():
    """The machine and the versions."""
    with open("/proc/cpuinfo") as lines:
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    names = "lrops tensorflow-cpu tensorflow keras tf_keras tf-models-official numpy jax optax".split()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: found for name in names if (found := version(name))},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=25, help="in which all contenders of a process take turns")
    parser.add_argument("--seconds", type=float, default=0.1, help="of a turn")
    parser.add_argument("--quick", action="store_true", help="100 variables only, short turns")
    parser.add_argument(
        "--only", metavar="REGEX", help="measure the cases whose name has this; the others stay as --output holds them"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results.json", help="(default: %(default)s)")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)  # what a process of its own is told
    options = parser.parse_args()
    if options.case:
        rows = globals()[options.case["kind"]](options.rounds, options.seconds, **options.case["arguments"])
        print(json.dumps(rows))
        return
    from tqdm import tqdm

    if options.quick:
        options.rounds = 7
    cases = QUICK if options.quick else FULL
    results = {"facts": facts(), "cases": {}, "taken": {}, "skipped": {}}
    if options.only:
        results = json.loads(options.output.read_text()) | {"facts": results["facts"]}
        cases = [case for case in cases + SLOW if re.search(options.only, case["name"])]
    progress = tqdm(cases, unit="case")
    for case in progress:
        name = case["name"]
        progress.set_postfix_str(name)
        start, load = time.monotonic(), os.getloadavg()[0]
        rows, error = in_a_process(case, options.rounds, options.seconds)
        if error:
            results["skipped"][name] = error
            continue
        results["skipped"].pop(name, None)
        results["cases"][name] = rows
        results["taken"][name] = {
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "load": load,
            "seconds": round(time.monotonic() - start),
        }
    order = [case["name"] for case in FULL + SLOW]
    results["cases"] = dict(sorted(results["cases"].items(), key=lambda item: order.index(item[0])))
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    import report

    print(report.markdown(results))
    print(f"\nWritten: {options.output}. `python {HERE / 'report.py'}` writes the tables and the chart from it.")


if __name__ == "__main__":
    main()
