"""Starts the processes of a cluster on the loopback, and leaves none behind."""

import contextlib
import json
import socket
import time

from processes import HANGS, kill, start_snippet


def free_ports(count):
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def cluster(folder, command, **jobs):
    """One Python process for each task, as cluster(folder, [script], worker=2); {"worker": [process, ...]}.

    Output goes to files in `folder`, named after the tasks. When the block ends, all processes are killed.
    """
    ports = iter(free_ports(sum(jobs.values())))
    addresses = {job: [f"localhost:{next(ports)}" for _ in range(count)] for job, count in jobs.items()}
    processes = {job: [] for job in jobs}
    try:
        for job, count in jobs.items():
            for index in range(count):
                task = json.dumps({"cluster": addresses, "task": {"type": job, "index": index}})
                # With one thread, as on one core, TensorFlow's parameter servers wait for each other for ever.
                variables = {"TF_CONFIG": task, "TF_NUM_INTEROP_THREADS": "4"}
                path = folder / f"{job}-{index}.out"
                path.unlink(missing_ok=True)
                processes[job].append(start_snippet(*command, folder=folder, stdout=path, stderr=path, **variables))
        yield processes
    finally:
        for process in sum(processes.values(), []):
            kill(process)


def applied(path):
    """(step, rate) of each whole line of a file of rates. A line that a kill cut short does not count."""
    lines = (line.split() for line in path.read_text().splitlines())
    return [(int(line[0]), float(line[1])) for line in lines if len(line) == 2]


def wait_for(condition, what):
    """Waits until the condition holds; `what` says what it was if it never does, and is called then."""
    end = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < end, f"after {HANGS} seconds: {what()}"
        time.sleep(0.001)


def said(folder, job, index=0):
    """What a task printed."""
    return (folder / f"{job}-{index}.out").read_text(errors="replace")
