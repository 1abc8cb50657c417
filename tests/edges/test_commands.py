"""Commands on the servers of a grid: files in and out, how they fail, how they end."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from grid import CommandFailed, CommandRun, In, LocalGrid, Needs, Out, StagingError

LIMIT_S = 60.0


@pytest.fixture
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as grid:
        yield grid


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def soon(what: object) -> None:
    until = time.monotonic() + LIMIT_S
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


ODD = ["a b", "quote'\"s", "-rf", "new\nline", "$(touch pwned)", "*", "ümläut"]


@pytest.mark.row("A01", "A03")
@pytest.mark.parametrize("shell", [False, True])
def test_files_of_any_name_go_and_come(g: LocalGrid, tmp_path: Path, shell: bool) -> None:
    runs = {}
    for number, name in enumerate(ODD):
        (tmp_path / f"{name}.in").write_text(name)
        ends = {"i": In(f"{name}.in"), "o": Out(f"{name}.out" if "*" not in name else "*.out")}
        runs[name] = g.command("cp -- {i} {o}", **ends, shell=shell, to=f"out{number}")
    for number, (name, run) in enumerate(runs.items()):
        done = run.get(LIMIT_S)
        assert [path.read_text() for path in done.outputs] == [name] and done.ok
        assert done.outputs[0].parent == tmp_path / f"out{number}"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.row("A03")
def test_the_value_tells_how_it_ran(g: LocalGrid) -> None:
    run = g.command("sh -c {script}", script="echo out; echo err >&2; exit 3", check=False).get(LIMIT_S)
    assert isinstance(run, CommandRun) and not run.ok
    assert (run.status, run.signal, run.text, run.stderr) == (3, 0, "out\n", b"err\n")
    assert run.host == "localhost" and run.server.startswith("Runner") and run.cpu_s >= 0 and run.peak_bytes > 1 << 20
    many = g.command("sh -c 'yes | head -c 5000'", keep_bytes=100, show=False).get(LIMIT_S)
    assert len(many.stdout) == 100 and many.stdout_lost == 4900
    assert g.command("printenv X", env={"X": "a b"}).get(LIMIT_S).text == "a b\n"
    Path("words").write_text("hello")
    assert g.command("cat", stdin=In("words")).get(LIMIT_S).text == "hello"


@pytest.mark.row("A03")
def test_what_does_not_end_well_says_why(g: LocalGrid, tmp_path: Path) -> None:
    def failure(template: str, **kw: object) -> CommandFailed:
        with pytest.raises(CommandFailed) as caught:
            g.command(template, **kw).get(LIMIT_S)  # type: ignore[arg-type]
        return caught.value

    failed = failure("sh -c 'echo one >&2; echo two >&2; exit 7'")
    assert failed.status == 7 and failed.stderr == "one\ntwo" and "status 7" in str(failed) and "two" in str(failed)
    assert failed.host == "localhost" and "check=False" in failed.hint
    assert failure("sh -c 'kill -SEGV $$'").signal == 11
    assert "time limit of 0.1 s" in str(failure("sleep 1000", timeout_s=0.1))
    absent = failure("no-such-program --x")
    assert absent.status is None and "no host of the grid has it" in str(absent)
    lost = failure("touch a.log b.log", o=Out("*.out"))
    assert "'*.out' matches nothing" in str(lost) and "'a.log', 'b.log'" in str(lost)
    assert "leads out of its directory" in str(failure("ln -s /etc/hostname x", o=Out("x")))
    (tmp_path / "plain").write_text("x")
    with pytest.raises(StagingError, match="can't be written"):
        g.command("touch x", o=Out("x"), to="plain").get(LIMIT_S)
    with pytest.raises(StagingError, match="nowhere"):
        g.command("cat {i}", i=In("nowhere"))
    with pytest.raises(StagingError, match="is a directory"):
        g.command("cat {i}", i=In("."))
    with pytest.raises(ValueError, match="no value"):
        g.command("cat {i}")
    g.command("true", o=Out("x"), check=False).get(LIMIT_S)


@pytest.mark.row("A04")
def test_an_input_goes_once_and_again_when_it_changes(g: LocalGrid) -> None:
    def sent() -> int:
        return sum(name.startswith(".commands/") for name in g._engine.fleet.homes[0].staged)

    g.command("true").get(LIMIT_S)
    before = sent()
    for name in ("one", "two"):
        Path(name).write_text("the same contents")
        assert g.command("cat {i}", i=In(name)).get(LIMIT_S).text == "the same contents"
    assert sent() == before + 1
    Path("one").write_text("others")
    assert g.command("cat {i}", i=In("one")).get(LIMIT_S).text == "others" and sent() == before + 2


@pytest.mark.row("A04")
def test_an_input_that_changes_while_it_waits_is_an_error(g: LocalGrid) -> None:
    Path("x").write_text("before")
    gates = [Path(f"gate{number}").absolute() for number in range(2)]
    for gate in gates:
        os.mkfifo(gate)
    held = [g.command(["sh", "-c", f"read x < {gate}"]) for gate in gates]
    later = g.command("cat {i}", i=In("x"))
    Path("x").write_text("after!")
    for gate, one in zip(gates, held, strict=True):
        gate.write_text("go\n")
        assert one.get(LIMIT_S).ok
    with pytest.raises(StagingError, match="has changed since"):
        later.get(LIMIT_S)


@pytest.mark.row("A04")
def test_cancel_ends_the_whole_group_and_no_other(g: LocalGrid) -> None:
    pids = Path("pids").absolute()
    os.mkfifo(pids)
    doomed = g.command(["sh", "-c", f"sleep 1000 & (setsid sleep 1000 &); echo $$ $! > {pids}; wait"])
    seen = [int(word) for word in pids.read_text().split()]
    others = [g.command("true") for _ in range(20)]
    assert doomed.cancel() and all(one.get(LIMIT_S).ok for one in others)
    with pytest.raises(CancelledError):
        doomed.get(LIMIT_S)
    assert doomed.cancelled() and not doomed.cancel()
    soon(lambda: not any(map(alive, seen)))
    assert g.command("true").get(LIMIT_S).ok


@pytest.mark.row("A04")
def test_cancel_withdraws_what_has_not_begun(g: LocalGrid) -> None:
    gate = Path("gate").absolute()
    os.mkfifo(gate)
    held = [g.command(["sh", "-c", f"read x < {gate}"]) for _ in range(2)]
    waiting = [g.command("touch {o}", o=Out("never")) for _ in range(3)]
    assert all(one.cancel() for one in waiting) and all(one.cancelled() for one in waiting)
    assert all(one.cancel() for one in held)
    for one in held:
        with pytest.raises(CancelledError):
            one.get(LIMIT_S)
    assert not Path("never").exists()


@pytest.mark.row("A03")
def test_it_is_a_future_of_the_standard_kind(g: LocalGrid) -> None:
    told = threading.Event()
    future = g.command("echo hi")
    future.add_done_callback(lambda _: told.set())
    assert told.wait(LIMIT_S) and future.result().text == "hi\n"

    async def both() -> list[CommandRun]:
        return list(await asyncio.gather(*(asyncio.wrap_future(g.command(f"echo {n}")) for n in range(2))))

    assert [run.text for run in asyncio.run(both())] == ["0\n", "1\n"]


@pytest.mark.row("A04")
def test_commands_with_needs_have_servers_of_their_own() -> None:
    with LocalGrid(1, output=None) as g:
        run = g.command("printenv GRID_SERVER", needs=Needs(memory="200M")).get(LIMIT_S)
        assert run.text.strip() and run.server != g.command("true").get(LIMIT_S).server


@pytest.mark.row("A04")
def test_the_end_of_the_grid_leaves_no_process() -> None:
    with LocalGrid(1, output=None) as g:
        pids = Path("pids").absolute()
        os.mkfifo(pids)
        g.command(["sh", "-c", f"(setsid sleep 1000 &); echo $$ > {pids}; exec sleep 1000"])
        [pid] = [int(word) for word in pids.read_text().split()]
        assert alive(pid)
        g.terminate()
    soon(lambda: not alive(pid))


@pytest.mark.row("A05")
def test_of_many_only_what_is_missing_runs(g: LocalGrid, tmp_path: Path) -> None:
    for number in range(20):
        Path(f"in{number}").write_text(str(number))

    def run(**kw: object) -> list[CommandRun]:
        inputs = [In(f"in{number}") for number in range(20)]
        command = f"echo x >> {tmp_path}/ran; cat {{i}} > {{o}}"
        return list(g.map_commands(command, inputs, o=Out("*.out"), to="out", memo="memo", shell=True, **kw))  # type: ignore[arg-type]

    def ran() -> int:
        return (tmp_path / "ran").read_text().count("x")

    runs = run()
    assert ran() == 20 and [one.outputs[0].read_text() for one in runs] == [str(number) for number in range(20)]
    assert ran() == 20 and all(one.memo for one in run()) and ran() == 20
    Path("in3").write_text("three")
    Path("out/in7.out").unlink()
    again = run()
    assert ran() == 22 and [number for number, one in enumerate(again) if not one.memo] == [3, 7]
    assert again[3].outputs[0].read_text() == "three" and again[7].outputs[0].read_text() == "7"
    assert len(run(versions={"cat": "2"})) == 20 and ran() == 42


@pytest.mark.row("A05")
def test_many_in_any_order_with_errors_of_their_own(g: LocalGrid) -> None:
    runs = list(g.map_commands("sh -c {s}", (f"exit {n % 2}" for n in range(6)), return_exceptions=True, ordered=False))
    assert sorted(type(one).__name__ for one in runs) == ["CommandFailed"] * 3 + ["CommandRun"] * 3
    with pytest.raises(StagingError, match="both write"):
        list(g.map_commands("cp /dev/null {o}", [{"o": Out("same")}] * 2))
    both = list(g.map_commands("cp /dev/null {o}", [{"o": Out("same")}] * 2, to="r/{n}"))
    assert [one.outputs[0].parent.name for one in both] == ["1", "2"]
    count = Path("count").absolute()
    flaky = f"echo x >> {count}; test $(wc -l < {count}) -ge 3 # {{n}}"
    assert [one.ok for one in g.map_commands(flaky, [1], shell=True, tries=3)] == [True]
