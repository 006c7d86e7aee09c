"""What MkDocs does for this project in addition to its plugins: pages from outside docs/, the notebook, and links.

The Markdown files are written for GitHub. A link there names a file of the repository by a relative path. On the site
it leads to the page of that file, if there is one, and otherwise to GitHub.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")  # pages of the site that are not in docs/
NOTEBOOKS = {"tour.ipynb": "tour.md"}


def on_config(config):
    """Gives headings the anchors that they have on GitHub."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files, config):
    """Adds the pages that are not Markdown files in docs/."""
    for path in OUTSIDE:
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    for notebook, page in NOTEBOOKS.items():
        text = _as_markdown(json.loads((ROOT / "docs" / notebook).read_text("utf-8")))
        files.append(File.generated(config, page, content=text))
    return files


def _as_markdown(notebook):
    """The cells of a notebook with their outputs. A picture is embedded in the page."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                parts.append(f"![The picture that the lines above draw](data:image/png;base64,{picture})")
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"``` {{.text .no-copy .output}}\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown, page, config, files):
    """Turns each link to a file of the repository into one that works on the site."""
    here = page.file.src_uri
    folder = "" if here in OUTSIDE else "docs"
    blob = config.repo_url + "/blob/main/"

    def on_site(target):
        address, _, anchor = target.partition("#")
        if not address or ":" in address:
            return target
        path = posixpath.normpath(posixpath.join(folder, posixpath.dirname(here), address))
        if not (ROOT / path).exists():
            return target  # MkDocs reports it; or it is code that looks like a link
        inside = path.removeprefix("docs/")
        inside = NOTEBOOKS.get(inside, inside)
        found = files.get_file_from_path(inside) if path.startswith("docs/") or path in OUTSIDE else None
        to = posixpath.relpath(found.src_uri, posixpath.dirname(here) or ".") if found else blob + path
        return to + (f"#{anchor}" if anchor else "")

    return re.sub(r"(?<=\]\()[^\s()]+(?=\))", lambda match: on_site(match[0]), markdown)
