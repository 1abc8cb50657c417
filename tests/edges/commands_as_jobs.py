"""Services that run commands: importable, and without what hosts lack."""

from __future__ import annotations

from typing import Any

from grid import In, Out
from grid.jobs import Service, ServiceHandler


class Sorts(Service):
    """Sorts the files of its request, and keeps what comes."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        inputs = [In(path) for path in self.request.paths]  # type: ignore[attr-defined]
        texts = {}
        for run in handler.map_commands("sort {i} -o {o}", inputs, o=Out("*.sorted"), keep=True):
            texts.update({name: data.decode() for name, data in run.contents.items()})
            handler.improved(len(texts))
        both = "cat {i} | sort -r > all.txt"
        last = handler.command(both, values={"i": inputs}, all=Out("all.txt"), shell=True, keep=True)
        return [texts, last.contents["all.txt"].decode(), last.ok]


class Fails(Service):
    """Runs what it is told."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return handler.command(self.request.command, shell=True, o=Out("o*"), keep=True).text  # type: ignore[attr-defined]
