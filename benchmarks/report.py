"""Writes the tables of README.md, RESULTS.md and docs/performance.md, and docs/overhead.png, from results.json."""

import json
import re
from pathlib import Path

from overhead import AGAIN, BY_HAND, CONSTANT, CORE, KERAS, LROPS, REAL, WARMED, WHERE

from lrops import benchmark

HERE = Path(__file__).parent
ROOT = HERE.parent
COLOURS = {
    AGAIN: "#999999",
    LROPS: "#0072b2",
    WARMED: "#56b4e9",
    BY_HAND: "#cc79a7",
    KERAS: "#d55e00",
    WHERE: "#009e73",
}
HOST = "assigned by the host"
MILLION = ": ns a step of a million"


def table(corner, columns, rows):
    """A Markdown table. `rows` is a list of the cells of each row, numbers or text."""
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" + "|--:" * len(columns) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, cells)) + " |" for cells in rows])


def number(row, key, form=".2f", factor=1):
    """A figure of a row as text; nothing if it was not taken."""
    return f"{row[key] * factor:{form}}" if row and row.get(key) else ""


def label(name, rows):
    """How the tables call a case."""
    variables = rows.get(CONSTANT, {}).get("variables")
    return f"{name}, {variables} variables" if variables else name


def compared(cases, contenders, cell):
    """For `table`: a row for each of cases, name -> rows, and `cell(row, constant)` for each of the contenders."""
    for name, rows in cases.items():
        yield [label(name, rows), *(cell(rows.get(contender), rows[CONSTANT]) for contender in contenders)]


def step_and_first_call(row, constant):
    """The step time over that of a constant rate, and in brackets the same for the first call."""
    calls = [number(one, "first_call_s", ".9f") for one in (row, constant)]
    return number(row, "ratio") + (f" ({float(calls[0]) / float(calls[1]):.2f})" if all(calls) else "")


def found(results, pattern):
    """The cases whose whole name matches, without those of one kind that have a table of their own."""
    return {name: rows for name, rows in results["cases"].items() if re.fullmatch(pattern, name)}


def tables(results):
    """Heading -> table, for RESULTS.md."""
    cases = results["cases"]
    size, evaluation = cases["AdamW, 100 variables, size"], cases["evaluation"]
    shown = [contender for contender in CORE if contender != CONSTANT]
    steps = found(
        results, r"MobileNetV3Small|EfficientNetB0|\w+, \d+ variables, (graph|xla|eager|tf_keras)|\w+, model.fit, AdamW"
    )
    hosts = found(results, ".*(assigned by the host|logical CPUs?)")
    sizes = {
        "graph nodes": (cases["AdamW, 100 variables, graph"], "nodes", ".0f"),
        "million instructions": (cases.get("AdamW, 100 variables, graph, instructions", {}), "counted", ".2f"),
        "million instructions, XLA": (cases.get("AdamW, 100 variables, xla, instructions", {}), "counted", ".2f"),
        "SavedModel, kB": (size, "saved_kb", ".0f"),
        "peak memory, MiB": (size, "peak_mib", ".0f"),
    }
    curves = list(benchmark.curves())
    by_curve = [
        [f"update, {name.split(', ')[2]}, / cosine", *(number(rows[curve], "of_cosine") for curve in curves)]
        for name, rows in found(results, "AdamW.*, each curve").items()
    ]
    evaluated = cases["evaluation, each curve"]
    for way in dict.fromkeys(name.partition(", ")[2] for name in evaluated):
        unit = way if way.startswith("ns") else f"{way}, us"
        by_curve.append([unit, *(number(evaluated[f"{curve}, {way}"], "us", ".0f") for curve in curves)])
    warmed = [
        [
            f"{schedule}, {name.split(', ')[2]}",
            *(number(rows[row], "ratio") for row in (f"Keras {schedule}", *behind(schedule))),
        ]
        for name, rows in found(results, "AdamW, 100 variables, .* with and without LinearWarmup").items()
        for schedule in (row.removeprefix("Keras ") for row in rows if row.startswith("Keras "))
    ]
    made = {
        "Step time / constant rate (first call / constant rate)": table(
            "", ["constant, us", *shown], with_constant(compared(steps, shown, step_and_first_call), steps)
        ),
        "The rate assigned by the host before each step": table(
            "",
            ["constant, us", LROPS, KERAS, HOST],
            with_constant(compared(hosts, [LROPS, KERAS, HOST], lambda row, _: number(row, "ratio")), hosts),
        ),
        "An AdamW update of 100 variables": table(
            "",
            sizes,
            (
                [name, *(number(rows.get(name), key, form) for rows, key, form in sizes.values())]
                for name in [*CORE, "LinearWarmup(Keras CosineDecay)"]
                if any(name in rows for rows, _, _ in sizes.values())
            ),
        ),
        "One evaluation, eagerly": table(
            "",
            ["us", "ns a step of a million"],
            (
                [name, number(evaluation.get(name), "us", ".0f"), number(evaluation.get(name + MILLION), "us", ".0f")]
                for name in dict.fromkeys(name.removesuffix(MILLION) for name in evaluation)
            ),
        ),
        "Each curve of lrops": table("", curves, by_curve),
        "Keras' schedules: an AdamW update of 100 variables / constant rate": table(
            "", ["alone", "in LinearWarmup(..., 0)", "in LinearWarmup(..., 1000)"], warmed
        ),
    }
    if logged := cases.get("LearningRateLogger"):
        cells = [number(row, "us", ".0f") for row in logged.values()]
        made["LearningRateLogger"] = table("", logged, [["us a batch", *cells]])
    return made


