"""Clusters for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.site import SYSTEMS, Site
from tests.lab import Lab


@pytest.fixture(scope="module", params=SYSTEMS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A batch system on three nodes of four slots each: the real ones, and stand-ins.

    Leave it as you found it: no job left in the queue, nothing in /home/mara.
    """
    if request.param == "slurm":
        yield Site(request.getfixturevalue("slurm"))
        return
    with Lab([], batch=3, system=request.param, users=("mara", "lena")) as lab:
        yield Site(lab)
