"""The command line without hosts: its help, its errors, its tables; and the choice of what `grid clean` removes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from grid.care.remains import UNCLAIMED_S, choose
from grid.cli import exits, show
from grid.cli.choose import is_called
from grid.cli.main import main
from grid.cli.running import Rates, _rows
from grid.errors import ConnectError

HOSTS = """
hosts:
  - node1: {n_cpu: 4, groups: [big]}
  - mara@node2:2222
  - name: here
    ssh: local
groups:
  small: [mara@node2:2222]
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of our own with a hosts file, no variables of grid, no grids."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GRID_HOSTS", "GRID_GROUP", "GRID_LOCAL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    return tmp_path


def grid(*words: str, **kw: Any) -> Result:
    return CliRunner().invoke(main, words, **kw)


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


# ---- help and errors ---------------------------------------------------------------------------------------


@pytest.mark.row("D04")
@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    done = grid(*path, "--help")
    assert done.exit_code == exits.OK
    if path not in (("hosts",), ("version",)):
        assert "Exit status:" in done.output and "Example" in done.output
    assert "..." not in done.output.partition("Commands:")[2].partition("Exit status:")[0], "a short help is cut"


@pytest.mark.row("D04")
def test_the_page_in_the_docs_has_a_section_for_every_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for path, command in commands():
        if isinstance(command, click.Group):
            continue
        section = page.partition(f"## grid {' '.join(path)}\n")[2].partition("\n## ")[0]
        assert section, f"no section for grid {' '.join(path)}"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert any(name in section for name in parameter.opts), f"grid {' '.join(path)}: {parameter.opts}"


@pytest.mark.row("D04")
def test_data_are_json_where_that_is_asked_for() -> None:
    # the output of a program; an id; groups; a screen; a debugger
    without = {
        "run",
        "bumps",
        "exec",
        "attach",
        "qsub",
        "sbatch",
        "hosts",
        "env",
        "batch",
        "jobs",
        "top",
        "debug",
        "token",
        "follow",
    }
    for path, command in commands():
        options = {name for parameter in command.params for name in parameter.opts}
        assert ("--json" in options) != (path[-1] in without), path


@pytest.mark.row("D04")
def test_the_help_loads_nothing_that_takes_time() -> None:
    program = "import sys; from grid.cli.main import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True, timeout=30).split()
    heavy = {"paramiko", "cryptography", "rich", "yaml", "zmq", "dill", "numpy"} & set(loaded)
    assert not heavy, f"`grid --help` loads {', '.join(sorted(heavy))}"


