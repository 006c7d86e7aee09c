"""Runs commands, Python programs and snippets in processes of their own. Imports nothing but the standard library."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import types
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

# Seconds after which a process counts as hanging. No test needs a fraction of it, on a machine however busy.
HANGS = 1200

# The environment of the processes that tests start. TensorFlow and Keras import these packages if they find them, which
# is almost half of their start; see the Makefile. A process that needs one gets TESTS_WITHOUT="".
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TESTS_WITHOUT": "jax matplotlib sklearn"}


def run_process(*command, folder=None, **environment):
    """Runs a command in `folder`, with these variables added to the environment. Gives its output and exit code."""
    try:
        return subprocess.run(
            [*map(str, command)],
            cwd=folder,
            env=os.environ | ENVIRONMENT | environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=HANGS,
        )
    except subprocess.TimeoutExpired as hung:
        raise AssertionError(f"{command} hangs. In {HANGS} s it said: {hung.stdout} {hung.stderr}") from None


def run_python(*arguments, folder, prefix=(), **environment):
    """`run_process` for Python; `prefix` is a command that starts the rest of the line."""
    return run_process(*prefix, sys.executable, *arguments, folder=folder, **environment)


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tensorflow"])


def run_snippet(code, *arguments, folder, **environment):
    """`run_python("-c", code, ...)` in a fork of a process that has imported TensorFlow: 0.1 s instead of 3 s.

    The process has not used TensorFlow, and has not imported lrops. A snippet that tests how TensorFlow is imported, or
    that sets a variable which Python or TensorFlow reads at their start, needs `run_python`.
    """
    with mock.patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as output:
        command = ["-c", *map(str, arguments)]
        process = _FORKS.Process(target=_run, args=(code, command, folder, ENVIRONMENT | environment, output))
        process.start()
        process.join(HANGS)
        if process.exitcode is None:
            process.kill()
            process.join()
        said = [Path(output, name).read_text("utf-8", "replace") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(command, process.exitcode, *said)


def _run(code, command, folder, environment, output):
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv, sys.path = command, ["", *sys.path]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), main.__dict__)  # noqa: S102
