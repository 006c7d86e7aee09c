"""`python -m lrops`: a doctor for the installation, rates in a table or a picture, a benchmark of your own step.

It must start where TensorFlow or the compiled op cannot be loaded, so each command imports what it needs.
"""

import argparse
import dataclasses
import sys

from lrops import _hyperparameters

# The type and the metavar of an option, by the type that a hyper-parameter declares.
_OPTIONS = {
    int: (int, "STEPS"),
    float: (float, "RATIO"),
    float | _hyperparameters.Variable: (float, "RATE"),
    _hyperparameters.DtypeName: (str, "DTYPE"),
}


def _curve(parser):
    """The options of a curve: the hyper-parameters of `WarmupCosineDecay`."""
    options = parser.add_argument_group("the curve")
    for field in sorted(dataclasses.fields(_hyperparameters.Decay), key=lambda field: field.kw_only):
        required = field.default is dataclasses.MISSING
        converter, metavar = _OPTIONS[field.type]
        options.add_argument(
            "--" + field.name.replace("_", "-"),
            type=converter,
            metavar=metavar,
            help=field.metadata["help"] + ("" if required else " (%(default)s)"),
            **({"required": True} if required else {"default": field.default}),
        )
    return [action.dest for action in options._group_actions]


def _checked(parser, options, names):
    """The curve that the options give, as `get_config` would; a bad one ends the process with the rule."""
    import numpy as np

    from lrops import curves

    if options.dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)
        except ModuleNotFoundError as error:
            raise ImportError(
                "NumPy has bfloat16 from ml_dtypes, which is not installed: run `pip install ml_dtypes`."
            ) from error

    config = {name: getattr(options, name) for name in names}
    try:
        curves.rates(config, np.zeros(0, np.int64))  # checks them
    except (ValueError, TypeError) as error:  # a TypeError where a number has more than 64 bits
        parser.error(str(error) if isinstance(error, ValueError) else "a number of steps must fit in 64 bits")
    return config


def doctor(parser, options):
    """Checks the installation: exit code 1 where something is wrong, with the cure."""
    from lrops import doctor as checks

    return checks.examine_here() if options.here else checks.main(options.json)


def table(parser, options):
    """The rates at the steps that matter, or at any."""
    import numpy as np

    from lrops import _loader, curves  # noqa: F401  (the loader first: it says why _native cannot load)

    config = _checked(parser, options, options.curve)
    marks = [(str(step), step) for step in options.steps or ()] or curves.landmarks(config)
    try:
        steps = np.array([step for _, step in marks], np.int64)
    except OverflowError:
        parser.error(f"steps must fit in 64 bits. Received: {options.steps}")
    rates = curves.rates(config, steps)
    for (name, step), rate in zip(marks, rates, strict=True):
        label = f"{step:>20,}" if options.steps else f"{name:<24}{step:>20,}"
        print(f"{label}  {rate!s:>24}")


def plot(parser, options):
    """Draws the curve into a file."""
    from lrops import _loader, doctor, plotting  # noqa: F401

    config = _checked(parser, options, options.curve)
    try:
        plotting.plot(config, path=options.output, log=options.log)
    except OSError as error:
        sys.exit(f"{options.output} cannot be written: {error}")
    except ValueError as error:  # matplotlib's, of a kind of file that it does not know
        parser.error(str(error))
    doctor.say(options.output)


def bench(parser, options):
    """Times your optimizer's step with a constant rate, with lrops and with what else you could use."""
    from lrops import _loader

    _loader.load_ops()  # before what imports TensorFlow: it says what is wrong
    from lrops import benchmark

    if not isinstance(getattr(benchmark.keras.optimizers, options.optimizer, None), type):
        parser.error(f"--optimizer must name a class of keras.optimizers. Received: {options.optimizer}")
    for mode in options.mode:
        print(f"\n{options.optimizer}, {options.variables} variables of {options.elements} numbers, {mode}\n")
        arguments = {name: getattr(options, name) for name in ("optimizer", "variables", "elements", "rounds")}
        print(benchmark.table(benchmark.compare(mode=mode, **arguments)))


def _at_least(least):
    """A type of argument: an int, not below `least`."""

    def count(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}. Received: {text}")
        return int(text)

    return count


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lrops", description=(__doc__ or "").partition("\n")[0])  # -OO
    commands = parser.add_subparsers(metavar="command", dest="command")
    parsers = {
        command: commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        for command in (doctor, table, plot, bench)
    }
    parsers[doctor].add_argument("--json", action="store_true", help="one JSON object, and nothing else")
    parsers[doctor].add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    for command in (table, plot):
        parsers[command].set_defaults(curve=_curve(parsers[command]))
    parsers[table].add_argument("--steps", type=int, nargs="+", help="instead of the landmarks")
    parsers[plot].add_argument("--output", default="learning_rate.png", help="(%(default)s)")
    parsers[plot].add_argument("--log", action="store_true", help="the rate on a logarithmic axis")
    parsers[bench].add_argument("--optimizer", default="AdamW", help="of keras.optimizers (%(default)s)")
    parsers[bench].add_argument("--variables", type=_at_least(1), default=100, help="of the optimizer (%(default)s)")
    parsers[bench].add_argument("--elements", type=_at_least(1), default=256, help="of each variable (%(default)s)")
    parsers[bench].add_argument("--mode", nargs="+", choices=["eager", "graph", "xla"], default=["graph", "xla"])
    parsers[bench].add_argument("--rounds", type=_at_least(2), default=25, help="in which all take turns (%(default)s)")
    options = parser.parse_args()
    if options.command is None:
        parser.print_help()
        return
    command = next(command for command in parsers if command.__name__ == options.command)
    try:
        sys.exit(command(parsers[command], options))
    except ImportError as error:  # it names the cure
        sys.exit(str(error))


if __name__ == "__main__":
    main()
