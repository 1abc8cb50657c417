"""Hooks of `mkdocs.yml`: pages that stand at the top of the repository, the reference, and links between all of them.

The Markdown files stay as they are, so that they read well in a checkout, too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
TOP = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
}
COPIED = ("hosts.example.yaml", "LICENSE")
REFERENCE = {
    "grids": (
        "Grids",
        ("grid.grids.grid.Grid", "grid.grids.local.LocalGrid", "grid.grids.ssh.SSHGrid", "grid.grids.batch.BatchGrid"),
        ("grid.grids.stager.Stager", "grid.grids.stager.CopyReport", "grid.grids.tending.Pilots"),
        ("grid.grids.dask.DaskGrid", "grid.grids.abstract.AbstractGrid", "grid.hosts.host.Host", "grid.limits.Limits"),
    ),
    "calls": (
        "Proxies, results, maps",
        ("grid.services.proxy.Proxy", "grid.services.result.Reply", "grid.services.result.Result"),
        ("grid.services.mapping.MapResult", "grid.services.front.GridService", "grid.services.server.Server"),
    ),
    "compat": (
        "Executor, pool, joblib",
        ("grid.compat.executor.GridExecutor", "grid.compat.pool.GridPool", "grid.compat.joblib.GridBackend"),
        ("grid.trace.record.Trace",),
    ),
    "ensemble": (
        "Ensembles",
        ("grid.ensemble.ensemble.Ensemble", "grid.ensemble.exchange", "grid.ensemble.streams"),
    ),
    "tasks": ("Task systems", ("grid.tasks.abstract", "grid.tasks.run")),
    "errors": ("Errors", ("grid.errors",)),
    "testing": ("For tests of grids", ("grid.testing.grids", "grid.testing.probe.Probe")),
}


def on_files(files: Files, config: Any) -> Files:
    """The pages that are not in docs/."""
    for source, name in TOP.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in COPIED:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    for name, (title, *groups) in REFERENCE.items():
        lines = [f"# {title}", "", *(f"::: {what}\n" for group in groups for what in group)]
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site has them; what is in the repository and not on the site is named without a link."""
    here = page.file.src_uri
    depth = here.count("/")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if "://" in target or not target:
            return match.group(0)
        source = next((source for source, name in TOP.items() if name == here), None)
        base = ROOT if source is not None else (ROOT / "docs" / here).parent
        path = Path(base, target).resolve()
        try:
            inside = path.relative_to(ROOT).as_posix()
        except ValueError:
            return match.group(0)
        name = TOP.get(inside, inside.removeprefix("docs/") if inside.startswith("docs/") else inside)
        if files.get_file_from_path(name) is None:
            return f"{text}" if path.exists() else match.group(0)
        return f"[{text}]({'../' * depth}{name}{anchor or ''})"

    return re.sub(r"\[([^\]\n]+(?:\n[^\]\n]+)?)\]\(([^)#\s]*)(#[^)\s]*)?\)", link, markdown)
