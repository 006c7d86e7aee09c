"""The types of what cc/python/native.cc defines, for type checkers."""

from typing import Any

import numpy as np
import numpy.typing as npt

build_info: dict[str, str]

def warmup_cosine_decay(step: npt.NDArray[np.int64], **hyperparameters: Any) -> npt.NDArray[Any]: ...
def warmup_cosine_restarts(step: npt.NDArray[np.int64], **hyperparameters: Any) -> npt.NDArray[Any]: ...
def cycle_starts(*, warmup_steps: int, first_decay_steps: int, t_mul: float, at_most: int) -> list[int]: ...
