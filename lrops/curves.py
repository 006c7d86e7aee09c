"""The rates of a curve, its phases, and the steps that show its shape. This module needs no TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lrops import _native

# How many cycles are shown if their number is not given, and at most.
_CYCLES, _MOST_CYCLES = 5, 64


def decay_of(config: Mapping[str, Any]) -> str:
    """The decay's name on the command line: "cosine", "linear", "minus_sqrt", "inverse_sqrt" or "restarts"."""
    if "first_decay_steps" in config:
        return "restarts"
    return str(config.get("decay", "cosine" if "total_steps" in config else "inverse_sqrt"))


def function_of(config: Mapping[str, Any]) -> str:
    """The name of the function, in `_native` and in `reference`, that computes a curve."""
    return {"restarts": "warmup_cosine_restarts", "inverse_sqrt": "warmup_inverse_sqrt"}.get(
        decay_of(config), "warmup_decay"
    )


def rates(config: Mapping[str, Any], steps: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The rates of a curve at some steps, computed on the CPU without TensorFlow.

    Args:
        config: All hyper-parameters of the curve by name, as a schedule's `get_config` returns them. An entry "name" is
            ignored.
        steps: An array of optimizer steps, int64, of any shape.

    Returns:
        An array of the shape of `steps` and of the curve's dtype. Its bits are those of the TensorFlow op.

    Raises:
        TypeError: A hyper-parameter has the wrong type, is missing or is unknown.
        ValueError: A hyper-parameter breaks a rule.
    """
    arguments = {key: value for key, value in config.items() if key != "name"}
    if "total_steps" in config:
        arguments["decay"] = decay_of(config)
    return getattr(_native, function_of(config))(steps, **arguments)


def phases(config: Mapping[str, Any]) -> list[tuple[str, int, int | None]]:
    """The phases of a curve, such as warmup, hold, decay and floor. `config` is as in `rates`.

    Returns:
        A list of `(name, first step, first step of the next phase)`, without empty phases. The last entry is None if a
        phase has no end. The first step after the warmup has the peak rate. Restarts have the phases "cycle 1",
        "cycle 2" and so on: the first 5 if `cycles` is None, and at most 64. The decay of a `WarmupInverseSqrt` has no
        end, so no floor follows it.

    Examples:
        >>> from lrops import curves
        >>> curves.phases({"warmup_steps": 10, "hold_steps": 0, "total_steps": 100, "start_step": 5})
        [('warmup', 5, 15), ('decay', 15, 105), ('floor', 105, None)]
    """
    if "hold_steps" in config:
        warm, held = config["warmup_steps"], config["warmup_steps"] + config["hold_steps"]
        corners = {"warmup": 0, "hold": warm, "decay": held}
        if "total_steps" in config:
            corners["floor"] = config["total_steps"]
    else:
        shown = min(config["cycles"] or _CYCLES, _MOST_CYCLES)
        keys = ("warmup_steps", "first_decay_steps", "t_mul")
        *starts, end = _native.cycle_starts(**{key: config[key] for key in keys}, at_most=shown)
        corners = {"warmup": 0} | {f"cycle {number}": at for number, at in enumerate(starts, 1)}
        # The floor follows if all cycles are shown. Fewer than asked for means that no more fit.
        corners |= {"floor" if config["cycles"] == shown or len(starts) < shown else "": end}
    steps = [config["start_step"] + at for at in corners.values()]
    found = zip(corners, steps, [*steps[1:], None], strict=True)
    return [(name, first, last) for name, first, last in found if name and first != last]


def end(config: Mapping[str, Any]) -> int:
    """The step where a picture can end: the floor, the end of the last cycle shown, or a quarter of the peak."""
    name, first, last = phases(config)[-1]
    return _falls_to(config, 4) if name == "decay" else first if last is None else last


def _falls_to(config, part):
    """The step at which the rate of a `WarmupInverseSqrt` is the peak divided by `part`."""
    held = config["start_step"] + config["warmup_steps"] + config["hold_steps"]
    return held + (part**2 - 1) * (config["timescale"] or config["warmup_steps"])


def landmarks(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The steps that show the shape of a curve, such as the peak. `config` is as in `rates`.

    Returns:
        A list of `(name, step)` in the order of the steps. Each step appears once. Steps beyond int64 are left out.

    Examples:
        >>> from lrops import curves
        >>> curves.landmarks({"warmup_steps": 10, "hold_steps": 0, "total_steps": 100, "start_step": 0})
        ... # doctest: +NORMALIZE_WHITESPACE
        [('start', 0), ('middle of warmup', 5), ('peak', 10), ('middle of decay', 55), ('last before the floor', 99),
         ('floor', 100)]
    """
    starts = {"warmup": "start", "hold": "peak", "decay": "end of hold", "floor": "floor", "cycle 1": "peak"}
    if not config.get("hold_steps"):
        starts["decay"] = "peak"
    found = {}
    for name, first, last in phases(config):
        found[first] = starts.get(name, f"start of {name}")
        if last is not None and name != "hold":
            found[(first + last) // 2] = f"middle of {name}"
        if last is not None and name not in ("warmup", "hold"):
            found[last - 1] = "last before the floor" if name == "decay" else f"last of {name}"
        if last is None and name == "decay":
            found |= {_falls_to(config, part): f"1/{part} of the peak" for part in (2, 4, 10)}
    return [(found[step], step) for step in sorted(found) if step < 2**63]
