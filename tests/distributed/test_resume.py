"""Kills examples/resume.py at any step and restarts it: the rates are those of a run that was never stopped."""

import collections
import signal
from pathlib import Path

import numpy as np
import pytest
from cluster import applied, wait_for
from processes import kill, start_snippet

from lrops import reference

SCRIPT = Path(__file__).parents[2] / "examples" / "resume.py"
TOTAL, EVERY = 300, 30
RATES = reference.warmup_decay(np.arange(TOTAL), 0.01, 20, TOTAL)
# What is there only while a save is under way. A backup is not: Keras writes over the last one.
WHILE_SAVING = {"checkpoint": "checkpoints/*temp*", "keras_file": "unfinished.keras"}


def run(folder, way, until=None):
    """Runs the script, to its end or until `until()`; then it is killed, with all of its threads, at once."""
    command = [SCRIPT, way, "--folder", folder, "--total-steps", TOTAL, "--every", EVERY]
    output = folder / "output"
    process = start_snippet(*command, folder=folder, stdout=output, stderr=output)
    try:
        wait_for(lambda: not process.is_alive() or until and until(), lambda: f"{command} has not ended")
    finally:
        kill(process)
    assert process.exitcode == (-signal.SIGKILL if until else 0), output.read_text()


@pytest.mark.parametrize("way", ["checkpoint", "backup", "keras_file"])
def test_the_rates_join(tmp_path, way):
    def has_lines(count):
        path = tmp_path / "rates.txt"
        return lambda: path.exists() and path.read_bytes().count(b"\n") >= count

    def saves():
        return any(tmp_path.glob(WHILE_SAVING[way]))

    runs = [has_lines(100), *([saves] if way in WHILE_SAVING else []), has_lines(233), None]
    for until in runs:
        run(tmp_path, way, until)
    taken = collections.defaultdict(list)
    for step, rate in applied(tmp_path / "rates.txt"):
        taken[step].append(rate)
    assert sorted(taken) == list(range(TOTAL))
    for step, rates in taken.items():
        assert set(rates) == {float(RATES[step])}, step
    assert 2 <= max(map(len, taken.values())) <= len(runs)  # steps after the last save were taken again
    assert sum(len(rates) > 1 for rates in taken.values()) <= 4 * EVERY
    if way != "checkpoint":
        lines = (tmp_path / "log.csv").read_text().splitlines()[1:]
        steps, rates = zip(*(line.split(",") for line in lines), strict=True)
        assert list(map(int, steps)) == list(range(TOTAL))  # none lost, none doubled
        np.testing.assert_array_equal(np.array(rates, np.float32), RATES)
