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
# is almost half of their start; see the Makefile. A process that needs one gets TESTS_WITHOUT="". Both also have
# warnings, so PYTHONWARNINGS=error would end every process.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TESTS_WITHOUT": "jax matplotlib sklearn", "PYTHONWARNINGS": ""}


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

    `code` may also be the path of a program. The process has not used TensorFlow, and has not imported lrops.

    Use `run_python` for what tests how TensorFlow is imported, and for a variable or an option that Python or
    TensorFlow reads at its start.
    """
    with tempfile.TemporaryDirectory() as output:
        stdout, stderr = Path(output, "stdout"), Path(output, "stderr")
        process = start_snippet(code, *arguments, folder=folder, stdout=stdout, stderr=stderr, **environment)
        try:
            process.join(HANGS)
            exitcode = process.exitcode
        finally:
            kill(process)
        said = [path.read_text("utf-8", "replace") for path in (stdout, stderr)]
    assert exitcode is not None, f"{code} hangs. In {HANGS} s it said: {said}"
    return subprocess.CompletedProcess([code, *arguments], exitcode, *said)


def output_of(code, *arguments, folder, **environment):
    """What a snippet prints, as in `run_snippet`. It must end without an error."""
    result = run_snippet(code, *arguments, folder=folder, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def start_snippet(code, *arguments, folder, stdout, stderr, **environment):
    """Starts what `run_snippet` runs; its output goes to these two files. Gives a `multiprocessing.Process`."""
    with mock.patch.dict(os.environ, ENVIRONMENT), mock.patch.object(sys, "warnoptions", []):
        forkserver.ensure_running()
    argv = [*map(str, arguments)]
    process = _FORKS.Process(target=_run, args=(code, argv, folder, ENVIRONMENT | environment, stdout, stderr))
    process.start()
    return process


def kill(process):
    """Ends the process of a snippet, with all of its threads, at once. One that has ended stays as it is."""
    if process.is_alive():
        process.kill()
    process.join()


def _run(code, arguments, folder, environment, stdout, stderr):
    for descriptor, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), descriptor)
    os.chdir(folder)
    os.environ.update(environment)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv, sys.path = ["-c", *arguments], ["", *sys.path]
    if isinstance(code, Path):
        sys.argv[0], sys.path[0], main.__file__ = str(code), str(code.parent), str(code)
        code = compile(code.read_bytes(), code, "exec")
    exec(code, main.__dict__)  # noqa: S102
