"""No host is lost in silence: who takes no part is told, with the reason, and a remedy that works."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import textwrap
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import Grid, Host, HostError, LocalGrid, MissingModules, PublishError, SSHGrid
from grid.care.environment import setup_host
from grid.launch import connect
from grid.testing.probe import Probe
from tests.arrays import Sum
from tests.lab import Lab, LabHost
from tests.models import Picky

HERE = Host("here", ssh="local")
CLOSED = "127.0.0.1:1"  # nobody listens there: refused at once


class Lines(logging.Handler):
    """Warnings of grids, as they come."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: queue.Queue[str] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.told.put(record.getMessage())

    def all(self) -> list[str]:
        found = []
        while not self.told.empty():
            found.append(self.told.get())
        return found


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("grid")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.row("M01")
def test_a_host_that_is_down_prints_a_line_by_itself_with_its_reason_and_who_goes_on(tmp_path: Path) -> None:
    script = f"""
        from grid import Grid, Host
        from grid.testing.probe import Probe
        with Grid([Host("here", ssh="local"), Host("{CLOSED}"), Host("no.such.host.invalid")]) as g:
            sid = g.publish(Probe(), wait="all", missing="ok")
            with g.acquire_service(sid) as probe:
                assert probe.where().get(30)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == 2, told
    (refused,) = [line for line in told if CLOSED in line]
    (unknown,) = [line for line in told if "no.such.host.invalid" in line]
    assert "refused the connection" in refused and "is unknown" in unknown and "Is it spelt right?" in unknown
    assert all("the grid goes on with 1 of 3 hosts" in line for line in told)


@pytest.mark.row("M01")
def test_a_host_that_fails_after_publish_has_returned_is_told_too_and_only_once(lines: Lines) -> None:
    with Grid([HERE, Host(CLOSED)], output=None) as g:
        g.publish(Probe())
        told = lines.told.get(timeout=30)  # the watch tells, while nobody waits
        assert CLOSED in told and "1 of 2 hosts" in told
        g.publish(Probe())
        g.publish(Probe(), wait="all", missing="ok")
    assert lines.all() == []


@pytest.mark.row("M01")
def test_a_host_that_is_still_on_its_way_at_the_end_is_told(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Host("slow", ssh="local", init_cmd="read -r nothing </dev/tty 2>/dev/null; sleep 30;")
    with Grid([HERE, slow], output=None) as g:
        with g.acquire_service(g.publish(Probe())) as probe:
            probe.where().get(30)
    (told,) = lines.all()
    assert "'slow'" in told and "still starting when the grid ended" in told


@pytest.mark.row("M01")
def test_many_hosts_with_one_cause_are_one_line_with_their_number(lines: Lines) -> None:
    many = [Host("127.0.0.1", port=port) for port in range(1, 31)]  # nobody listens there
    with Grid([HERE, *many], output=None) as g:
        with pytest.raises(PublishError) as caught:
            g.publish(Probe(), wait="all")
        g.publish(Probe(), wait="all", missing="ok")
    assert str(caught.value).count("\n") == 1 and "30 hosts with one cause" in str(caught.value)
    assert len(caught.value.failures) == 30
    (told,) = lines.all()
    assert told.startswith("30 hosts take no part") and "and 27 more" in told and "1 of 31 hosts" in told


@pytest.mark.row("M02")
def test_all_fails_where_a_host_is_missing_unless_that_is_fine(lines: Lines) -> None:
    with Grid([HERE, Host(CLOSED)], output=None) as g:
        for wait in ("all", 2):
            with pytest.raises(PublishError, match="1 of 2 servers came up") as caught:
                g.publish(Probe(), wait=wait)
            assert CLOSED in str(caught.value) and 'missing="ok"' in str(caught.value)
        assert lines.all() == []  # the error has said it
        assert g.status()["services"] == {}
        sid = g.publish(Probe(), wait="all", missing="ok")
        assert len(g.servers[sid]) == 1 and CLOSED in lines.told.get(timeout=5)
    with Grid([HERE, Host(CLOSED)], output=None, wait="all", missing="ok") as g:
        assert len(g.servers[g.publish(Probe())]) == 1
        with pytest.raises(PublishError):
            g.publish(Probe(), wait="all")
    with pytest.raises(ValueError, match="'fail' or 'ok', not 'maybe'"):
        Grid([HERE], missing="maybe")


@pytest.mark.row("M01")
def test_servers_of_one_host_that_fail_for_one_reason_are_one_line(lines: Lines) -> None:
    with LocalGrid(6, output=None) as g:
        sid = g.publish(Picky())
        assert len(g.servers[sid]) == 3
        (told,) = lines.all()
        assert "3 servers did not start, with one cause" in told and "no licence" in told
        assert "3 of 6 servers" in told and "\n" not in told
        assert "Traceback" in str(g.failures["localhost"])


@pytest.mark.row("M05")
def test_which_hosts_file_was_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("hosts:\n  - here: {ssh: local}\n")
    script = "from grid import Grid\nwith Grid.auto() as g: pass\nwith Grid.auto(output=None) as g: pass\n"
    env = {name: value for name, value in os.environ.items() if name not in ("GRID_HOSTS", "GRID_GROUP")}
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60, "check": True}
    env["PYTHONPATH"] = os.getcwd()
    done = subprocess.run([sys.executable, "-c", script], env=env, **run)
    expected = "grid: hosts of hosts.yaml: 1 with 1 servers for each service; n_cpu is 1 where it is not given\n"
    assert done.stderr == expected
    listed = subprocess.run([sys.executable, "-m", "grid", "hosts", "list", "--json"], env=env, **run)
    assert "hosts of hosts.yaml" in listed.stderr and json.loads(listed.stdout)[0]["name"] == "here"


@pytest.mark.row("M06")
def test_an_error_names_its_server_and_host_and_the_way_to_a_debugger(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g, g.acquire_service(sid := g.publish(Probe())) as probe:
        shown = _shown(lambda: probe.fail("on purpose").get(30))
    assert f"'fail' on server {sid}/0 at host 'localhost'" in shown
    assert "keep_failures=DIR" in shown and "grid debug" in shown
    with LocalGrid(1, output=None, keep_failures=tmp_path / "kept") as g:
        with g.acquire_service(g.publish(Probe())) as probe:
            assert f"It is kept in {tmp_path / 'kept'}" in _shown(lambda: probe.fail("x").get(30))
        sid = g.publish([1])
        shown = _shown(lambda: list(g.map(sid, "index", [5])))
        assert f"a call of a map on server {sid}/0 at host 'localhost'" in shown


def _shown(call: object) -> str:
    try:
        call()  # type: ignore[operator]
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not fail")


# ---- env ---------------------------------------------------------------------------------------------------


ODD = {
    "PLAIN": "x",
    "QUOTES": """it's "so" `x` $HOME \\ !""",
    "TWO_LINES": "a\nb",
    "UMLAUT": "zwölf",
    "HOMES": "~/a b:~/c:/d",
    "URL": "https://example.org/~me:80/x~y",
    "REMOTE": "me@host:~/x",
    "EMPTY": "",
}


