"""The published formulas of schedules that are too large to install for a test, in float64, under their authors' names.

`optimizer` is anything with the peak in `lr`.
"""

import bisect
import dataclasses
import math

import tensorflow as tf
import tf_keras


def _half_cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


def _line(progress):
    return 1 - progress


def _minus_sqrt(progress):
    return 1 - math.sqrt(progress)


# Keras CV, examples/training/classification/imagenet/basic_training.py at 94b0a55, which ignores its start_lr.
def WarmUpCosineDecay(warmup_steps, total_steps, hold, target_lr):
    def rate(step):
        if step < warmup_steps:
            return target_lr * step / warmup_steps
        if hold > 0 and step <= warmup_steps + hold:
            return target_lr
        if step > total_steps:
            return 0.0
        return target_lr * _half_cosine((step - warmup_steps - hold) / (total_steps - warmup_steps - hold))

    return rate


# TensorFlow Model Garden, official/modeling/optimization/lr_schedule.py at 00b830c: around tf_keras, in its float32.
def CosineDecayWithOffset(offset=0, **arguments):
    schedule = tf_keras.optimizers.schedules.CosineDecay(**arguments)
    return lambda step: schedule(step - offset)


def PolynomialDecayWithOffset(offset=0, **arguments):
    schedule = tf_keras.optimizers.schedules.PolynomialDecay(**arguments)
    return lambda step: schedule(step - offset)


def LinearWarmup(after_warmup_lr_sched, warmup_steps, warmup_learning_rate):
    last = after_warmup_lr_sched(warmup_steps)

    def rate(step):
        if step < warmup_steps:
            return warmup_learning_rate + step / warmup_steps * (last - warmup_learning_rate)
        return after_warmup_lr_sched(step)

    return rate


# The same, official/nlp/optimization.py at 0015eed; google-research/bert, optimization.py at 02102db, has it too.
def WarmUp(initial_learning_rate, decay_schedule_fn, warmup_steps):
    return lambda step: initial_learning_rate * step / warmup_steps if step < warmup_steps else decay_schedule_fn(step)


# Hugging Face transformers, src/transformers/optimization.py at 005edac.
def get_cosine_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps):
    return get_scheduler("cosine_with_min_lr", optimizer, num_warmup_steps, num_training_steps, {"min_lr": 0.0})


def get_scheduler(name, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs):
    return _HUGGING_FACE[name](optimizer.lr, num_warmup_steps, num_training_steps, **scheduler_specific_kwargs)


def _cosine_with_min_lr(peak, warmup, total, min_lr):
    low = min_lr / peak

    def rate(step):
        if step < warmup:
            return peak * step / max(1, warmup)
        return peak * max(0, low + (1 - low) * _half_cosine((step - warmup) / max(1, total - warmup)))

    return rate


def _cosine_warmup_with_min_lr(peak, warmup, total, min_lr, warmup_lr_rate=None):
    low = min_lr / peak

    def rate(step):
        if step >= warmup:
            return peak * max(0, low + (1 - low) * _half_cosine((step + 1 - warmup) / max(1, total - warmup)))
        if warmup_lr_rate is None:
            return peak * (step + 1) / max(1, warmup)
        return peak * (warmup_lr_rate + (1 - warmup_lr_rate) * step / max(1, warmup - 1))

    return rate


def _warmup_stable_decay(peak, warmup, total, num_decay_steps, decay_type="cosine", min_lr_ratio=0.0):
    stable = total - num_decay_steps
    decay = {"linear": _line, "cosine": _half_cosine, "1-sqrt": _minus_sqrt}[decay_type]

    def rate(step):
        if step < warmup:
            return peak * (min_lr_ratio + (1 - min_lr_ratio) * step / max(1, warmup))
        if step < stable:
            return peak
        if step < total:
            return peak * (min_lr_ratio + (1 - min_lr_ratio) * decay((step - stable) / max(1, num_decay_steps)))
        return peak * min_lr_ratio

    return rate


def get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps, num_cycles):
    def rate(step):
        if step < num_warmup_steps:
            return optimizer.lr * step / max(1, num_warmup_steps)
        progress = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
        return optimizer.lr * max(0, _half_cosine((num_cycles * progress) % 1)) if progress < 1 else 0.0

    return rate


def get_linear_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps):
    return get_polynomial_decay_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps, lr_end=0.0)


