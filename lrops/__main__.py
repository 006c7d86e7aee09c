"""`python -m lrops`: a doctor for the installation, rates in a table or a picture, a benchmark of your own step.

It must start where TensorFlow or the compiled op cannot be loaded, so each command imports what it needs.
"""

import argparse
import dataclasses
import sys
import typing

from lrops import _hyperparameters

# What goes down from the peak, as --decay names it, and the hyper-parameters of that curve.
_CURVES = dict.fromkeys(typing.get_args(_hyperparameters.DecayName), _hyperparameters.Decay) | {
    "inverse_sqrt": _hyperparameters.InverseSqrt,
    "restarts": _hyperparameters.Restarts,
}
# Those of them that are options, by name.
_FIELDS = {
    decay: {field.name: field for field in dataclasses.fields(curve) if field.name != "decay"}
    for decay, curve in _CURVES.items()
}

# The type and the metavar of an option, by the type that a hyper-parameter declares.
_OPTIONS = {
    int: (int, "STEPS"),
    int | None: (int, "COUNT"),
    float: (float, "RATIO"),
    float | _hyperparameters.Variable: (float, "RATE"),
    _hyperparameters.DtypeName: (str, "DTYPE"),
}


def _option(name):
    return "--" + name.replace("_", "-")


def _taken_by(name):
    """Each --decay whose curve has this hyper-parameter."""
    return [decay for decay, fields in _FIELDS.items() if name in fields]


def _is_required(field):
    return field.default is dataclasses.MISSING


def _add_decay(parser):
    parser.add_argument("--decay", choices=_CURVES, default="cosine", help="the way down from the peak (%(default)s)")


def _add_curve(parser):
    """The options of every curve."""
    options = parser.add_argument_group("the curve")
    _add_decay(options)
    fields = {name: field for fields in _FIELDS.values() for name, field in fields.items()}
    for name, field in sorted(fields.items(), key=lambda item: not _is_required(item[1])):
        takers, required = _taken_by(name), _is_required(field)
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
    """The curve that the options give, as `get_config` would; a bad one ends the process with the rule."""
    decay, fields = options.decay, _FIELDS[options.decay]
    given = {name: value for name, value in vars(options).items() if _taken_by(name)}
    for name, value in given.items():
        if name not in fields:
            parser.error(
                f"{_option(name)} is an option of --decay {', '.join(_taken_by(name))}: leave it out with another. "
                f"Received: --decay {decay} {_option(name)} {value}"
            )
    missing = [_option(name) for name, field in fields.items() if _is_required(field) and name not in given]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if _CURVES[decay] is _hyperparameters.Decay:
        given["decay"] = decay
    config = dataclasses.asdict(_CURVES[decay](**given))

    import numpy as np

    from lrops import curves

    if config["dtype"] == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)
        except ModuleNotFoundError as error:
            raise ImportError(
                "NumPy has bfloat16 from ml_dtypes, which is not installed: run `pip install ml_dtypes`."
            ) from error

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

    config = _checked(parser, options)
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

    config = _checked(parser, options)
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
    names = ("optimizer", "variables", "elements", "rounds", "decay")
    arguments = {name: getattr(options, name) for name in names}
    sizes = f"{options.variables} variables of {options.elements} numbers"
    for mode in options.mode:
        print(f"\n{options.optimizer}, {sizes}, {options.decay}, {mode}\n")
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
        _add_curve(parsers[command])
    parsers[table].add_argument("--steps", type=int, nargs="+", help="instead of the landmarks")
    parsers[plot].add_argument("--output", default="learning_rate.png", help="(%(default)s)")
    parsers[plot].add_argument("--log", action="store_true", help="the rate on a logarithmic axis")
    _add_decay(parsers[bench])
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