@pytest.mark.lab
@pytest.mark.row("M04")
@pytest.mark.parametrize(
    ("ssh", "init_cmd"),
    [("paramiko", ""), ("openssh", "nice -n 1 !"), ("paramiko", 'test "$PLAIN" = x || exit 9;')],
)
def test_variables_are_there_before_the_interpreter_and_their_home_is_the_hosts(
    ssh: str, init_cmd: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    lab.hosts["s1"].run(["sh", "-c", "mkdir -p '/tmp/my lib'; echo x=1 >'/tmp/my lib/only_there.py'"])
    env = {**ODD, "PYTHONPATH": "~/lib:/tmp/my lib"}
    try:
        with SSHGrid([Host("s1", ssh=ssh, env=env, init_cmd=init_cmd)], output=None) as g:  # type: ignore[arg-type]
            with g.acquire_service(g.publish(Probe())) as there:
                assert {"/home/mara/lib", "/tmp/my lib"} <= set(there.import_and_get("sys", "path").get(30))
                assert there.import_and_get("only_there", "__file__").get(30) == "/tmp/my lib/only_there.py"
                found = {name: there.environment(name).get(30) for name in env}
                assert "only_there" not in str(lab.hosts["s1"].processes())  # nor on a command line
                assert not any("zw" in command for _, command in lab.hosts["s1"].processes())
    finally:
        lab.hosts["s1"].run(["rm", "-rf", "/tmp/my lib"])
    home = {"HOMES": "/home/mara/a b:/home/mara/c:/d", "PYTHONPATH": "/home/mara/lib:/tmp/my lib"}
    assert found == {**ODD, **home}


@pytest.mark.row("M07")
def test_a_local_host_runs_this_interpreter(tmp_path: Path) -> None:
    """Also in a virtual environment, whatever `python3` is on the PATH."""
    empty = tmp_path / "bin"
    empty.mkdir()
    (empty / "python3").write_text("#!/bin/sh\nexit 9\n")
    (empty / "python3").chmod(0o755)
    here = Host("here", ssh="local", env={"PATH": f"{empty}:/usr/bin:/bin"})
    with Grid([here], output=None) as g, g.acquire_service(g.publish(Probe())) as there:
        assert there.import_and_get("sys", "executable").get(30) == sys.executable


@pytest.mark.row("M07")
def test_an_interpreter_with_blanks_in_its_path_is_one_word(tmp_path: Path) -> None:
    place = tmp_path / "my python's"
    place.mkdir()
    (place / "py").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (place / "py").chmod(0o755)
    with LocalGrid(1, python=str(place / "py"), output=None) as g:
        with g.acquire_service(g.publish(Probe())) as there:
            assert there.import_and_get("sys", "executable").get(30) == sys.executable


APPLICATION = """
import os, sys
open(os.environ["STARTS"], "a").write("x")
sys.path[:0] = os.environ["GRID_AT"].split(":")
from grid import LocalGrid
from grid.testing.probe import Probe
{frozen}
sys.executable = os.environ["APP"]
try:
    with LocalGrid(1, python=os.environ.get("ANOTHER")) as g, g.acquire_service(g.publish(Probe())) as probe:
        print("where", probe.where().get(30))
except Exception as exc:
    print(type(exc).__name__, exc)
"""


@pytest.mark.row("M07")
@pytest.mark.parametrize(
    ("frozen", "app", "starts"),
    [("sys.frozen = True", "app", 1), ("", "", 1), ("", "app", 2)],
    ids=["frozen", "embedded", "a program that looks like an interpreter"],
)
def test_an_application_is_not_started_again_but_refused_in_one_line(
    tmp_path: Path, frozen: str, app: str, starts: int
) -> None:
    (tmp_path / "main.py").write_text(APPLICATION.format(frozen=frozen))
    (tmp_path / "app").write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path}/main.py\n")
    (tmp_path / "app").chmod(0o755)
    env = {**os.environ, "STARTS": str(tmp_path / "starts"), "APP": str(tmp_path / app) if app else ""}
    env |= {"GRID_AT": ":".join(filter(None, [os.getcwd(), *sys.path]))}

    def run(**more: str) -> str:
        (tmp_path / "starts").write_text("")
        command = [str(tmp_path / "app")]
        return subprocess.run(command, env=env | more, capture_output=True, text=True, timeout=60).stdout

    said = run()
    assert "python=" in said and "PythonError" in said if starts == 1 else "Error" in said, said
    assert len((tmp_path / "starts").read_text()) == starts
    assert run(ANOTHER=sys.executable).startswith("where "), "it works with another interpreter"


