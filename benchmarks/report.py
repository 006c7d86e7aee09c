"""From results.json to the tables and charts that people read: RESULTS.md, the README, docs/overhead.png."""

import json
import re
from pathlib import Path

from lrops import benchmark

HERE = Path(__file__).parent
ROOT = HERE.parent
MARKS = {
    "lrops": ("#0072b2", "o"),
    "Keras CosineDecay, warmup": ("#d55e00", "s"),
    "hand-written, tf.where": ("#009e73", "^"),
}


def markdown(results):
    """All cases of a run: a line on the machine, a table for each case, and what was skipped."""
    facts = results["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts = [f"{facts['cores']} cores of {facts['processor']}; Python {facts['python']}, {versions}."]
    for name, rows in results["cases"].items():
        taken = results["taken"][name]
        when = f"{taken['date']}, commit {taken['commit']}, load {taken['load']:.1f} at the start"
        parts.append(f"**{name}** ({when})\n\n{benchmark.table(rows)}")
    parts += [f"Skipped: {name}: {reason}" for name, reason in results["skipped"].items()]
    return "\n\n".join(parts)


def readme_figures(results):
    """The few rows that the README shows: AdamW's time, first call and instructions, as ratios to a constant rate's."""
    contenders = ["constant, again", *MARKS]
    shown = re.compile(r"AdamW, (100|300) variables, (graph|xla)(, instructions)?")
    cases = [name for name in results["cases"] if shown.fullmatch(name)]
    lines = [
        "| AdamW step (and first call), of a constant rate's | " + " | ".join(contenders) + " |",
        "|---" + "|--:" * len(contenders) + "|",
    ]
    for case in cases:
        rows, cells = results["cases"][case], [case.removeprefix("AdamW, ")]
        first = rows["constant"].get("first_call_s")
        for contender in contenders:
            row = rows.get(contender)
            call = f" ({row['first_call_s'] / first:.2f})" if row and first else ""
            cells.append(f"{row['ratio']:.2f}{call}" if row else "")
        lines.append("| " + " | ".join(cells) + " |")
    facts, date = results["facts"], max(results["taken"][case]["date"] for case in cases)
    lines.append(f"\n{date}, {facts['cores']} cores of {facts['processor']}.")
    return "\n".join(lines)


def chart(results, path):
    """The step over the number of variables, as a ratio to a constant rate's."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, mode in zip(panels, ("graph", "xla"), strict=True):
        found = (re.fullmatch(rf"AdamW, (\d+) variables, {mode}", name) for name in results["cases"])
        sizes = sorted(int(match[1]) for match in found if match)
        noise = 0.0
        for contender, (colour, marker) in MARKS.items():
            points = []
            for size in sizes:
                rows = results["cases"][f"AdamW, {size} variables, {mode}"]
                if contender in rows:
                    points.append((size, rows[contender]["ratio"]))
                if "constant, again" in rows:
                    noise = max(noise, abs(rows["constant, again"]["ratio"] - 1))
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linewidth=2, label=contender)
        axes.axhspan(1 - noise, 1 + noise, color="0.9", zorder=0, label="the same constant rate again: noise")
        axes.axhline(1, color="0.4", linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_title({"graph": "tf.function", "xla": "jit_compile=True"}[mode], fontsize=10)
        axes.set_xlabel("variables of the optimizer")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#d9d9d9", linewidth=0.6)
    panels[0].set_ylabel("AdamW step, of a constant rate's")
    panels[1].legend(frameon=False, fontsize=8, loc="upper left")
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
    replace(ROOT / "README.md", "figures", readme_figures(results))
    chart(results, ROOT / "docs" / "overhead.png")


if __name__ == "__main__":
    main()
