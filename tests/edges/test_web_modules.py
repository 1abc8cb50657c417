"""Modules that users install on a server: who may, whose they are, and what a hostile archive gets."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid import LocalGrid
from grid.jobs import (
    JobFailed,
    JobManager,
    Request,
    RequestError,
    ServerProxy,
    Settings,
    Store,
    ThreadEngine,
    make_service,
    remote_service,
)
from grid.jobs.host.errors import AccessError
from grid.jobs.modules.install import check, pack, unpack
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import Square

LIMIT_S = 60.0

SOURCE = """
from grid.jobs import Service
from .numbers import FACTOR

def times(x):
    return x * FACTOR

class Scale(Service):
    version = "{version}"

    def run(self, handler):
        return handler.map(times, self.request.values)
"""


def package(place: Path, name: str, version: str, factor: int) -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE.format(version=version))
    (folder / "numbers.py").write_text(f"FACTOR = {factor}\n")
    (folder / "data.txt").write_text("data")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("x")
    return folder


def scale(service: ServerProxy, version: str = "1", name: str = "scales.Scale") -> Any:
    request = Request(values=[1, 2])
    request.service, request.version = name, version
    return service.submit(request).wait(LIMIT_S)


class Site:
    def __init__(self, place: Path) -> None:
        self.manager = JobManager(Store(place), ThreadEngine(2, 3), Settings(tick_s=0.05)).start()
        self.manager.register(Square)
        self.tokens = Tokens(self.manager.store.directory)
        self.web = WebServer(self.manager, tokens=self.tokens)

    def client(self, user: str, *scopes: str) -> ServerProxy:
        return remote_service(self.web.url, token=self.tokens.create(user, ("read", "submit", "control", *scopes)))

    def end(self) -> None:
        self.web.close()
        self.manager.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    before = set(sys.modules)
    made = Site(tmp_path / "s")
    yield made
    made.end()
    for name in set(sys.modules) - before:
        if name.startswith("grid_"):
            del sys.modules[name]


@pytest.mark.row("C32", "C33", "R12")
def test_a_module_is_installed_for_its_user_and_version_and_others_may_use_it(site: Site, tmp_path: Path) -> None:
    mara, ole, guest = site.client("mara", "upload"), site.client("ole", "upload"), site.client("guest")
    try:
        done = mara.install_service(package(tmp_path / "1", "scales", "1", 10)).wait(LIMIT_S)
        assert done["services"] == {"mara/scales.Scale": "1"} and len(done["sha256"]) == 64
        assert scale(mara) == [10, 20]
        ole.install_service(package(tmp_path / "2", "scales", "1", 100)).wait(LIMIT_S)
        assert scale(ole) == [100, 200] and scale(mara) == [10, 20]  # same name, other user
        mara.install_service(package(tmp_path / "3", "scales", "2", 1000)).wait(LIMIT_S)
        assert scale(mara, "2") == [1000, 2000] and scale(mara, "1") == [10, 20]
        again = mara.install_service(tmp_path / "3" / "scales").wait(LIMIT_S)  # the same again is fine
        assert again["sha256"] == mara.modules()[-1]["sha256"]
        with pytest.raises(JobFailed, match="installed with other contents"):
            mara.install_service(package(tmp_path / "4", "scales", "2", 7)).wait(LIMIT_S)
        with pytest.raises(AccessError, match="scope upload"):
            guest.install_service(tmp_path / "1" / "scales")
        forged = Request(name="x", upload="0" * 24, sha256="0")
        forged.service, forged.version = "grid.install", "1"
        with pytest.raises(AccessError, match="scope upload"):
            guest.submit(forged)
        assert guest.services()["mara/scales.Scale"] == ["1", "2"]
        assert scale(guest, "1", "mara/scales.Scale") == [10, 20]
        with pytest.raises(RequestError, match="no service"):
            scale(guest)
        listed = [(each["user"], each["name"], each["services"]) for each in guest.modules()]
        assert listed[1] == ("ole", "scales", {"ole/scales.Scale": "1"}) and "place" not in guest.modules()[0]
    finally:
        for each in (mara, ole, guest):
            each.close()


@pytest.mark.row("C32")
def test_what_is_installed_outlives_a_restart_and_reaches_the_hosts(tmp_path: Path) -> None:
    before = set(sys.modules)
    module = tmp_path / "alone.py"
    module.write_text(
        "import os\nfrom grid.jobs import Service\n\n\ndef where(x):\n    return x, os.getpid()\n\n\n"
        "class Where(Service):\n    version = '1'\n\n    def run(self, handler):\n"
        "        return handler.map(where, [1, 2, 3])\n"
    )
    try:
        for turn in range(2):
            with LocalGrid(1, output=None) as grid:
                service = make_service(tmp_path / "s", grid, user="mara", settings=Settings(tick_s=0.05))
                try:
                    if turn == 0:
                        service.install_service(module).wait(LIMIT_S)
                    request = Request()
                    request.service, request.version = "alone.Where", "1"
                    found = service.submit(request).wait(LIMIT_S)
                    assert [x for x, _ in found] == [1, 2, 3] and all(pid != 0 for _, pid in found)
                finally:
                    service.close()
            for name in set(sys.modules) - before:
                if name.startswith("grid_"):
                    del sys.modules[name]
    finally:
        assert not [each for each in sys.path if str(tmp_path) in each]


# ---- hostile archives ------------------------------------------------------------------------------------------------


def archive(*members: tuple[Any, bytes], pack_as: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", pack_as) as file:
        for name, data in members:
            file.writestr(name, data)
    return made.getvalue()


def link(name: str, mode: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o777) << 16
    info.create_system = 3
    return info


def lying() -> bytes:
    """Says that it is small, and is not."""
    data = bytearray(archive(("m.py", b"#" * 1_000_000)))
    real, said = (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    return bytes(data.replace(real, said))


INIT = ("m/__init__.py", b"")
HOSTILE: dict[str, Callable[[], bytes]] = {
    "no zip": lambda: b"\x80\x05K\x01.",
    "empty": lambda: b"",
    "nothing in it": lambda: archive(),
    "cut off": lambda: archive(("m.py", b"x = 1\n" * 1000))[:-30],
    "up": lambda: archive(INIT, ("../evil.py", b"")),
    "up within": lambda: archive(INIT, ("m/../../evil.py", b"")),
    "absolute": lambda: archive(INIT, ("/tmp/evil.py", b"")),
    "backslash": lambda: archive(INIT, ("m\\..\\evil.py", b"")),
    "drive": lambda: archive(INIT, ("C:evil.py", b"")),
    "hidden": lambda: archive(INIT, ("m/.ssh/authorized_keys", b"")),
    "link": lambda: archive(INIT, (link("m/away"), b"/etc")),
    "device": lambda: archive(INIT, (link("m/tty", stat.S_IFCHR), b"")),
    "pipe": lambda: archive(INIT, (link("m/pipe", stat.S_IFIFO), b"")),
    "twice": lambda: archive(INIT, ("m/a.py", b""), ("m/A.py", b"")),
    "two modules": lambda: archive(("a.py", b""), ("b.py", b"")),
    "no package": lambda: archive(("m/x.py", b"")),
    "no name": lambda: archive(("1m.py", b"")),
    "many": lambda: archive(INIT, *((f"m/f{n}.py", b"") for n in range(2001))),
    "deep": lambda: archive(INIT, ("m/" + "a/" * 20 + "x.py", b"")),
    "bomb": lambda: archive(INIT, *((f"m/f{n}.bin", bytes(9_000_000)) for n in range(8))),
    "lying": lying,
    "odd packing": lambda: archive(INIT, ("m/x", b"x" * 100), pack_as=zipfile.ZIP_BZIP2),
    "no python": lambda: archive(("m.py", b"def (")),
    "by its own name": lambda: archive(INIT, ("m/x.py", b"from m import y")),
}


@pytest.mark.row("C32")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "inner" / "place"
    place.mkdir(parents=True)
    with pytest.raises(RequestError):
        unpack(HOSTILE[kind](), place, "alias")
    outside = [path for path in tmp_path.rglob("*") if path not in (tmp_path / "inner", place)]
    assert all(place in path.parents for path in outside)
    assert sum(path.stat().st_size for path in outside if path.is_file()) <= 65 << 20


@pytest.mark.row("C32", "C33")
def test_archives_that_can_not_be_installed_leave_nothing_at_the_server(site: Site, tmp_path: Path) -> None:
    mara = site.client("mara", "upload")
    place = site.manager.store.directory / "modules"
    try:
        for kind in ("no zip", "up", "link", "bomb", "two modules"):
            with pytest.raises(RequestError):
                mara.calls.upload(base64.b64encode(HOSTILE[kind]()).decode())
        with pytest.raises(RequestError, match="base64"):
            mara.calls.upload("ä")
        for source, words in (
            (b"raise SystemExit(3)", "can't be imported"),
            (b"import nothing_like_this", "can't be imported"),
            (b"x = 1", "no service class"),
            (b"def (", "does not parse"),
        ):
            data = archive(("m.py", source))
            request = Request(upload=mara.calls.upload(base64.b64encode(data).decode()), name="m")
            request.sha256 = hashlib.sha256(data).hexdigest()
            request.service, request.version = "grid.install", "1"
            with pytest.raises(JobFailed, match=words):
                mara.submit(request).wait(LIMIT_S)
        request.sha256 = "0" * 64
        request.upload = mara.calls.upload(base64.b64encode(archive(("m.py", b""))).decode())
        with pytest.raises(JobFailed, match="has the hash"):
            mara.submit(request).wait(LIMIT_S)
        request.upload = "../../jobs.sqlite"
        with pytest.raises(JobFailed, match="no such upload"):
            mara.submit(request).wait(LIMIT_S)
        assert mara.modules() == [] and not [path for path in place.rglob("*") if path.is_file()]
        assert mara.submit(Square.request(value=2)).wait(LIMIT_S) == 4
    finally:
        mara.close()


@given(st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=50)), max_size=6))
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_of_any_kind_stay_inside_or_are_refused(members: list[tuple[str, bytes]]) -> None:
    try:
        data = archive(INIT, *((f"m/{name}", content) for name, content in members))
    except (ValueError, UnicodeError):
        return  # zipfile itself does not write it
    try:
        _, kept = check(data)
    except RequestError:
        return
    for member in kept:
        parts = member.filename.split("/")
        assert parts[0] == "m" and ".." not in parts and "" not in parts and member.filename.isascii()


def test_what_is_packed_is_always_the_same_and_no_rubbish(tmp_path: Path) -> None:
    folder = package(tmp_path, "scales", "1", 2)
    name, data = pack(folder)
    assert name == "scales" and pack(str(folder)) == (name, data)
    assert sorted(member.filename for member in check(data)[1]) == [
        "scales/__init__.py",
        "scales/data.txt",
        "scales/numbers.py",
    ]
    import tests.edges.jobs_services as module

    assert pack(module)[0] == "jobs_services"
    wheel = tmp_path / "scales-1-py3-none-any.whl"
    wheel.write_bytes(archive(("scales/__init__.py", b""), ("scales-1.dist-info/METADATA", b"")))
    assert pack(wheel)[0] == "scales"
    for wrong in (tmp_path / "nothing", tmp_path, "x.txt"):
        with pytest.raises(RequestError):
            pack(wrong)
