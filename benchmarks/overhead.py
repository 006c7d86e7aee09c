"""Runs the cases of cases.py, each in its own process, and writes results.json; `make bench` runs it.

report.py makes the tables of the documentation from results.json.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CONSTANT, AGAIN, LROPS = "constant", "constant, again", "lrops"
WARMED, BY_HAND = "LinearWarmup(CosineDecay)", "CosineDecay, read once by hand"
KERAS, WHERE = "Keras CosineDecay, warmup", "hand-written, tf.where"
REAL = [CONSTANT, AGAIN, LROPS, WARMED, BY_HAND, KERAS]
CORE = [*REAL, WHERE]
FEW = [CONSTANT, AGAIN, LROPS, KERAS]
PAIR = ["PolynomialDecay", "CosineDecay"]


def case(name, kind, **arguments):
    return {"name": name, "kind": kind, "arguments": arguments}


def step_case(optimizer, variables, mode, names):
    name = f"{optimizer}, {variables} variables, {mode}"
    return case(name, "step", optimizer=optimizer, variables=variables, mode=mode, names=names)


def curves_case(variables, mode):
    return case(f"AdamW, {variables} variables, {mode}, each curve", "curves_of_lrops", variables=variables, mode=mode)


def behind_a_warmup_case(variables, mode, names):
    name = f"AdamW, {variables} variables, {mode}, Keras' schedules with and without LinearWarmup"
    return case(name, "behind_a_warmup", variables=variables, mode=mode, names=names)


def mirrored_case(replicas):
    name = f"AdamW, 10 variables, MirroredStrategy on {replicas} logical CPU{'s' * (replicas > 1)}"
    return case(name, "mirrored", replicas=replicas)


EVALUATION = case("evaluation", "evaluation")
CURVES = case("evaluation, each curve", "curve_evaluation")
LOGGER = case("LearningRateLogger", "logger")
QUICK = [step_case("AdamW", 100, mode, CORE) for mode in ("graph", "xla")] + [EVALUATION, CURVES, LOGGER]
FULL = [
    case("MobileNetV3Small", "model", model="MobileNetV3Small", names=REAL),
    case("EfficientNetB0", "model", model="EfficientNetB0", names=REAL),
    *[step_case("AdamW", variables, "graph", CORE) for variables in (10, 100, 300)],
    step_case("AdamW", 1000, "graph", [CONSTANT, LROPS, WARMED, BY_HAND]),  # Keras' would trace for two minutes
    *[step_case("AdamW", variables, "xla", CORE) for variables in (10, 100, 300)],
    step_case("AdamW", 10, "eager", CORE),
    *[step_case(optimizer, 100, "graph", [*FEW, WHERE]) for optimizer in ("Adam", "SGD")],
    *[case(f"{model}, model.fit, AdamW", "fit", model=model) for model in ("ViT", "ResNet")],
    case("AdamW, 100 variables, tf_keras", "legacy"),
    case("AdamW, 100 variables, rate assigned by the host", "host"),
    *map(mirrored_case, (1, 2, 4, 8)),
    case("AdamW, 100 variables, size", "size", names=[CONSTANT, LROPS, KERAS, WHERE]),
    EVALUATION,
    curves_case(100, "graph"),
    curves_case(100, "xla"),
    curves_case(10, "eager"),
    CURVES,
    behind_a_warmup_case(10, "graph", PAIR),
    behind_a_warmup_case(100, "graph", None),
    behind_a_warmup_case(300, "graph", PAIR),
    behind_a_warmup_case(100, "xla", PAIR),
    LOGGER,
]
# Too slow for `make bench`: three minutes for each contender, under valgrind. Only --only runs them.
COUNTED = [CONSTANT, LROPS, WARMED, BY_HAND, KERAS, WHERE]
SLOW = [
    case(f"AdamW, 100 variables, {mode}, instructions", "instructions", variables=100, mode=mode, names=COUNTED)
    for mode in ("graph", "xla")
]


def in_a_process(case, rounds, seconds, under=()):
    """The rows of a case, or why there are none. `under` is a command that runs the process."""
    command = [*under, sys.executable, str(HERE / "cases.py"), json.dumps(case), str(rounds), str(seconds)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    if result.returncode:
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", result.stderr, re.MULTILINE)
        return {}, (errors or ["no error message"])[-1]
    return json.loads(result.stdout.splitlines()[-1]), ""


def version(name):
    """Of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit():
    """Of the checkout, with a mark if anything but the results differs from it."""

    def git(*command):
        return subprocess.run(
            ["git", "-C", HERE.parent, *command], capture_output=True, encoding="utf-8"
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results.json")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def facts():
    """The machine and the versions."""
    with open("/proc/cpuinfo") as lines:
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    names = "lrops tensorflow-cpu tensorflow keras tf_keras numpy".split()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: found for name in names if (found := version(name))},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=25, help="in which all contenders of a process take turns")
    parser.add_argument("--seconds", type=float, default=0.1, help="of a turn")
    parser.add_argument("--quick", action="store_true", help="100 variables only, short turns")
    parser.add_argument(
        "--only", metavar="REGEX", help="measure the cases whose name has this; the others stay as --output holds them"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results.json", help="(default: %(default)s)")
    options = parser.parse_args()
    from tqdm import tqdm

    cases, rounds = (QUICK, 7) if options.quick else (FULL, options.rounds)
    results = {"facts": facts(), "cases": {}, "taken": {}, "skipped": {}}
    if options.output.exists():  # what this run does not measure stays
        old, slow = json.loads(options.output.read_text()), {case["name"] for case in SLOW}
        for part in ("cases", "taken", "skipped"):
            results[part] = {name: row for name, row in old[part].items() if options.only or name in slow}
    if options.only:
        cases = [case for case in cases + SLOW if re.search(options.only, case["name"])]
    progress = tqdm(cases, unit="case")
    for case in progress:
        name = case["name"]
        progress.set_postfix_str(name)
        start, load = time.monotonic(), os.getloadavg()[0]
        rows, error = in_a_process(case, rounds, options.seconds)
        if error:
            results["skipped"][name] = error
            continue
        results["skipped"].pop(name, None)
        results["cases"][name] = rows
        results["taken"][name] = {
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "load": load,
            "seconds": round(time.monotonic() - start),
        }
    order = [case["name"] for case in FULL + SLOW]
    results["cases"] = dict(sorted(results["cases"].items(), key=lambda item: order.index(item[0])))
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    import report

    print(report.markdown(results))
    print(f"\nWritten: {options.output}. `python {HERE / 'report.py'}` writes the tables and the chart from it.")


if __name__ == "__main__":
    main()
