"""The published formulas of schedules that are too large to install for a test, in float64, under their authors' names.

`optimizer` is anything with the peak in `lr`.
"""

import bisect
import math

import tensorflow as tf
import tf_keras


def _half_cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


_DECAYS = {
    "cosine": _half_cosine,
    "linear": lambda progress: 1 - progress,
    "1-sqrt": lambda progress: 1 - math.sqrt(progress),
}


def _warmed(start, peak, warmup, after):
    """A line from `start` to `peak`, and then `after`."""
    return lambda step: start + (peak - start) * step / warmup if step < warmup else after(step)


# TensorFlow Model Garden, official/modeling/optimization/lr_schedule.py at 00b830c: around tf_keras, in its float32.
def CosineDecayWithOffset(offset=0, **arguments):
    schedule = tf_keras.optimizers.schedules.CosineDecay(**arguments)
    return lambda step: schedule(step - offset)


def PolynomialDecayWithOffset(offset=0, **arguments):
    schedule = tf_keras.optimizers.schedules.PolynomialDecay(**arguments)
    return lambda step: schedule(step - offset)


def LinearWarmup(after_warmup_lr_sched, warmup_steps, warmup_learning_rate):
    return _warmed(warmup_learning_rate, after_warmup_lr_sched(warmup_steps), warmup_steps, after_warmup_lr_sched)


# The same, official/nlp/optimization.py at 0015eed; google-research/bert, optimization.py at 02102db, has it too.
def WarmUp(initial_learning_rate, decay_schedule_fn, warmup_steps):
    return _warmed(0, initial_learning_rate, warmup_steps, decay_schedule_fn)


# Hugging Face transformers, src/transformers/optimization.py at 005edac.
def get_cosine_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps):
    length = num_training_steps - num_warmup_steps
    decay = lambda step: optimizer.lr * max(0, _half_cosine((step - num_warmup_steps) / length))  # noqa: E731
    return _warmed(0, optimizer.lr, num_warmup_steps, decay)


def get_scheduler(name, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs):
    made = {"cosine_warmup_with_min_lr": _cosine_warmup_with_min_lr, "warmup_stable_decay": _warmup_stable_decay}
    return made[name](optimizer.lr, num_warmup_steps, num_training_steps, **scheduler_specific_kwargs)


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
    def after(step):
        progress = min(max((step - (total - num_decay_steps)) / num_decay_steps, 0), 1)
        return peak * (min_lr_ratio + (1 - min_lr_ratio) * _DECAYS[decay_type](progress))

    return _warmed(min_lr_ratio * peak, peak, warmup, after)


def get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps, num_cycles):
    def after(step):
        progress = (step - num_warmup_steps) / (num_training_steps - num_warmup_steps)
        return optimizer.lr * max(0, _half_cosine((num_cycles * progress) % 1)) if progress < 1 else 0.0

    return _warmed(0, optimizer.lr, num_warmup_steps, after)


def get_linear_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps):
    length = num_training_steps - num_warmup_steps
    after = lambda step: optimizer.lr * max(0, (num_training_steps - step) / length)  # noqa: E731
    return _warmed(0, optimizer.lr, num_warmup_steps, after)


def get_inverse_sqrt_schedule(optimizer, num_warmup_steps, timescale=None):
    shift = (timescale or num_warmup_steps) - num_warmup_steps
    after = lambda step: optimizer.lr / math.sqrt((step + shift) / (num_warmup_steps + shift))  # noqa: E731
    return _warmed(0, optimizer.lr, num_warmup_steps, after)


# PyTorch, torch/optim/lr_scheduler.py at 008f727: its closed forms. (It computes each rate from the one before.)
def LinearLR(optimizer, start_factor, total_iters):
    return lambda step: optimizer.lr * (start_factor + (1 - start_factor) * min(step, total_iters) / total_iters)


def CosineAnnealingLR(optimizer, T_max, eta_min=0.0):
    return lambda step: eta_min + (optimizer.lr - eta_min) * _half_cosine(step / T_max)


def SequentialLR(optimizer, schedulers, milestones):
    def rate(step):
        index = bisect.bisect_right(milestones, step)
        return schedulers[index](step - milestones[index - 1] if index else step)

    return rate


# timm, timm/scheduler/cosine_lr.py at aa4b585, for one cycle.
def CosineLRScheduler(
    optimizer, t_initial, lr_min=0.0, warmup_t=0, warmup_lr_init=0.0, warmup_prefix=False, t_in_epochs=True
):
    def after(step):
        step -= warmup_t if warmup_prefix else 0
        return lr_min + (optimizer.lr - lr_min) * _half_cosine(step / t_initial) if step < t_initial else lr_min

    return _warmed(warmup_lr_init, optimizer.lr, warmup_t, after)


# timm, timm/scheduler/wsd_lr.py at 803b7c2.
def WSDLRScheduler(
    optimizer, t_initial, decay_t, lr_min=0.0, decay_fn="1-sqrt", warmup_t=0, warmup_lr_init=0.0, t_in_epochs=True
):
    def after(step):
        progress = (step - warmup_t - (t_initial - decay_t)) / decay_t
        return lr_min + (optimizer.lr - lr_min) * _DECAYS[decay_fn](min(max(progress, 0), 1))

    return _warmed(warmup_lr_init, optimizer.lr, warmup_t, after)


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
    decays = _DECAYS | {"minus_sqrt": _DECAYS["1-sqrt"]}

    def rate(iteration):
        samples = iteration * batch
        if warmup > 0 and samples <= warmup:
            return start + (peak - start) * samples / warmup
        if samples > decay:
            return low
        if style == "inverse-square-root":
            return max(low, peak * max(warmup, 1) ** 0.5 / max(samples, 1) ** 0.5)
        return low + (peak - low) * decays[style](max(samples - begin, 0) / (decay - begin))

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