# ---- remedies ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poor() -> Iterator[Lab]:
    """`ready` has what a kernel needs, `bare` has not even that; neither has an index, pip or NumPy."""
    with Lab([LabHost("ready"), LabHost("bare", packages=())]) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        yield lab


@pytest.fixture
def homes(poor: Lab) -> Iterator[Lab]:
    yield poor
    for host in poor.hosts.values():
        host.run(["sh", "-c", "rm -rf ~/.grid /tmp/*"])


@pytest.mark.lab
@pytest.mark.row("M01", "M03", "M08")
def test_the_remedy_for_a_missing_package_works_as_it_stands(homes: Lab, lines: Lines) -> None:
    name = "bare"
    with connect(Host(name)) as connection:
        setup_host(connection)
    with Grid([Host("here", ssh="local"), Host(name)], output=None) as g:
        g.publish(Sum(), wait="all", missing="ok")
        told = lines.told.get(timeout=5)
        assert isinstance(g.failures[name], MissingModules) and "numpy" in told and "1 of 2 hosts" in told
    command = told.partition("`")[2].partition("`")[0]
    assert command == f"grid hosts setup {name} --with numpy"
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with Grid([Host(name)], output=None) as g, g.acquire_service(g.publish(Sum())) as there:
        assert there.total().get(30) == 6.0
    again = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=300)
    assert "nothing" in again.stdout


@pytest.mark.lab
@pytest.mark.row("M08")
@pytest.mark.parametrize("name", ["ready", "bare"])
def test_any_wheel_of_a_directory_is_installed(name: str, homes: Lab, tmp_path: Path) -> None:
    def wheel(version: str) -> None:
        with zipfile.ZipFile(tmp_path / f"my_tool-{version}-py3-none-any.whl", "w") as archive:
            info = f"my_tool-{version}.dist-info"
            archive.writestr("my_tool.py", f"version = {version!r}\n")
            if version == "1.0":
                archive.writestr("my_tool_old.py", "")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: my-tool\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            names = [*archive.namelist(), f"{info}/RECORD"]
            archive.writestr(names[-1], "".join(f"{name},,\n" for name in names))

    def imports() -> tuple[str, str]:
        with connect(Host(name)) as connection:
            done = setup_host(connection, wheels=tmp_path)
            program = "import my_tool, zmq, dill; print(my_tool.version)"
            return " ".join(done.actions), connection.run(f"{done.python} -c '{program}'").text

    wheel("1.0")
    said, found = imports()
    assert "installed my-tool" in said and found == "1.0"
    assert imports() == ("", "1.0")
    wheel("1.1")
    said, found = imports()
    assert "installed my-tool" in said and found == "1.1"
    with connect(Host(name)) as connection:
        assert connection.run("ls ~/.grid/env/*/lib/python*/site-packages/my_tool*.py").text.count("\n") == 0


@pytest.mark.lab
@pytest.mark.row("M03")
def test_an_interpreter_of_the_users_own_is_left_as_it_is(homes: Lab) -> None:
    with connect(Host("ready", python="python3")) as connection:
        with pytest.raises(HostError, match="is yours: nothing is installed there"):
            setup_host(connection, packages=["numpy"])
