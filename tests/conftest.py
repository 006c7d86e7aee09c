"""The tables that every test shares: curves, tolerances, and the modes in which a rate can be computed."""

import dataclasses
import functools
import itertools
import multiprocessing
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import lrops
from lrops import curves, reference

INT64 = np.iinfo(np.int64)
MAX_STEPS = 2**62
DTYPES = ("float16", "bfloat16", "float32", "float64")
# Significand bits and the exponent of the smallest subnormal; the largest number, where the curves' peaks go above it.
PRECISION = {"float16": (11, -24), "bfloat16": (8, -133), "float32": (24, -149), "float64": (53, -1074)}
LARGEST = {"float16": 65504.0}

# The greatest distance from the true value, in units in the last place of the output dtype. 0.5 is correct rounding;
# what is above it is the 2^-59 of the formula, seen from the dtype's precision.
TOLERANCE_ULP = dict.fromkeys(DTYPES, 0.5 + 1e-9) | {"float64": 0.5 + 2**-6}


class Case:
    """The arguments of one schedule, as the fields of a dataclass, and the class and functions that take them."""

    @staticmethod
    def native(steps, **arguments):
        """The rates from the compiled module, without TensorFlow."""
        return curves.rates(arguments, steps)

    def arguments(self, **changes):
        """As keywords of the schedule, of the native function and of the reference."""
        return dataclasses.asdict(self) | changes

    def steps(self):
        """Some 1000 int64 steps: boundaries and their neighbours, the extremes, 50 of any int64, 800 of the curve."""
        boundaries, ends = self.landmarks()
        special = [self.start_step + at + near for at in boundaries for near in (-1, 0, 1)]
        special += [-1, -(10**9), 0, 1, 2**31, 2**31 + 1, 2**53, 2**53 + 1, INT64.min, INT64.max]
        draw = random.Random(repr(self))
        special += [draw.randint(INT64.min, INT64.max) for _ in range(50)]
        while len(special) < 1000:
            special.append(self.start_step + draw.randint(0, draw.choice(ends) * 9 // 8))
        return np.array([s for s in special if INT64.min <= s <= INT64.max], np.int64)


@dataclasses.dataclass(frozen=True)
class Curve(Case):
    """A `WarmupCosineDecay`."""

    schedule = lrops.WarmupCosineDecay
    reference = staticmethod(reference.warmup_decay)

    initial_learning_rate: float = 1e-3
    warmup_steps: int = 1000
    total_steps: int = 100_000
    alpha: float = 0.001
    hold_steps: int = 0
    warmup_start: float = 0.0
    start_step: int = 0

    def landmarks(self):
        """Steps, counted from start_step, at which a piece begins; and up to which steps are drawn at random."""
        held = self.warmup_steps + self.hold_steps
        return [0, self.warmup_steps, held, (held + self.total_steps) // 2, self.total_steps], [self.total_steps]


@dataclasses.dataclass(frozen=True)
class Decay(Curve):
    """A `WarmupDecay`."""

    schedule = lrops.WarmupDecay

    decay: str = "cosine"

    def landmarks(self):
        """Like those of a Curve, and the step at which minus_sqrt changes to its second piece."""
        (start, warmup, held, *rest), ends = super().landmarks()
        return [start, warmup, held, held + (self.total_steps - held) // 4, *rest], ends


@dataclasses.dataclass(frozen=True)
class InverseSqrt(Case):
    """A `WarmupInverseSqrt`."""

    schedule = lrops.WarmupInverseSqrt
    reference = staticmethod(reference.warmup_inverse_sqrt)

    initial_learning_rate: float = 1e-3
    warmup_steps: int = 1000
    timescale: int | None = None
    hold_steps: int = 0
    warmup_start: float = 0.0
    start_step: int = 0

    def landmarks(self):
        """Like those of a Curve, the steps whose root is exact, and a hundred timescales after the peak."""
        held, scale = self.warmup_steps + self.hold_steps, self.timescale or self.warmup_steps
        exact = [held + (part**2 - 1) * scale for part in (2, 4, 8)]
        return [0, self.warmup_steps, held, *exact], [max(self.warmup_steps, 1), held + 100 * scale, 2**63]


@dataclasses.dataclass(frozen=True)
class Restarts(Case):
    """A `WarmupCosineRestarts`."""

    schedule = lrops.WarmupCosineRestarts
    reference = staticmethod(reference.warmup_cosine_restarts)

    initial_learning_rate: float = 1e-3
    warmup_steps: int = 0
    first_decay_steps: int = 1000
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.001
    cycles: int | None = None
    warmup_start: float = 0.0
    start_step: int = 0

    def starts(self):
        """The first step of each cycle, counted from start_step, and the end of the last: the definition in integers.

        Where all are equally long a range, however many they are.
        """
        warmup, first = self.warmup_steps, self.first_decay_steps
        if self.t_mul == 1:
            return range(warmup, warmup + (self.cycles or (MAX_STEPS - warmup) // first) * first + 1, first)
        above, below = self.t_mul.as_integer_ratio()
        starts, length, unit = [warmup], first, 1
        while self.cycles is None or len(starts) <= self.cycles:
            whole, rest = divmod(length, unit)
            end = starts[-1] + whole + (2 * rest > unit or (2 * rest == unit and whole % 2))
            if end > MAX_STEPS:
                break
            starts.append(end)
            length, unit = length * above, unit * below
        return starts

    def landmarks(self):
        """Like those of a Curve, and the start and middle of each cycle; of many cycles, of the first and last 30."""
        starts = self.starts()
        starts = list(starts) if len(starts) <= 70 else [*starts[:30], *starts[-30:]]
        middles = [(first + end) // 2 for first, end in itertools.pairwise(starts)]
        return [0, *starts, *middles], starts


CORNERS = {
    "usual": Curve(),
    "no_warmup": Curve(warmup_steps=0),
    "hold": Curve(hold_steps=20_000),
    "one_decay_step": Curve(warmup_steps=10, hold_steps=5, total_steps=16),
    "one_step": Curve(warmup_steps=0, total_steps=1),
    "two_steps": Curve(warmup_steps=1, total_steps=2),
    "longest": Curve(warmup_steps=2**40, total_steps=MAX_STEPS),
    "longest_warmup": Curve(warmup_steps=MAX_STEPS - 1, total_steps=MAX_STEPS),
    "longest_hold": Curve(hold_steps=MAX_STEPS - 1001, total_steps=MAX_STEPS),
    "floor_zero": Curve(alpha=0.0),
    "floor_zero_longest": Curve(alpha=0.0, total_steps=MAX_STEPS),
    "floor_at_peak": Curve(alpha=1.0),
    "floor_tiny": Curve(alpha=5e-324),
    "start_at_peak": Curve(warmup_start=1.0),
    "start_ratio": Curve(warmup_start=1 / 3),
    "start_tiny": Curve(warmup_start=1e-310),
    "one_based": Curve(start_step=-1),
    "late_start": Curve(start_step=MAX_STEPS, total_steps=MAX_STEPS),
    "early_start": Curve(start_step=-MAX_STEPS, total_steps=MAX_STEPS),
    "least_peak": Curve(initial_learning_rate=1e-12),
    "greatest_peak": Curve(initial_learning_rate=1e6),
    "peak_one": Curve(initial_learning_rate=1.0, alpha=0.0, warmup_steps=2**25, total_steps=2**26),
    "peak_tie": Curve(initial_learning_rate=1 + 2**-24, warmup_steps=4, total_steps=12),
    "past_2_24": Curve(warmup_steps=2**24 + 1, total_steps=2**31 + 7),
    "linear": Decay(decay="linear", hold_steps=20_000),
    "linear_one_step": Decay(decay="linear", warmup_steps=0, total_steps=1),
    "linear_longest": Decay(decay="linear", alpha=0.0, total_steps=MAX_STEPS),
    "linear_ties": Decay(decay="linear", initial_learning_rate=1 + 2**-24, warmup_steps=4, total_steps=68, alpha=0.0),
    "minus_sqrt": Decay(decay="minus_sqrt", hold_steps=20_000),
    "minus_sqrt_one_step": Decay(decay="minus_sqrt", warmup_steps=0, total_steps=1),
    "minus_sqrt_longest": Decay(decay="minus_sqrt", alpha=0.0, total_steps=MAX_STEPS),
    "minus_sqrt_early": Decay(decay="minus_sqrt", start_step=-MAX_STEPS, warmup_steps=2**40, total_steps=MAX_STEPS),
    # Every root of a square over 2^20 is exact, and many are ties in bfloat16 and float16.
    "minus_sqrt_ties": Decay(
        decay="minus_sqrt", initial_learning_rate=1.0, warmup_steps=0, total_steps=2**20, alpha=0.0
    ),
    "inverse_sqrt": InverseSqrt(),
    "inverse_sqrt_hold": InverseSqrt(hold_steps=20_000, warmup_start=0.1, start_step=-1),
    "inverse_sqrt_least": InverseSqrt(warmup_steps=0, timescale=1),
    "inverse_sqrt_longest": InverseSqrt(warmup_steps=7, timescale=MAX_STEPS, start_step=-MAX_STEPS),
    "inverse_sqrt_ties": InverseSqrt(initial_learning_rate=1 + 2**-24, warmup_steps=4, timescale=48),
    "inverse_sqrt_longest_hold": InverseSqrt(hold_steps=MAX_STEPS, warmup_steps=MAX_STEPS, start_step=-MAX_STEPS),
    "restarts": Restarts(),
    "restarts_one_step": Restarts(first_decay_steps=1, cycles=1),
    "restarts_ties": Restarts(warmup_steps=7, first_decay_steps=3, t_mul=1.5, m_mul=0.9, cycles=40, warmup_start=0.1),
    "restarts_lower": Restarts(warmup_steps=50, t_mul=1.0, m_mul=0.5, alpha=0.0, cycles=64, start_step=-1),
    "restarts_alike": Restarts(warmup_steps=500, t_mul=1.0, start_step=-MAX_STEPS),
    "restarts_longest": Restarts(warmup_steps=2**40, first_decay_steps=2**30 + 1, m_mul=1 - 2**-53, alpha=1 / 3),
}


def random_decays(count, seed=20261123):
    """Curves over the whole range of every hyper-parameter."""
    draw = random.Random(seed)
    for _ in range(count):
        total = draw.choice([draw.randint(1, 100), draw.randint(2, 10**6), int(2 ** draw.uniform(20, 62))])
        warmup = draw.choice([0, min(500, total - 1), draw.randint(0, total - 1)])
        yield Curve(
            initial_learning_rate=draw.choice([1e-3, 3e-4, 10 ** draw.uniform(-12, 6)]),
            warmup_steps=warmup,
            total_steps=total,
            alpha=draw.choice([0.0, 1.0, 0.001, 0.1, draw.random()]),
            hold_steps=draw.choice([0, draw.randint(0, total - 1 - warmup)]),
            warmup_start=draw.choice([0.0, draw.random()]),
            start_step=draw.choice([0, -1, draw.randint(-(10**6), 10**6)]),
        )


def random_inverse_sqrts(count, seed=20261126):
    """Inverse square roots over the whole range of every hyper-parameter."""
    draw = random.Random(seed)
    for _ in range(count):
        warmup = draw.choice([0, 500, draw.randint(0, 10**6), int(2 ** draw.uniform(20, 62))])
        scale = draw.choice([draw.randint(1, 10**6), int(2 ** draw.uniform(0, 62))])
        yield InverseSqrt(
            initial_learning_rate=draw.choice([1e-3, 10 ** draw.uniform(-12, 6)]),
            warmup_steps=warmup,
            timescale=draw.choice([scale, None if warmup else scale]),
            hold_steps=draw.choice([0, draw.randint(0, 10**6)]),
            warmup_start=draw.choice([0.0, draw.random()]),
            start_step=draw.choice([0, -1, draw.randint(-(10**6), 10**6)]),
        )


def random_restarts(count, seed=20261124):
    """Restarts over the whole range of every hyper-parameter."""
    draw = random.Random(seed)
    for _ in range(count):
        t_mul = draw.choice([1.0, 1.5, 2.0, 3.0, draw.uniform(1, 4)])
        yield Restarts(
            initial_learning_rate=draw.choice([1e-3, 10 ** draw.uniform(-12, 6)]),
            warmup_steps=draw.choice([0, 500, draw.randint(0, 10**6)]),
            first_decay_steps=draw.choice([1, draw.randint(2, 100), draw.randint(100, 10**6)]),
            t_mul=t_mul,
            m_mul=draw.choice([1.0, 0.5, draw.uniform(0.01, 1)]),
            alpha=draw.choice([0.0, 0.001, draw.random()]),
            cycles=draw.randint(1, 20) if t_mul < 2 or draw.random() < 0.5 else None,
            warmup_start=draw.choice([0.0, draw.random()]),
            start_step=draw.choice([0, -1, draw.randint(-(10**6), 10**6)]),
        )


CURVES = CORNERS | {
    "restarts_equal": Restarts(t_mul=1.0, m_mul=0.9, cycles=20),
    "restarts_alike_counted": Restarts(first_decay_steps=7, t_mul=1.0, cycles=10**6, start_step=MAX_STEPS),
    "restarts_three": Restarts(first_decay_steps=2, t_mul=3.0, m_mul=0.5, alpha=1.0),
    "restarts_near_one": Restarts(first_decay_steps=2**53, t_mul=1 + 2**-52, cycles=64, start_step=-MAX_STEPS),
    "restarts_far_apart": Restarts(t_mul=1e300, m_mul=5e-324),
    "restarts_vanish": Restarts(t_mul=1.0, m_mul=1e-9, cycles=64, alpha=0.0),
    "restarts_one_longest": Restarts(first_decay_steps=MAX_STEPS, cycles=1),
}
CURVES |= {f"random{i}": curve for i, curve in enumerate(random_decays(100))}
CURVES |= {
    f"random_decay{i}": Decay(**curve.arguments(), decay=("linear", "minus_sqrt")[i % 2])
    for i, curve in enumerate(random_decays(24, seed=20261125))
}
CURVES |= {f"random_inverse_sqrt{i}": curve for i, curve in enumerate(random_inverse_sqrts(12))}
CURVES |= {f"random_restarts{i}": curve for i, curve in enumerate(random_restarts(12))}


def held_by(dtype, curves=CURVES):
    """The curves whose peak `dtype` can hold, by name. lrops rejects the others: see test_arguments.py."""
    smallest, largest = 2.0 ** PRECISION[dtype][1], LARGEST.get(dtype, np.inf)
    return {name: curve for name, curve in curves.items() if smallest <= curve.initial_learning_rate <= largest}


# How a snippet begins that trains on two replicas.
MIRRORED = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, lrops
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""


def schedule_of(curve, dtype="float32"):
    """The schedule of a curve."""
    return curve.schedule(**curve.arguments(dtype=dtype))


def _in_tensorflow(call_of, device=None):
    def mode(curve, steps, dtype):
        with tf.device(device):
            return call_of(schedule_of(curve, dtype))(tf.constant(steps)).numpy()

    return mode


# Every way to compute a rate: (curve, steps, dtype) -> array. With a GPU, on that too: see tests/gpu.
_CALLS = {
    "eager": lambda schedule: schedule,
    "graph": tf.function,
    "xla": functools.partial(tf.function, jit_compile=True),
}
MODES = {name: _in_tensorflow(call_of) for name, call_of in _CALLS.items()}
MODES["python"] = lambda curve, steps, dtype: curve.native(steps, **curve.arguments(dtype=dtype))
GPU_MODES = {f"gpu_{name}": _in_tensorflow(call_of, "GPU:0") for name, call_of in _CALLS.items()}
SEES_GPU = bool(tf.config.list_physical_devices("GPU"))


@pytest.fixture(params=MODES | (GPU_MODES if SEES_GPU else {}))
def mode(request):
    """One way to compute a rate."""
    return (MODES | GPU_MODES)[request.param]


# Folders and files that start processes, compile or search. `make test-fast` skips them and every test marked slow.
SLOW = {"distributed", "docs", "gpu", "test_cli", "test_concurrency", "test_keras_flavours"}
SLOW |= {"test_linear_warmup", "test_loader", "test_packaging", "test_properties", "test_sanitizers", "test_types"}


def pytest_collection_modifyitems(items):
    """Marks slow tests, and skips those that need a GPU if TensorFlow sees none."""
    for item in items:
        if SLOW & {item.path.parent.name, item.path.stem} or "run_python" in item.function.__code__.co_names:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not SEES_GPU:
            item.add_marker(pytest.mark.skip(reason="TensorFlow sees no GPU"))


def _has_locks():
    try:
        multiprocessing.Lock()
    except OSError:
        return False
    return True


needs_locks = pytest.mark.skipif(not _has_locks(), reason="Python has no locks of multiprocessing here: no /dev/shm?")


def named(text):
    """`text` as the name of a file, also in a locale that lacks its letters."""
    return os.fsdecode(text.encode())


# The folder of the libraries for the installed TensorFlow, in the package.
FOLDER = "_tf" + "_".join(tf.__version__.split(".")[:2])


@pytest.fixture
def package(tmp_path):
    """A copy of the installed package."""
    copy = tmp_path / "lrops"
    shutil.copytree(Path(lrops.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def fake_tensorflow(package, version):
    """Puts a TensorFlow of this version in front of the real one, which loads no library but imports at once."""
    (package.parent / "tensorflow").mkdir()
    (package.parent / "tensorflow" / "__init__.py").write_text(
        f"__version__ = {version!r}\nload_op_library = print\nclass errors:\n    OpError = RuntimeError\n"
    )