@pytest.mark.row("D04")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["hosst"], exits.USAGE, "no command 'hosst'. Did you mean 'hosts'?"),
        (["hosts", "chekc"], exits.USAGE, "Did you mean 'check'?"),
        (["hosts", "check", "nod1"], exits.USAGE, "no host 'nod1'. Did you mean 'node1'?"),
        (["hosts", "check", "x"], exits.USAGE, "no host 'x'. The file has: node1, mara@node2:2222, here"),
        (["hosts", "list", "--group", "bog"], exits.USAGE, "The file has: big, small. Did you mean 'big'?"),
        (["hosts", "list", "--hosts", "other.yaml"], exits.USAGE, "other.yaml: no such file"),
        (["hosts", "list", "--hosts", "n1,n2", "--group", "g"], exits.USAGE, "names alone have no groups"),
        (["hosts", "list", "--hosts", "a;b"], exits.USAGE, "contains ';'"),
        (["doctor", "-x"], exits.USAGE, "No such option"),
        (["run", "nothing.py"], exits.USAGE, "'nothing.py' does not exist"),
        (["run", "--local", "2", "--group", "big", "hosts.yaml"], exits.USAGE, "leave out --hosts and --group"),
        (["run", "--local", "0", "hosts.yaml"], exits.USAGE, "--local"),
        (["run", "--group", "bog", "hosts.yaml"], exits.USAGE, "no group 'bog'"),
        (["run", "--hosts", "no/file", "hosts.yaml"], exits.USAGE, "no/file: no such file"),
        (["stop"], exits.FAILED, "no grid of yours runs on this machine"),
        (["stop", "x"], exits.FAILED, "no grid 'x'"),
        (["stop", "x", "--all"], exits.USAGE, "not both"),
        (["logs"], exits.FAILED, "no grid of yours runs"),
        (["status", "x"], exits.FAILED, "no grid 'x'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_that_says_what_exists(words: list[str], code: int, says: str) -> None:
    done = grid(*words)
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.row("D04")
def test_without_a_hosts_file_names_are_those_of_ssh(alone: Path) -> None:
    (alone / "hosts.yaml").unlink()
    done = grid("hosts", "check")
    assert done.exit_code == exits.USAGE and "there is no hosts file" in done.stderr
    done = grid("hosts", "check", "--group", "big")
    assert done.exit_code == exits.USAGE and "no group 'big'" in done.stderr
    done = grid("hosts", "check", "nowhere.invalid", "--json")
    assert done.exit_code == exits.NOTHING_USABLE
    assert [(one["host"], one["failed"]) for one in json.loads(done.stdout)] == [("nowhere.invalid", "name")]


@pytest.mark.row("D04")
def test_a_hosts_file_is_shown_with_its_defaults() -> None:
    assert [line.split()[0] for line in grid("hosts", "list").stdout.splitlines()] == [
        "host", "node1", "mara@node2:2222", "here",
    ]  # fmt: skip
    (big,) = json.loads(grid("hosts", "list", "--group", "big", "--json").stdout)
    assert (big["label"], big["use_n_cpu"], big["groups"], big["ssh"]) == ("node1", 4, ["big"], "paramiko")
    named = json.loads(grid("hosts", "list", "--hosts", "a, b@c:3", "--json", env={"GRID_GROUP": "big"}).stdout)
    assert [host["label"] for host in named] == ["a", "b@c:3"]


@pytest.mark.row("D04")
def test_no_grid_is_an_empty_list() -> None:
    assert json.loads(grid("status", "--json").stdout) == []
    done = grid("status")
    assert (done.exit_code, done.stdout) == (exits.OK, "")
    assert json.loads(grid("stop", "--all", "--json").stdout) == []


@pytest.mark.row("D04")
def test_versions_are_told() -> None:
    told = json.loads(grid("version", "--json").stdout)
    assert list(told) == ["grid", "python", "pyzmq", "dill", "paramiko", "click", "rich", "PyYAML"] and all(
        told.values()
    )
    assert told["grid"] in grid("--version").stdout


# ---- what a script gets ------------------------------------------------------------------------------------


def environment_of_run(monkeypatch: pytest.MonkeyPatch, *words: str, **variables: str) -> dict[str, str]:
    ran: list[Any] = []
    monkeypatch.setattr("os.execve", lambda *call: ran.append(call))
    done = grid("run", *words, env=variables)
    assert done.exit_code == 0, done.output
    ((program, command, environment),) = ran
    assert program == sys.executable and command == [sys.executable, "script.py", "--json", "x"]
    return {name: value for name, value in environment.items() if name in ("GRID_HOSTS", "GRID_GROUP", "GRID_LOCAL")}


@pytest.mark.row("D04")
def test_run_tells_the_script_which_grid(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone / "script.py").touch()
    file, tail = str(alone / "hosts.yaml"), ["script.py", "--json", "x"]

    def told(*words: str, **variables: str) -> dict[str, str]:
        return environment_of_run(monkeypatch, *words, *tail, **variables)

    assert told() == {"GRID_HOSTS": file}, "a script may change its directory before it asks"
    assert told("--group", "big") == {"GRID_HOSTS": file, "GRID_GROUP": "big"}
    assert told("--hosts", "a,b", GRID_GROUP="big", GRID_LOCAL="3") == {"GRID_HOSTS": "a,b"}
    assert told("--local", "2", GRID_HOSTS="a") == {"GRID_LOCAL": "2"}
    assert told(GRID_LOCAL="3") == {"GRID_LOCAL": "3"}
    (alone / "hosts.yaml").unlink()
    assert told() == {}


@pytest.mark.row("D04")
def test_auto_takes_the_grid_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from grid import Grid

    def hosts() -> list[tuple[str, int]]:
        return [(host.label, host.use_n_cpu) for host in Grid.auto(7).hosts]

    monkeypatch.setenv("GRID_GROUP", "big")
    assert hosts() == [("node1", 4)]
    monkeypatch.setenv("GRID_HOSTS", "a,b")
    assert hosts() == [("a", 1), ("b", 1)]
    monkeypatch.setenv("GRID_LOCAL", "2")
    assert hosts() == [("localhost", 2)]
    monkeypatch.setenv("GRID_LOCAL", "many")
    with pytest.raises(ValueError, match="GRID_LOCAL must be a number"):
        Grid.auto()


# ---- tables ------------------------------------------------------------------------------------------------


@pytest.mark.row("D04")
def test_a_table_has_a_line_per_row_and_no_empty_cell() -> None:
    assert show.plain_table(("a", "long"), [("xyz", ""), (1, "q" * 300)]) == [
        "a    long",
        "xyz  -",
        "1    " + "q" * 300,
    ]


@pytest.mark.row("D04")
@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h"), (400_000, "4.6 d")]
)
def test_spans_are_for_people(seconds: float, text: str) -> None:
    assert show.span(seconds) == text


