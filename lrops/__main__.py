"""Checks an installation, prints and draws learning rates, and times an optimizer's step: the command line.

It must start even if TensorFlow or the compiled op cannot be loaded, so each command imports what it needs.
"""

import argparse
import contextlib
import dataclasses
import decimal
import re
import signal
import sys
import typing

from lrops import _hyperparameters

# The hyper-parameters of each curve, by the name that --decay takes.
_CURVES = dict.fromkeys(typing.get_args(_hyperparameters.DecayName), _hyperparameters.DecayArguments) | {
    "inverse_sqrt": _hyperparameters.InverseSqrtArguments,
    "restarts": _hyperparameters.RestartsArguments,
}
# The hyper-parameters that are options.
_FIELDS = {
    decay: {field.name: field for field in dataclasses.fields(curve) if field.name != "decay"}
    for decay, curve in _CURVES.items()
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and that takes -1e3 and -1_000 for numbers."""

    def __init__(self, *args, **kwargs):
        """Takes the arguments of ArgumentParser."""
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile(r"-\.?\d[\d_.]*(e[+-]?\d+)?$", re.IGNORECASE)

    def print_help(self, file=None):
        """Prints the help. argparse ignores an output that is closed."""
        print(self.format_help(), end="", file=file)

    def error(self, message):
        """Ends the process with exit code 2, without the usage."""
        command = self.prog.removeprefix("python -m ")
        self.exit(2, f"{command}: error: {message.rstrip('.')}. `{self.prog} --help` lists the options.\n")


def _whole(text):
    """A type of argument: an integer, as people write it (1000, 1_000, 1e3 or 1000.0)."""
    with contextlib.suppress(decimal.InvalidOperation):
        value = decimal.Decimal(text)  # exact, whereas a float would round large integers
        if -(2**63) <= value < 2**63 and value == int(value):
            return int(value)
    raise argparse.ArgumentTypeError(f"must be a whole number of 64 bits, such as 1000, 1_000 or 1e3. Received: {text}")


# The type and the metavar of an option, by the type that a hyper-parameter declares.
_OPTIONS = {
    int: (_whole, "STEPS"),
    int | None: (_whole, "COUNT"),
    float: (float, "RATIO"),
    float | _hyperparameters.Variable: (float, "RATE"),
    _hyperparameters.DtypeName: (str, "DTYPE"),
}


def _option(name):
    return "--" + name.replace("_", "-")


def _taken_by(name):
    """Each --decay whose curve has this hyper-parameter."""
    return [decay for decay, fields in _FIELDS.items() if name in fields]


def _add_decay(parser):
    parser.add_argument(
        "--decay", choices=_CURVES, default="cosine", help="how the rate falls from the peak (%(default)s)"
    )


def _add_curve(parser):
    """The options of every curve."""
    options = parser.add_argument_group("the curve")
    _add_decay(options)
    fields = {name: field for fields in _FIELDS.values() for name, field in fields.items()}
    for name, field in sorted(fields.items(), key=lambda item: item[1].default is not dataclasses.MISSING):
        takers, required = _taken_by(name), field.default is dataclasses.MISSING
        text = field.metadata["help"] + ("" if required or field.default is None else f" ({field.default})")
        if len(takers) < len(_CURVES):
            text += f"; {'required' if required else 'only'} with {', '.join(takers)}"
        converter, metavar = _OPTIONS[field.type]
        options.add_argument(
            _option(name),
            type=converter,
            metavar=metavar,
            required=required and len(takers) == len(_CURVES),
            default=argparse.SUPPRESS,  # what is not given, the curve's own default fills in
            help=text,
        )


def _checked(parser, options):
    """The config of the curve that the options describe, as `get_config` gives it; a bad option ends the process."""
    decay, fields = options.decay, _FIELDS[options.decay]
    given = {name: value for name, value in vars(options).items() if _taken_by(name)}
    for name, value in given.items():
        if name not in fields:
            parser.error(
                f"{_option(name)} works only with --decay {', '.join(_taken_by(name))}: leave it out. "
                f"Received: --decay {decay} {_option(name)} {value}"
            )
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    missing = [_option(name) for name in required if name not in given]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if _CURVES[decay] is _hyperparameters.DecayArguments:
        given["decay"] = decay
    config = dataclasses.asdict(_CURVES[decay](**given))

    import numpy as np

    from lrops import curves

    if config["dtype"] == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)
        except ModuleNotFoundError as error:
            raise ImportError("--dtype bfloat16 needs ml_dtypes: run `pip install ml_dtypes`.") from error

    try:
        curves.rates(config, np.zeros(0, np.int64))  # checks them
    except ValueError as error:
        parser.error(str(error))
    return config


def doctor(parser, options):
    """Checks the installation and names the fix for each fault; the exit code is 1 if there is one."""
    from lrops import doctor as checks

    return checks.examine_here() if options.here else checks.main(options.json)


def table(parser, options):
    """Prints the learning rate at the steps that show the curve, or at --steps."""
    import numpy as np

    from lrops import _loader, curves  # noqa: F401  (the loader first: its errors name the fix)

    config = _checked(parser, options)
    marks = [("", step) for step in options.steps or ()] or curves.landmarks(config)
    rates = curves.rates(config, np.array([step for _, step in marks], np.int64))
    width = 0 if options.steps else 24
    print(f"{'':{width}}{'step':>20}  {'learning rate':>24}")
    for (name, step), rate in zip(marks, rates, strict=True):
        print(f"{name:<{width}}{step:>20,}  {rate!s:>24}")


def plot(parser, options):
    """Draws the curve into a file."""
    from lrops import _loader, plotting  # noqa: F401

    config = _checked(parser, options)
    try:
        plotting.plot(config, path=options.output, log=options.log)
    except BrokenPipeError:  # --output /dev/stdout
        raise
    except OSError as error:
        sys.exit(f"{options.output} cannot be written: {error}")
    except ValueError as error:  # matplotlib does not know this kind of file
        parser.error(str(error))
    print(options.output)


def bench(parser, options):
    """Times an optimizer's step with a constant rate, with lrops and with the alternatives."""
    from lrops import _loader

    tf = _loader.import_tensorflow()
    _loader.load_ops()  # before what imports TensorFlow: its errors name the fix
    from lrops import benchmark

    if not isinstance(getattr(benchmark.keras.optimizers, options.optimizer, None), type):
        parser.error(f"--optimizer must name a class of keras.optimizers. Received: {options.optimizer}")
    if min(options.variables, options.elements, options.rounds - 1) < 1:
        parser.error("--variables and --elements must be at least 1, and --rounds at least 2")
    tf.get_logger().setLevel("ERROR")  # each contender is traced once: TensorFlow would warn of retracing
    names = ("optimizer", "variables", "elements", "rounds", "decay")
    arguments = {name: getattr(options, name) for name in names}
    sizes = f"{options.variables} variables of {options.elements} numbers"
    print("Each row is one optimizer step with another learning rate. A lower step time / constant rate is better.")
    for mode in options.mode:
        print(f"\n{options.optimizer}, {sizes}, {options.decay}, {mode}\n", flush=True)
        rows = benchmark.compare(mode=mode, **arguments)
        print(f"{benchmark.table(rows)}\n\n{benchmark.noise(rows)}")


def main(prog="python -m lrops"):
    """The command line."""
    if hasattr(sys.stdout, "reconfigure"):  # a character that the terminal lacks is printed as an escape sequence
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            _run(prog)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # `lrops doctor | head -1`: end as every command does
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)