def behind(schedule):
    """The two rows of a schedule in a LinearWarmup."""
    return [f"LinearWarmup({schedule}, {steps})" for steps in (0, benchmark.WARMUP)]


def with_constant(rows, cases):
    """Rows with the step time of a constant rate as their second cell."""
    for row, measured in zip(rows, cases.values(), strict=True):
        yield [row[0], number(measured[CONSTANT], "us", ".0f"), *row[1:]]


def where(results):
    """The machine, the versions and the dates, in one line."""
    facts, taken = results["facts"], results["taken"].values()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    dates = " to ".join(sorted({min(one["date"] for one in taken), max(one["date"] for one in taken)}))
    return f"{dates}, {facts['cores']} cores of {facts['processor']}; Python {facts['python']}, {versions}."


def markdown(results):
    """What RESULTS.md shows: the machine, the tables, and what was skipped."""
    parts = [where(results)]
    parts += [f"### {heading}\n\n{rows}" for heading, rows in tables(results).items()]
    return "\n\n".join(parts + [f"Skipped: {name}: {reason}" for name, reason in results["skipped"].items()])


def summary(results, pattern, contenders, corner):
    """A table of the README or of docs/performance.md."""
    cases = found(results, pattern)
    if missing := {"MobileNetV3Small", "EfficientNetB0"} - set(cases):
        raise ValueError(f"results.json has no {', '.join(sorted(missing))}: run `make bench`")
    date = max(results["taken"][case]["date"] for case in cases)
    machine = f"{date}, {results['facts']['cores']} cores of {results['facts']['processor']}"
    rows = compared(cases, contenders, step_and_first_call)
    return table(corner, contenders, rows) + f"\n\n{machine}. The models train on batches of 4 images of 64 x 64."


def steps_of_adamw(results, mode):
    """Number of variables -> the rows of that case."""
    cases = found(results, rf"AdamW, \d+ variables, {mode}")
    return {int(name.split()[1]): rows for name, rows in cases.items()}


def extent(cases, contender):
    """The lowest and the highest ratio to the constant rate, as text."""
    ratios = [rows[contender]["ratio"] for rows in cases.values() if contender in rows]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def chart(results, path):
    """The time of an AdamW update over that with a constant rate, in graph mode: a bar for each contender."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    cases, xla = steps_of_adamw(results, "graph"), steps_of_adamw(results, "xla")
    width, labelled = 0.14, set()
    for group, rows in enumerate(cases.values()):
        present = [contender for contender in COLOURS if contender in rows]
        for place, contender in enumerate(present):
            row, x = rows[contender], group + (place - (len(present) - 1) / 2) * width
            spread = row["spread_us"] / rows[CONSTANT]["us"]
            name = None if contender in labelled else contender
            labelled.add(contender)
            style = {"color": COLOURS[contender], "ecolor": "0.3", "capsize": 2, "label": name}
            axes.bar(x, row["ratio"], 0.9 * width, yerr=spread, **style)
            value = {"ha": "center", "va": "bottom", "rotation": 90, "color": "white", "fontweight": "bold"}
            axes.text(x, 0.04, f"{row['ratio']:.2f}", fontsize=9, **value)
    axes.axhline(1, color="0.3", linewidth=1)
    axes.set_xticks(range(len(cases)), [f"{size} variables" for size in cases])
    axes.set_ylabel("time of an update / constant rate\n(lower is better)")
    axes.set_xlabel(
        "AdamW update in graph mode; gradients are given. Error bars: half of the interquartile range of the rounds.\n"
        f"Under XLA: lrops {extent(xla, LROPS)}, Keras {extent(xla, KERAS)}, "
        f"the same constant rate again {extent(xla, AGAIN)}.",
        fontsize=9,
    )
    slowest = max(rows[KERAS]["ratio"] for rows in cases.values() if KERAS in rows)
    axes.set_title(
        f"Keras' CosineDecay makes an AdamW update up to {slowest:.2f} times as long; lrops: {extent(cases, LROPS)}",
        fontsize=10.5,
        loc="left",
    )
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    axes.set_ylim(0, 1.4 * slowest)
    axes.set_xlim(-0.5, len(cases) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d9d9d9", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=220)


def replace(path, mark, text):
    """Puts `text` between <!-- mark --> and <!-- /mark --> in a file."""
    old = path.read_text()
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    new, count = re.subn(pattern, lambda match: match[1] + text + "\n" + match[2], old, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path} must have one <!-- {mark} --> ... <!-- /{mark} -->. Found: {count}")
    path.write_text(new)


def main():
    results = json.loads((HERE / "results.json").read_text())
    replace(HERE / "RESULTS.md", "cpu", markdown(results))
    chart(results, ROOT / "docs" / "overhead.png")
    models = "MobileNetV3Small|EfficientNetB0"
    few, all_but_one = ([name for name in names if name != CONSTANT] for names in (REAL, CORE))
    corner = "Training step / constant rate (first call / constant rate)"
    pages = {
        "README.md": summary(results, f"{models}|AdamW, 100 variables, graph", few, corner),
        "docs/performance.md": summary(results, f"{models}|AdamW, [13]00 variables, (graph|xla)", all_but_one, corner),
    }
    for page, text in pages.items():
        replace(ROOT / page, "figures", text)


if __name__ == "__main__":
    main()
