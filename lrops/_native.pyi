"""The types of what cc/python/native.cc defines, for type checkers.

Read by mypy (`make lint`), pyright and editors of users. It must not say more than the module does.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

build_info: dict[str, str]

def warmup_cosine_decay(
    step: npt.NDArray[np.int64],
    *,
    initial_learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    alpha: float = 0.001,
    hold_steps: int = 0,
    warmup_start: float = 0.0,
    start_step: int = 0,
    dtype: str = "float64",
) -> npt.NDArray[Any]: ...
def warmup_cosine_restarts(
    step: npt.NDArray[np.int64],
    *,
    initial_learning_rate: float,
    warmup_steps: int,
    first_decay_steps: int,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.001,
    cycles: int | None = None,
    warmup_start: float = 0.0,
    start_step: int = 0,
    dtype: str = "float64",
) -> npt.NDArray[Any]: ...
def cycle_starts(*, warmup_steps: int, first_decay_steps: int, t_mul: float, at_most: int) -> list[int]: ...
