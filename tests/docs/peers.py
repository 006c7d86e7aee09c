"""The published formulas of schedules that are too large to install for a test, in float64, under their authors' names.

`optimizer` is anything with the peak in `lr`.
"""

import bisect
import math

import tensorflow as tf
import tf_keras


def _half_cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


def _line(progress):
    return 1 - progress


def _minus_sqrt(progress):
    return 1 - math.sqrt(progress)


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
    def rate(step):
        if step < num_warmup_steps:
            return optimizer.lr * step / max(1, num_warmup_steps)
        return optimizer.lr * max(0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))

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


# timm, timm/scheduler/cosine_lr.py at aa4b585, for one cycle.
def CosineLRScheduler(
    optimizer, t_initial, lr_min=0.0, warmup_t=0, warmup_lr_init=0.0, warmup_prefix=False, t_in_epochs=True
):
    def rate(step):
        if step < warmup_t:
            return warmup_lr_init + step * (optimizer.lr - warmup_lr_init) / warmup_t
        step -= warmup_t if warmup_prefix else 0
        return lr_min + (optimizer.lr - lr_min) * _half_cosine(step / t_initial) if step < t_initial else lr_min

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
