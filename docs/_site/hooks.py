"""What MkDocs does for this project beside its plugins: pages from outside docs/, the notebook, and links.

The Markdown files are written for GitHub. A link there names a file of the repository, by a relative path or by its
address. On the site it leads to the page of that file, if there is one, and otherwise to GitHub.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("README.md", "benchmarks/RESULTS.md")  # pages of the site that are not in docs/
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
    # Badges are pictures from another host: the site has their words instead.
    badges = re.compile(r"(?:^\[?!\[.*\]\(https://img\.shields\.io/.*\n)+", re.MULTILINE)
    markdown = badges.sub(lambda match: " · ".join(re.findall(r"!\[(.*?)\]", match[0])) + "\n", markdown)
    folder = "" if here in OUTSIDE else "docs"
    raw = config.repo_url.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
    blob = config.repo_url + "/blob/main/"

    def on_site(target):
        address, _, anchor = target.partition("#")
        if address.startswith((blob, raw)):
            path = address.removeprefix(blob).removeprefix(raw)
        elif address and ":" not in address:
            path = posixpath.normpath(posixpath.join(folder, posixpath.dirname(here), address))
        else:
            return target
        if not (ROOT / path).exists():
            return target  # MkDocs reports it; or it is code that looks like a link
        inside = path.removeprefix("docs/")
        inside = NOTEBOOKS.get(inside, inside)
        found = files.get_file_from_path(inside) if path.startswith("docs/") or path in OUTSIDE else None
        to = posixpath.relpath(found.src_uri, posixpath.dirname(here) or ".") if found else blob + path
        return to + (f"#{anchor}" if anchor else "")

    markdown = re.sub(r"(?<=\]\()[^\s()]+(?=\))", lambda match: on_site(match[0]), markdown)

    def in_html(match):  # MkDocs does not look into HTML: it needs the address of the page, not its source
        target = on_site(match[2])
        file = files.get_file_from_path(posixpath.normpath(posixpath.join(posixpath.dirname(here), target)))
        return match[1] + (file.url_relative_to(page.file) if file else target) + '"'

    return re.sub(r'(<(?:img|source|a)\b[^>]*\b(?:src|srcset|href)=")([^"#]+)"', in_html, markdown)
