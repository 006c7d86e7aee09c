"""The files of `LearningRateLogger`: CSV and TensorBoard's event files, on any file system that TensorFlow knows."""

import contextlib
import itertools
import os
import socket
import time
import warnings

import tensorflow as tf


class LogFiles:
    """The files that are written. One that cannot be written is left out, with a warning, and training goes on."""

    def __init__(self, csv, log_dir, firsts, keys):
        """Opens the files for the optimizers named `keys`, from their updates numbered `firsts` on."""
        self._files = []
        for kind, path in ((_Csv, csv), (_Events, log_dir)):
            if path is not None:
                try:
                    self._files.append(kind(path, firsts, keys))
                except (OSError, tf.errors.OpError) as error:
                    _warn(path, error)

    def __bool__(self):
        return bool(self._files)

    def write(self, step, rates):
        """Writes the rates at a step, a dict from the names in the logs."""
        self._each(lambda one: one.write(step, rates))

    def flush(self):
        """Hands what was written to the operating system."""
        self._each(lambda one: one.file.flush())

    def close(self):
        """Closes the files."""
        self._each(lambda one: one.file.close())

    def _each(self, act):
        for one in list(self._files):
            try:
                act(one)
            except (OSError, tf.errors.OpError) as error:
                self._files.remove(one)
                with contextlib.suppress(OSError, tf.errors.OpError):
                    one.file.close()
                _warn(one.path, error)


def _warn(path, error):
    warnings.warn(f"LearningRateLogger stops writing {path}, and training goes on: {error}", UserWarning, stacklevel=5)


class _Csv:
    """The CSV file: lines of a step and the rate of each optimizer."""

    def __init__(self, path, firsts, keys):
        self.path, self._keys = path, keys
        self._header = ",".join(["step", *keys]) + "\n"
        tf.io.gfile.makedirs(os.path.dirname(path) or ".")
        new = not tf.io.gfile.exists(path)
        if not new:  # a new file takes its place at once, so that a crash leaves one of the two
            part = f"{path}.part"
            try:
                with tf.io.gfile.GFile(part, "w") as file:
                    for line in self._kept(firsts):
                        file.write(line)
            except ValueError:
                tf.io.gfile.remove(part)
                raise ValueError(
                    "csv must be a new file, or one that LearningRateLogger wrote with the same columns: choose "
                    f"another name. Received: csv={path!r}, a file with other content"
                ) from None
            tf.io.gfile.rename(part, path, overwrite=True)
        self.file = tf.io.gfile.GFile(path, "a")
        if new:
            self.file.write(self._header)

    def _kept(self, firsts):
        """The lines of the file, without the updates from `firsts` on. A line that a crash cut short does not count."""
        yield self._header
        with tf.io.gfile.GFile(self.path) as file:
            header = file.readline()
            if header != self._header:  # empty, or cut short, or replaced by a run that begins at step 0
                if self._header.startswith(header) or header.startswith("step,learning_rate") and not any(firsts):
                    return
                raise ValueError
            for line in file:
                if line.endswith("\n"):
                    step, *rates = line.rstrip("\n").split(",")
                    pairs = zip(rates, firsts, strict=True)
                    rates = [rate if int(step) < first else "" for rate, first in pairs]
                    if any(rates):
                        yield ",".join([step, *rates]) + "\n"
                if not any(firsts):
                    return

    def write(self, step, rates):
        self.file.write(",".join([str(step), *(str(rates.get(key, "")) for key in self._keys)]) + "\n")


class _Events:
    """An event file for TensorBoard. Unlike `tf.summary`, it does not depend on what else the process has set."""

    _SCALAR = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR", plugin_data={"plugin_name": "scalars"})
    _numbers = itertools.count()

    def __init__(self, path, firsts, keys):
        self.path = path
        tf.io.gfile.makedirs(path)
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(self._numbers)}.v2"
        self.file = tf.io.TFRecordWriter(os.path.join(path, f"events.out.tfevents.{name}"))
        self.file.write(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        scalar = {"dtype": 1, "tensor_shape": {}, "float_val": [0.0]}
        values = {key: {"tag": key, "metadata": self._SCALAR, "tensor": scalar} for key in keys}
        self._events = {key: tf.compat.v1.Event(summary={"value": [value]}) for key, value in values.items()}

    def write(self, step, rates):
        for key, rate in rates.items():
            event = self._events[key]  # to fill one in is ten times as fast as to make one
            event.wall_time, event.step = time.time(), step
            event.summary.value[0].tensor.float_val[0] = rate
            self.file.write(event.SerializeToString())
