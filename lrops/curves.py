"""The phases of a curve, the steps that show it, and its rates at any steps. It needs no TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lrops import _native

# Of a curve that restarts without end this many cycles are shown, and never more than that many.
_CYCLES, _MOST_CYCLES = 5, 64


def decay_of(config: Mapping[str, Any]) -> str:
    """What goes down from the peak, as the command line names it: "cosine", ..., "inverse_sqrt" or "restarts"."""
    if "first_decay_steps" in config:
        return "restarts"
    return str(config.get("decay", "cosine" if "total_steps" in config else "inverse_sqrt"))


def function_of(config: Mapping[str, Any]) -> str:
    """The name of the function of a curve, in `_native` and in `reference`."""
    return {"restarts": "warmup_cosine_restarts", "inverse_sqrt": "warmup_inverse_sqrt"}.get(
        decay_of(config), "warmup_decay"
    )


def rates(config: Mapping[str, Any], steps: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The rates of a curve at `steps`, an array of int64, in the curve's dtype, computed without TensorFlow.

    Args:
        config: Every hyper-parameter of the curve by its name, as `get_config` gives them; a name is ignored.
        steps: Of any shape.

    Returns:
        An array of the shape of `steps`.

    Raises:
        ValueError: a hyper-parameter breaks a rule.
        TypeError: a hyper-parameter is of the wrong type, missing or unknown.
    """
    arguments = {key: value for key, value in config.items() if key != "name"}
    if "total_steps" in config:
        arguments["decay"] = decay_of(config)
    return getattr(_native, function_of(config))(steps, **arguments)


def phases(config: Mapping[str, Any]) -> list[tuple[str, int, int | None]]:
    """The phases of a curve, as (name, first step, first step of the next); the last may have no end.

    >>> from lrops import curves
    >>> curves.phases({"warmup_steps": 10, "hold_steps": 0, "total_steps": 100, "start_step": 5})
    [('warmup', 5, 15), ('decay', 15, 105), ('floor', 105, None)]

    Args:
        config: The arguments of a schedule of lrops, complete, as `get_config` gives them.

    Returns:
        A list of the phases that are not empty. The peak is the first step after warmup. Restarts have "cycle 1",
        "cycle 2" and so on: five of them if `cycles` is None, and of more than 64 the first 64, without the floor. The
        decay of a `WarmupInverseSqrt` has no end, and no floor follows.
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
        # Fewer than were asked for: no more fit, and the floor follows.
        corners |= {"floor" if config["cycles"] == shown or len(starts) < shown else "": end}
    steps = [config["start_step"] + at for at in corners.values()]
    found = zip(corners, steps, [*steps[1:], None], strict=True)
    return [(name, first, last) for name, first, last in found if name and first != last]


def end(config: Mapping[str, Any]) -> int:
    """The step after which nothing new is to be seen: the floor, or, without one, a quarter of the peak."""
    name, first, last = phases(config)[-1]
    return _falls_to(config, 4) if name == "decay" else first if last is None else last


def _falls_to(config, part):
    """The step at which the curve of a `WarmupInverseSqrt` is 1 / part of the peak."""
    held = config["start_step"] + config["warmup_steps"] + config["hold_steps"]
    return held + (part**2 - 1) * (config["timescale"] or config["warmup_steps"])


def landmarks(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The steps that show a curve, as (name, step), each once; none that int64 does not hold.

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