def get_polynomial_decay_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps, lr_end):
    def rate(step):
        if step < num_warmup_steps:
            return optimizer.lr * step / max(1, num_warmup_steps)
        progress = (step - num_warmup_steps) / (num_training_steps - num_warmup_steps)
        return lr_end + (optimizer.lr - lr_end) * max(0, 1 - progress)

    return rate


def get_inverse_sqrt_schedule(optimizer, num_warmup_steps, timescale=None):
    timescale = timescale or num_warmup_steps or 10_000

    def rate(step):
        if step < num_warmup_steps:
            return optimizer.lr * step / max(1, num_warmup_steps)
        return optimizer.lr / math.sqrt((step + timescale - num_warmup_steps) / timescale)

    return rate


_HUGGING_FACE = {
    "cosine_with_min_lr": _cosine_with_min_lr,
    "cosine_warmup_with_min_lr": _cosine_warmup_with_min_lr,
    "warmup_stable_decay": _warmup_stable_decay,
}


# PyTorch, torch/optim/lr_scheduler.py at 008f727: each rate from the one before it, and from the closed form at a
# milestone.
class LinearLR:
    def __init__(self, optimizer, start_factor, total_iters):
        self.peak, self.start, self.last = optimizer.lr, start_factor, total_iters

    def next(self, step, rate):
        if step == 0:
            return self.peak * self.start
        if step > self.last:
            return rate
        return rate * (1 + (1 - self.start) / (self.last * self.start + (step - 1) * (1 - self.start)))


class CosineAnnealingLR:
    def __init__(self, optimizer, T_max, eta_min=0.0):
        self.peak, self.last, self.low = optimizer.lr, T_max, eta_min

    def next(self, step, rate):
        if step == 0:
            return self.peak
        if (step - 1 - self.last) % (2 * self.last) == 0:
            return rate + (self.peak - self.low) * (1 - math.cos(math.pi / self.last)) / 2
        ratio = _half_cosine(step / self.last) / _half_cosine((step - 1) / self.last)
        return ratio * (rate - self.low) + self.low


def SequentialLR(optimizer, schedulers, milestones):
    rates = []

    def rate(step):
        while len(rates) <= step:
            index = bisect.bisect_right(milestones, len(rates))
            begun = milestones[index - 1] if index else 0
            rates.append(schedulers[index].next(len(rates) - begun, rates[-1] if rates else None))
        return rates[step]

    return rate


# timm, timm/scheduler/cosine_lr.py at aa4b585.
def CosineLRScheduler(
    optimizer,
    t_initial,
    lr_min=0.0,
    cycle_mul=1.0,
    cycle_decay=1.0,
    cycle_limit=1,
    warmup_t=0,
    warmup_lr_init=0.0,
    warmup_prefix=False,
    t_in_epochs=True,
):
    def rate(step):
        if step < warmup_t:
            return warmup_lr_init + step * (optimizer.lr - warmup_lr_init) / warmup_t
        step -= warmup_t if warmup_prefix else 0
        cycle, length, begun = step // t_initial, t_initial, step // t_initial * t_initial
        if cycle_mul != 1:
            cycle = math.floor(math.log(1 - step / t_initial * (1 - cycle_mul), cycle_mul))
            length, begun = cycle_mul**cycle * t_initial, (1 - cycle_mul**cycle) / (1 - cycle_mul) * t_initial
        if cycle >= cycle_limit:
            return lr_min
        return lr_min + (optimizer.lr * cycle_decay**cycle - lr_min) * _half_cosine((step - begun) / length)

    return rate


# timm, timm/scheduler/wsd_lr.py at 803b7c2.
def WSDLRScheduler(
    optimizer, t_initial, decay_t, lr_min=0.0, decay_fn="1-sqrt", warmup_t=0, warmup_lr_init=0.0, t_in_epochs=True
):
    decay = {"linear": _line, "1-sqrt": _minus_sqrt, "cosine": _half_cosine}[decay_fn]

    def rate(step):
        if step < warmup_t:
            return warmup_lr_init + step * (optimizer.lr - warmup_lr_init) / warmup_t
        progress = (step - warmup_t - (t_initial - decay_t)) / decay_t
        return lr_min + (optimizer.lr - lr_min) * decay(min(max(progress, 0), 1))

    return rate


