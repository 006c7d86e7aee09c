"""Writes the tables of RESULTS.md and docs/performance.md, and docs/overhead.png, from results.json."""

import json
import re
from pathlib import Path

from lrops import benchmark

HERE = Path(__file__).parent
ROOT = HERE.parent
COLOURS = {
    "constant, again": "#999999",
    "lrops": "#0072b2",
    "Keras CosineDecay, warmup": "#d55e00",
    "hand-written, tf.where": "#009e73",
}


def markdown(results):
    """The machine, a table for each case, and what was skipped."""
    facts = results["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts = [f"{facts['cores']} cores of {facts['processor']}; Python {facts['python']}, {versions}."]
    for name, rows in results["cases"].items():
        taken = results["taken"][name]
        when = f"{taken['date']}, commit {taken['commit']}, load {taken['load']:.1f} at the start"
        parts.append(f"**{name}** ({when})\n\n{benchmark.table(rows)}")
    parts += [f"Skipped: {name}: {reason}" for name, reason in results["skipped"].items()]
    return "\n\n".join(parts)


def summary(results):
    """The rows that docs/performance.md shows: AdamW's step time, first call and instructions, over a constant rate."""
    shown = re.compile(r"AdamW, (100|300) variables, (graph|xla)(, instructions)?")
    cases = [name for name in results["cases"] if shown.fullmatch(name)]
    lines = [
        "| AdamW: step time / constant rate (first call / constant rate) | " + " | ".join(COLOURS) + " |",
        "|---" + "|--:" * len(COLOURS) + "|",
    ]
    for case in cases:
        rows, cells = results["cases"][case], [case.removeprefix("AdamW, ")]
        first = rows["constant"].get("first_call_s")
        for contender in COLOURS:
            row = rows.get(contender)
            call = f" ({row['first_call_s'] / first:.2f})" if row and first else ""
            cells.append(f"{row['ratio']:.2f}{call}" if row else "")
        lines.append("| " + " | ".join(cells) + " |")
    facts, date = results["facts"], max(results["taken"][case]["date"] for case in cases)
    lines.append(f"\n{date}, {facts['cores']} cores of {facts['processor']}.")
    return "\n".join(lines)


def steps_of_adamw(results, mode):
    """Number of variables -> the rows of that case."""
    found = (re.fullmatch(rf"AdamW, (\d+) variables, {mode}", name) for name in results["cases"])
    return {int(match[1]): results["cases"][match[0]] for match in found if match}


def extent(cases, contender):
    """The lowest and the highest ratio to the constant rate, as text."""
    ratios = [rows[contender]["ratio"] for rows in cases.values() if contender in rows]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def chart(results, path):
    """AdamW's step time over a constant rate's, in graph mode: a bar for each contender and number of variables."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    keras = "Keras CosineDecay, warmup"
    cases, xla = steps_of_adamw(results, "graph"), steps_of_adamw(results, "xla")
    width = 0.2
    for place, (contender, colour) in enumerate(COLOURS.items()):
        for group, rows in enumerate(cases.values()):
            if contender not in rows:
                continue
            row, x = rows[contender], group + (place - 1.5) * width
            spread = row["spread_us"] / rows["constant"]["us"]
            label = contender if group == 0 else None
            axes.bar(x, row["ratio"], 0.9 * width, yerr=spread, color=colour, ecolor="0.3", capsize=2, label=label)
            axes.text(x, 0.03, f"{row['ratio']:.2f}", ha="center", fontsize=8, color="white", fontweight="bold")
    axes.axhline(1, color="0.3", linewidth=1)
    axes.set_xticks(range(len(cases)), [f"{size} variables" for size in cases])
    axes.set_ylabel("step time / constant rate\n(lower is better)")
    axes.set_xlabel(
        "AdamW in graph mode. Error bars: half of the interquartile range of the rounds.\n"
        f"Under XLA: lrops {extent(xla, 'lrops')}, Keras {extent(xla, keras)}, "
        f"the same constant rate again {extent(xla, 'constant, again')}.",
        fontsize=9,
    )
    slowest = max(rows[keras]["ratio"] for rows in cases.values() if keras in rows)
    axes.set_title(
        f"Keras' CosineDecay makes an AdamW step up to {slowest:.2f} times as long; lrops: {extent(cases, 'lrops')}",
        fontsize=10.5,
        loc="left",
    )
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    axes.set_ylim(0, 1.35 * slowest)
    axes.set_xlim(-0.5, len(cases) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d9d9d9", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=120)


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
    replace(ROOT / "docs" / "performance.md", "figures", summary(results))
    chart(results, ROOT / "docs" / "overhead.png")


if __name__ == "__main__":
    main()