@pytest.mark.row("D04")
@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("YES\n", True), ("n\n", False), ("", False), ("y", True)]
)
def test_only_yes_is_yes(typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert show.ask("Really?") is agreed


@pytest.mark.row("D04", "H09")
def test_hosts_are_worked_on_at_once_and_told_in_order() -> None:
    meeting = threading.Barrier(3, timeout=10)

    def work(item: int) -> int:
        meeting.wait()
        if item == 2:
            raise ConnectError("no answer", host="x", hint="y")
        return item * 10

    first, second, third = show.side_by_side("working", [1, 2, 3], work, str)
    assert (first, third) == (10, 30) and isinstance(second, ConnectError)
    with pytest.raises(ZeroDivisionError):
        show.side_by_side("working", [1], lambda item: item // 0, str)


def looked_at(calls: int, failures: dict[str, str] | None = None) -> list[dict[str, Any]]:
    server = {"name": "E.0/1", "calls": calls}
    service = {"servers": [server], "free": 0, "acquired": 1, "waiting": 2}
    homes = [{"state": "up"}, {"state": "gone"}]
    answer = {"services": {"E.0": service}, "failures": failures or {}, "homes": homes}
    return [{"id": "7-ab", "name": "x-7", "pid": 7, "began": 0, "status": answer, "error": ""}]


@pytest.mark.row("D04", "G09")
def test_status_counts_servers_and_calls() -> None:
    (row,) = _rows(looked_at(12, {"node1": "no way in", "E.0/0": "died", "E.01/0": "another"}), None)
    assert row[3:] == ("1 of 2", "E.0", 1, 0, 1, 1, 2, 12, "")
    (mute,) = _rows([{**looked_at(1)[0], "status": None}], None)
    assert mute[3] == "no answer" and len(mute) == len(row)
    rates = Rates()
    assert rates.of(looked_at(5)) == {}
    assert rates.of(looked_at(9))["7-ab"]["E.0"] > 0


@pytest.mark.row("D04")
def test_a_grid_may_be_called_in_several_ways() -> None:
    record = {"name": "fit.py-4711", "pid": 4711, "id": "4711-ab"}
    assert all(is_called(record, name) for name in ("fit.py-4711", "4711", "4711-ab", "fit.py"))
    assert not any(is_called(record, name) for name in ("fit", "471", "fit.py-"))


# ---- what may be removed -----------------------------------------------------------------------------------


def lease(grid_id: str, state: str, *directories: str) -> dict[str, Any]:
    return {"grid": grid_id, "state": state, "path": f"/l/{grid_id}", "expires": 90.0, "directories": list(directories)}


def loose(path: str, **changes: Any) -> dict[str, Any]:
    one = {"path": path, "kind": "run", "grid": "1-aa", "age_s": UNCLAIMED_S, "in_use": False, "elsewhere": False}
    return {**one, **changes}


def machine(*leases: dict[str, Any], clients: tuple[str, ...] = (), loose: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"now": 100.0, "clients": list(clients), "leases": list(leases), "loose": list(loose)}


@pytest.mark.row("D04", "G63")
def test_a_living_lease_is_never_chosen() -> None:
    facts = machine(lease("1-aa", "alive", "/d"), lease("2-bb", "expired"), clients=("2-bb",))
    assert choose({"h": facts}, complete=True)["h"].empty, "an agent with a full disk still has its client"


@pytest.mark.row("D04", "G63")
def test_dead_and_expired_leases_are_chosen_with_the_reason() -> None:
    choice = choose({"h": machine(lease("1-aa", "dead"), lease("2-bb", "expired"))}, complete=True)["h"]
    assert choice.leases == ["/l/1-aa", "/l/2-bb"]
    assert choice.reasons == {"/l/1-aa": "its agent has ended", "/l/2-bb": "it expired 10 s ago"}


@pytest.mark.row("D04", "G63")
def test_a_shared_directory_stays_while_any_host_may_use_it() -> None:
    dead, alive = machine(lease("1-aa", "dead", "/s/run-1-aa-shared")), machine(lease("1-aa", "alive"))
    assert choose({"h": dead, "k": alive}, complete=True)["h"].spare == ["/s/run-1-aa-shared"]
    assert choose({"h": dead}, complete=False)["h"].spare == ["/s/run-1-aa-shared"]
    assert choose({"h": dead}, complete=True)["h"].spare == []


@pytest.mark.row("D04", "G63")
@pytest.mark.parametrize(
    ("one", "chosen"),
    [
        (loose("/r"), True),
        (loose("/r", age_s=UNCLAIMED_S - 1), False),
        (loose("/r", in_use=True), False),
        (loose("/r", elsewhere=True), False),
        (loose("/r", grid="9-living"), False),
        (loose("/r", grid=None, kind="code"), True),
        (loose("/r", grid="1-dead", kind="grid", age_s=None), True),
        (loose("/r", grid=None, kind="ssh", age_s=None, in_use=True), True),
    ],
)
def test_what_no_lease_lists_goes_only_if_it_is_surely_left(one: dict[str, Any], chosen: bool) -> None:
    facts = machine(lease("9-living", "alive"), loose=(one,))
    assert choose({"h": facts}, complete=True)["h"].paths == (["/r"] if chosen else [])


@pytest.mark.row("M22")
def test_thirty_hosts_are_looked_at_in_the_time_of_the_slowest() -> None:
    """None of them is done before all have begun."""
    from grid.cli.show import side_by_side

    all_began = threading.Barrier(30)

    def look(number: int) -> int:
        all_began.wait(60)
        return number

    assert side_by_side("looking", range(30), look, str, quiet=True) == list(range(30))