# Megatron-LM, megatron/core/optimizer_param_scheduler.py at 00caa53; megatron/training/training.py counts in samples.
def megatron(flags):
    words = flags.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    style, peak, low = given["--lr-decay-style"], float(given["--lr"]), float(given["--min-lr"])
    start = float(given.get("--lr-warmup-init", 0))
    batch = int(given["--global-batch-size"])
    warmup, decay = int(given["--lr-warmup-iters"]) * batch, int(given["--train-iters"]) * batch
    begin = warmup
    if style == "WSD":
        style, begin = given["--lr-wsd-decay-style"], decay - int(given["--lr-wsd-decay-iters"]) * batch
    bends = {"linear": _line, "cosine": _half_cosine, "minus_sqrt": _minus_sqrt}

    def rate(iteration):
        samples = iteration * batch
        if warmup > 0 and samples <= warmup:
            return start + (peak - start) * samples / warmup
        if samples > decay:
            return low
        if style == "inverse-square-root":
            return max(low, peak * max(warmup, 1) ** 0.5 / max(samples, 1) ** 0.5)
        return low + (peak - low) * bends[style](max(samples - begin, 0) / (decay - begin))

    return rate


# NeMo, nemo/core/optim/lr_scheduler.py at 0165f08.
def CosineAnnealing(optimizer, max_steps, warmup_steps, constant_steps=0, min_lr=0.0):
    last = max_steps - constant_steps

    def rate(step):
        if warmup_steps > 0 and step <= warmup_steps:
            if constant_steps > 0:
                return optimizer.lr * step / warmup_steps
            return optimizer.lr * (step + 1) / (warmup_steps + 1)
        if step > last:
            return min_lr
        return min_lr + (optimizer.lr - min_lr) * _half_cosine((step - warmup_steps) / (last - warmup_steps))

    return rate


# MLX, python/mlx/optimizers/schedulers.py at 846d176.
class mlx:
    class optimizers:
        @staticmethod
        def linear_schedule(init, end, steps):
            return lambda step: min(step, steps) * ((end - init) / steps) + init

        @staticmethod
        def cosine_decay(init, decay_steps, end=0.0):
            return lambda step: end + (init - end) * _half_cosine(min(step, decay_steps) / decay_steps)

        @staticmethod
        def join_schedules(schedules, boundaries):
            def rate(step):
                index = bisect.bisect_right(boundaries, step)
                return schedules[index](step - boundaries[index - 1] if index else step)

            return rate


# DeePMD-kit, deepmd/dpmodel/utils/learning_rate.py at bc902da.
def make_learning_rate_schedule(lr_params, num_steps):
    peak, low, warmup = lr_params["start_lr"], lr_params["stop_lr"], lr_params["warmup_steps"]
    start = lr_params.get("warmup_start_factor", 0.0) * peak
    decay = num_steps - warmup
    bend = _half_cosine
    if lr_params["type"] == "wsd":
        bend = {"cosine": _half_cosine, "linear": _line}[lr_params["decay_type"]]
        decay = max(1, min(int(lr_params["decay_phase_ratio"] * num_steps), decay))

    def rate(step):
        if step < warmup:
            return start + (peak - start) * step / warmup
        progress = (step - (num_steps - decay)) / decay
        return low + (peak - low) * bend(min(max(progress, 0), 1))

    return rate