def _run(prog):
    parser = Parser(prog=prog, description=(__doc__ or "").partition(":")[0])  # -OO
    parser.add_argument("--version", action="store_true", help="print the versions of lrops and of its libraries")
    commands = parser.add_subparsers(metavar="command", dest="command")
    parsers = {
        command: commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        for command in (doctor, table, plot, bench)
    }
    parsers[doctor].add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parsers[doctor].add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    for command in (table, plot):
        _add_curve(parsers[command])
    parsers[table].add_argument("--steps", type=_whole, nargs="+", metavar="STEP", help="print these steps only")
    parsers[plot].add_argument("--output", default="learning_rate.png", help="the file to write (%(default)s)")
    parsers[plot].add_argument("--log", action="store_true", help="draw the rate on a logarithmic axis")
    _add_decay(parsers[bench])
    parsers[bench].add_argument("--optimizer", default="AdamW", help="a class of keras.optimizers (%(default)s)")
    for option, default, text in (
        ("--variables", 100, "how many variables the optimizer updates"),
        ("--elements", 256, "how many numbers a variable has"),
        ("--rounds", 25, "how often each row is timed, at least 2; more rounds, less noise"),
    ):
        parsers[bench].add_argument(option, type=_whole, default=default, metavar="COUNT", help=f"{text} (%(default)s)")
    modes = {"choices": ["eager", "graph", "xla"], "default": ["graph", "xla"]}
    parsers[bench].add_argument("--mode", nargs="+", **modes, help="how the step runs (graph xla)")
    options = parser.parse_args()
    try:
        if options.version:
            from lrops import _loader

            facts, carried = _loader.build_info, ", ".join(_loader.supported_tensorflow()) or "none"
            print(f"lrops {facts['version']}, commit {facts['commit']}, with libraries for TensorFlow {carried}")
            return
        if options.command is None:
            parser.print_help()
            return
        command = next(command for command in parsers if command.__name__ == options.command)
        sys.exit(command(parsers[command], options))
    except ImportError as error:  # it names the fix
        sys.exit(str(error))


if __name__ == "__main__":
    main()
