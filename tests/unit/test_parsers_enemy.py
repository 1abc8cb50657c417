"""What others write, read by us: whatever it is, the answer is a value or a named error, soon and in bounded memory."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from grid.batch_systems import DIALECTS
from grid.batch_systems.known import choose_dialect
from grid.batch_systems.pbs import parse_nodefile
from grid.batch_systems.sge import parse_pe_hostfile
from grid.batch_systems.slurm import expand_counts, expand_nodelist
from grid.errors import GridError, StagingError
from grid.hosts.inventory import load_hosts
from grid.kernel.unpack import BLOCK_HEADER, END, FILE_HEADER, MAGIC, RAW, ZLIB, unpack
from grid.launch.allocation import find_allocation
from grid.launch.known_hosts import judge, known_types, read_known_hosts
from grid.staging.manifest import write_archive
from grid.staging.select import StagedFile

tries = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def text_of(*words: str) -> st.SearchStrategy[str]:
    """Text made of these words, of numbers, and of anything."""
    word = st.one_of(st.sampled_from(words), st.integers(-10, 10**30).map(str), st.text(max_size=5))
    return st.lists(word, max_size=25).map("".join)


# -- hosts.yaml --------------------------------------------------------------------------------------------------------

YAML = text_of(
    "hosts:", "defaults:", "groups:", "\n", "\n  ", "\n    ", "- ", ": ", "name: ", "n_cpu: ", "env: ",
    "niceness: ", "port: ", "ssh: ", "python: ", "{", "}", "[", "]", ", ", "&a ", "*a", "<<: ", "!!timestamp ",
    "!!bool ", "!!int ", "!!binary ", "!!python/object:os.system ", "!!set ", "~", "null", "0x", "1e999",
    ".nan", "'", '"', "|", ">", "%", "---", "#", "a", "n1", "mara@n1:22", "2001-99-99", "\t", "\x00", "\u2028",
)  # fmt: skip


@pytest.mark.row("H08")
@tries
@given(
    st.one_of(YAML, YAML.map("hosts:\n  - n1".__add__), YAML.map("hosts: {n1: {n_cpu: ".__add__)),
    st.sampled_from([None, "a"]),
)
@example("hosts: [n1]\ndefaults: {n_cpu: !!bool x}", None)
@example("hosts: [n1]\ndefaults: {n_cpu: !!timestamp x}", None)
@example("hosts: [n1]\ndefaults: {n_cpu: !!int ''}", None)
@example("[" * 5000, None)
@example("hosts: [n1]\ndefaults: {env: " + "{a: " * 2000 + "}" * 2000 + "}", None)
@example("hosts: [n1]\ngroups: {" + ", ".join(f"g{n}: [g{n + 1}]" for n in range(3000)) + ", g3000: [n1]}", "g0")
@example("hosts: [n1]\ngroups: {" + ", ".join(f"g{n}: [g{n + 1}, g{n + 1}]" for n in range(40)) + ", g40: [n1]}", "g0")
@example("hosts: [n1: {n_cpu: " + "9" * 5000 + "}]", None)
def test_a_hosts_file_gives_hosts_or_a_named_error(tmp_path: Path, text: str, group: str | None) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    try:
        assert all(host.name for host in load_hosts(file, group))
    except GridError:
        pass


# -- what batch systems tell -------------------------------------------------------------------------------------------

NODES = text_of(
    "n1", "node-2.lan", "[1-3]", "[", "]", "-", ",", "[001-999999]", "(x", ")", "4(x2)", " ", "\n", "\t", "#",
    "\x00",
)  # fmt: skip


@pytest.mark.row("B04", "B05")
@tries
@given(NODES)
@example("n1 99999999999 all.q")
@example("1(x99999999999)")
@example("n[1-999999][1-999999][1-999999]")
@example("9" * 5000)
@example("n[" + "9" * 5000 + "]")
@example("n1 ²")
@pytest.mark.parametrize("parse", [parse_nodefile, parse_pe_hostfile, expand_nodelist, expand_counts])
def test_lists_of_nodes_are_read_or_refused(parse: Callable[[str], Any], text: str) -> None:
    try:
        assert len(parse(text)) <= 1_000_000
    except GridError:
        pass


@pytest.mark.row("B03")
@tries
@given(st.binary(max_size=60), NODES, NODES)
@example(b"\xff\xfe", "", "")
def test_the_environment_of_a_job_is_understood_or_refused(
    tmp_path: Path, content: bytes, names: str, counts: str
) -> None:
    file = tmp_path / "nodes"
    file.write_bytes(content)
    for environ in (
        {"PBS_NODEFILE": str(file), "PBS_JOBID": "1"},
        {"PE_HOSTFILE": str(file)},
        {"SLURM_JOB_ID": names, "SLURM_JOB_NODELIST": names, "SLURM_JOB_CPUS_PER_NODE": counts},
    ):
        try:
            found = find_allocation(environ, which=lambda command: None, hostname="n1")
        except GridError:
            continue
        assert found is None or found.slots >= 0


QSTAT = text_of(
    "Job Id: ", "17.head", "\n", "\n    ", "\n\t", " = ", "exit_status", "job_state", "R", "C",
    "Resource_List.walltime", "resources_used.walltime", "Walltime.Remaining", "01:00:00", "1-00:00:00", ":",
    "-", "UNLIMITED", "|", "123|R|None|n1|1:00|name", '{"Jobs": ', "{", "}", "[", "]", '"', ": ", ", ", "null",
    "1e999", "²", "job-ID  prior   name", " ", "qw", "r",
)  # fmt: skip


@pytest.mark.row("B09")
@tries
@given(QSTAT, st.sampled_from(sorted(DIALECTS)))
@example("Job Id: 1\n    exit_status = -\n    job_state = R\n    Resource_List.walltime = x", "torque")
@example("Job Id: 1\n    job_state = R\n    Walltime.Remaining = ²", "torque")
@example("[]", "pbspro")
@example('{"Jobs": []}', "pbspro")
@example('{"Jobs": {"1": 5}}', "pbspro")
@example("qstat: cannot connect", "pbspro")
@example('{"Jobs": ' + '{"a": ' * 20000, "pbspro")
@example('{"Jobs": {"1": {"Exit_status": ' + "9" * 5000 + "}}}", "pbspro")
@example("1|R|None|n1|1-2-3:--|name", "slurm")
def test_what_qstat_and_squeue_print_is_read_or_refused(text: str, name: str) -> None:
    dialect = DIALECTS[name]
    for read in (dialect.parse_status, lambda said: dialect.parse_submit(0, said, ""), choose_dialect):
        try:
            read(text)
        except GridError:
            pass


# -- known_hosts -------------------------------------------------------------------------------------------------------

KNOWN = text_of(
    "n1", "*", "?", "!", ",", "|1|", "|", "[n1]:22", "@revoked ", "@cert-authority ", "ssh-ed25519", " AAAA",
    " ", "\n", "#", "=", "é", "[", "]",
)  # fmt: skip


@pytest.mark.row("H11")
@tries
@given(KNOWN, text_of("n1", "[", "]", "*", "."))
@example("|1|é|é ssh-ed25519 AAAA", "n1")
@example("*a" * 40 + " ssh-ed25519 AAAA", "a" * 200)
def test_any_record_of_host_keys_gives_a_verdict(tmp_path: Path, text: str, name: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_bytes(text.encode(errors="surrogatepass"))
    lines = read_known_hosts([str(file)])
    judge(lines, name, 22, "ssh-ed25519", "AAAA")
    known_types(lines, name, 2222)


# -- archives ----------------------------------------------------------------------------------------------------------


def archive(*files: tuple[Any, bytes], compress: bool = False) -> bytes:
    """An archive with these headers (anything, as JSON or bytes) and contents."""
    inner = b""
    for header, content in files:
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        inner += FILE_HEADER.pack(len(head)) + head + content
    block = zlib.compress(inner) if compress else inner
    return MAGIC + BLOCK_HEADER.pack(ZLIB if compress else RAW, len(block)) + block + BLOCK_HEADER.pack(END, 0)


def world(tmp_path: Path) -> tuple[Path, Path]:
    """A folder to unpack into, with a link out of it, and the place where nothing must change."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(exist_ok=True)
    outside.mkdir(exist_ok=True)
    (outside / "kept").write_text("kept")
    for name in ("link", "sub"):
        if not (root / name).is_symlink():
            (root / name).symlink_to(outside)
    return root, outside


def untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["kept"] and (outside / "kept").read_text() == "kept"


@pytest.mark.row("F01")
@pytest.mark.parametrize(
    "header",
    [
        ["../outside/kept", 1, 0o644],
        ["/etc/passwd", 1, 0o644],
        ["link/kept", 1, 0o644],
        ["a/../../outside/kept", 1, 0o644],
        ["a//b", 1, 0o644],
        ["", 1, 0o644],
        [".", 1, 0o644],
        ["a\0b", 1, 0o644],
        ["\ud800", 1, 0o644],
        ["x" * 5000, 1, 0o644],
        ["a", 10**30, 0o644],
        ["a", -1, 0o644],
        ["a", 1.5, 0o644],
        ["a", 1, "rw"],
        ["a", 1],
        {"a": 1},
        5,
        None,
        b"\xff\xfe",
        b"[" * 60_000,
        b'["a", ' + b"9" * 5000 + b", 1]",
    ],
    ids=str,
)
def test_a_hostile_header_is_refused_and_nothing_leaves_the_folder(tmp_path: Path, header: Any) -> None:
    root, outside = world(tmp_path)
    with pytest.raises(StagingError):
        unpack(io.BytesIO(archive((header, b"x"))), root)
    assert untouched(outside)
    assert not [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def test_a_link_under_the_name_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    root, outside = world(tmp_path)
    unpack(io.BytesIO(archive((["link", 1, 0o777], b"x"))), root)
    assert untouched(outside)
    assert not (root / "link").is_symlink() and (root / "link").read_bytes() == b"x"


def test_a_small_block_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(b"\0" * (64 << 20))
    data = MAGIC + BLOCK_HEADER.pack(ZLIB, len(bomb)) + bomb + BLOCK_HEADER.pack(END, 0)
    with pytest.raises(StagingError):
        unpack(io.BytesIO(data), tmp_path)


@pytest.mark.row("F01")
def test_thousands_of_damaged_archives_are_refused_or_stay_in_their_folder(tmp_path: Path) -> None:
    root, outside = world(tmp_path)
    rng = random.Random(1)
    source = tmp_path / "source"
    source.write_bytes(rng.randbytes(2000))
    real = io.BytesIO()
    write_archive([StagedFile(name, source, 2000, 0o644) for name in ("sub dir/a.py", "b")], real)
    plain = archive((["a/b.py", 3, 0o644], b"abc"), (["../x", 3, 0o4777], b"abc"))
    for _ in range(2000):
        data = bytearray(rng.choice((real.getvalue(), plain)))
        for _ in range(rng.randint(1, 4)):
            deed, at = rng.randrange(4), rng.randrange(len(data))
            if deed == 0:
                data[at] = rng.randrange(256)
            elif deed == 1 and at:
                del data[at:]
            elif deed == 2:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            else:
                data[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 1 << 16, (1 << 32) - 1)))
        try:
            unpack(io.BytesIO(bytes(data)), root)
        except StagingError:
            pass
    assert untouched(outside)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root", "source"]
    assert not [name for _, _, names in os.walk(root) for name in names if name.endswith(".part")]