# The same at 0efdc3d.
class LearningRateExp:
    def __init__(self, start_lr, stop_lr, decay_steps, stop_steps, decay_rate=None):
        self.start_lr, self.stop_lr, self.decay_steps = start_lr, stop_lr, decay_steps
        self.decay_rate = decay_rate or math.exp(math.log(stop_lr / start_lr) / (stop_steps / decay_steps))

    def __call__(self, step):
        return max(self.start_lr * self.decay_rate ** (step // self.decay_steps), self.stop_lr)


# baskerville, src/baskerville/trainer.py at 0417314.
class baskerville:
    @staticmethod
    def WarmUp(initial_learning_rate, warmup_steps, decay_schedule, power=1.0):
        def rate(step):
            warmed = decay_schedule(step - warmup_steps) if callable(decay_schedule) else decay_schedule
            return initial_learning_rate * (step / warmup_steps) ** power if step < warmup_steps else warmed

        return rate


# torchtitan, torchtitan/components/optimizer/lr_scheduler.py at b5bcd76.
class LRSchedulersContainer:
    @dataclasses.dataclass
    class Config:
        warmup_steps: int
        decay_ratio: float | None = None
        decay_type: str = "linear"
        min_lr_factor: float = 0.0

        def build(self, optimizers, training_steps):
            warmup, low = self.warmup_steps, self.min_lr_factor
            decay = training_steps - warmup
            if self.decay_ratio is not None:
                decay = min(round(training_steps * self.decay_ratio), decay)
            begin = training_steps + 1 - decay
            bend = {"linear": _line, "sqrt": _minus_sqrt, "cosine": _half_cosine}[self.decay_type]

            def rate(step):
                if step < warmup:
                    return optimizers.lr * (step + 1) / warmup
                if step < begin:
                    return optimizers.lr
                return optimizers.lr * (low + (1 - low) * bend((step + 1 - begin) / decay))

            return rate


# MaxText, src/maxtext/utils/maxtext_utils.py at e591f30, of what its command line takes.
def maxtext(settings):
    given = dict(setting.split("=") for setting in settings.split())
    peak, total = float(given["learning_rate"]), int(given["steps"])
    low = peak * float(given["learning_rate_final_fraction"])
    warmup = int(total * float(given["warmup_steps_fraction"]))
    decay, bend = total - warmup, _half_cosine
    if given["lr_schedule_type"] == "wsd":
        decay = int(total * float(given["wsd_decay_steps_fraction"]))
        bend = {"linear": lambda progress: max(0, 1 - progress), "cosine": _half_cosine}[given["wsd_decay_style"]]

    def rate(step):
        if step < warmup:
            return peak * step / warmup
        return low + (peak - low) * bend(max(step - (total - decay), 0) / (decay - 1))

    return rate


# TensorFlow's tutorial, docs/tutorials/transformer.ipynb of tensorflow/text at 17c38bf, in its float32.
def CustomSchedule(d_model, warmup_steps=4000):
    uncast = UncastCustomSchedule(d_model, warmup_steps)
    return lambda step: uncast(tf.cast(step, tf.float32))


# The same before fce4afe, of September 2022.
def UncastCustomSchedule(d_model, warmup_steps=4000):
    def rate(step):
        falling, rising = tf.math.rsqrt(step), step * (warmup_steps**-1.5)
        return tf.math.rsqrt(tf.cast(d_model, tf.float32)) * tf.math.minimum(falling, rising)

    return rate


# TensorFlowASR, tensorflow_asr/optimizers/schedules.py at f092d39, in its float32.
def TransformerSchedule(dmodel, scale=1.0, warmup_steps=4000, max_lr=None, min_lr=None):
    dmodel, scale, warmup_steps = (tf.constant(number, tf.float32) for number in (dmodel, scale, warmup_steps))

    def rate(step):
        step = tf.cast(step, tf.float32)
        found = scale * dmodel**-0.5 * tf.minimum(step**-0.5, step * warmup_steps**-1.5)
        found = found if max_lr is None else tf.minimum(max_lr, found)
        return found if min_lr is None else tf.maximum(min_lr, found)

    return rate


# Mesh TensorFlow, mesh_tensorflow/transformer/learning_rate_schedules.py at 3755319. gin binds what is bound here.
def truncated_rsqrt(warmup_steps=10_000):
    return lambda step: 1 / math.sqrt(max(step, warmup_steps))


def product_learning_rate(factors):
    return lambda step: math.prod(factor(step) if callable(factor) else factor for factor in factors)


# T5X, t5x/utils.py at 019f2a1.
def create_learning_rate_scheduler(factors, base_learning_rate=0.5, warmup_steps=1000, min_learning_rate=1e-8):
    known = {
        "constant": lambda step: base_learning_rate,
        "linear_warmup": lambda step: min(1, step / warmup_steps),
        "rsqrt_decay": lambda step: 1 / math.sqrt(max(step, warmup_steps)),
    }
    rate = product_learning_rate([known[factor.strip()] for factor in factors.split("*")])
    return lambda step: max(rate(step), min_learning_rate)


# Big Vision, big_vision/utils.py at 11eea57.
def create_learning_rate_schedule(total_steps, base, decay_type, warmup_steps, timescale=10_000):
    assert decay_type == "rsqrt"

    def rate(step):
        return base / math.sqrt(1 + max(step - warmup_steps, 0) / timescale) * min(1, step / warmup_steps)

    return rate
