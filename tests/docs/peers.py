"""The published formulas of schedules that are too large to install for a test, in float64, under their authors' names.

`optimizer` is anything with the peak in `lr`.
"""

import bisect
import math

import tf_keras


def _half_cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


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


def _warmup_stable_decay(peak, warmup, total, num_decay_steps, min_lr_ratio=0.0):
    stable = total - num_decay_steps

    def rate(step):
        if step < warmup:
            return peak * (min_lr_ratio + (1 - min_lr_ratio) * step / max(1, warmup))
        if step < stable:
            return peak
        if step < total:
            return peak * (min_lr_ratio + (1 - min_lr_ratio) * _half_cosine((step - stable) / max(1, num_decay_steps)))
        return peak * min_lr_ratio

    return rate


def get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, num_warmup_steps, num_training_steps, num_cycles):
    def rate(step):
        if step < num_warmup_steps:
            return optimizer.lr * step / max(1, num_warmup_steps)
        progress = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
        return optimizer.lr * max(0, _half_cosine((num_cycles * progress) % 1)) if progress < 1 else 0.0

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


# Megatron-LM, megatron/core/optimizer_param_scheduler.py at 00caa53; megatron/training/training.py counts in samples.
def megatron(flags):
    words = flags.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given["--lr-decay-style"] == "cosine"
    peak, low = float(given["--lr"]), float(given["--min-lr"])
    start = float(given.get("--lr-warmup-init", 0))
    batch = int(given["--global-batch-size"])
    warmup, decay = int(given["--lr-warmup-iters"]) * batch, int(given["--train-iters"]) * batch

    def rate(iteration):
        samples = iteration * batch
        if warmup > 0 and samples <= warmup:
            return start + (peak - start) * samples / warmup
        if samples > decay:
            return low
        return low + (peak - low) * _half_cosine((samples - warmup) / (decay - warmup))

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
    if lr_params["type"] == "wsd":
        assert lr_params["decay_type"] == "cosine"
        decay = max(1, min(int(lr_params["decay_phase_ratio"] * num_steps), decay))

    def rate(step):
        if step < warmup:
            return start + (peak - start) * step / warmup
        progress = (step - (num_steps - decay)) / decay
        return low + (peak - low) * _half_cosine(min(max(progress, 0), 1))

    return rate
