"""Hosts and the file that lists them."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import GridError, InventoryError
from grid.hosts import FixedHosts, Host, as_hosts, create_host_list, find_hosts_file, load_hosts, parse_address

EXAMPLE = Path(__file__).parents[2] / "hosts.example.yaml"


# ---- one host --------------------------------------------------------------------------------------------


@pytest.mark.row("H01")
def test_a_host_has_defaults() -> None:
    host = Host("node17")
    assert (host.name, host.temp_path, host.n_cpu, host.niceness) == ("node17", None, 1, 0)
    assert (host.python, host.init_cmd, host.user, host.port, host.key, host.jump) == ("python", "", *[None] * 4)
    assert (host.env, host.ssh, host.transport, host.groups, host.use_n_cpu) == ({}, "paramiko", "auto", (), 1)
    assert Host("n", "/tmp", 4, 5, "python3", "x;").label == "n"  # the first six may go without their names


@pytest.mark.row("H01")
@pytest.mark.parametrize(
    ("text", "parts", "label"),
    [
        ("node17", (None, "node17", None), "node17"),
        ("mara@node17", ("mara", "node17", None), "mara@node17"),
        ("mara@node17:2222", ("mara", "node17", 2222), "mara@node17:2222"),
        ("10.0.0.1:22", (None, "10.0.0.1", 22), "10.0.0.1:22"),
        ("fe80::1", (None, "fe80::1", None), "fe80::1"),
        ("mara@[fe80::1%eth0]:2222", ("mara", "fe80::1%eth0", 2222), "mara@[fe80::1%eth0]:2222"),
        ("[::1]", (None, "::1", None), "::1"),
    ],
)
def test_a_name_may_say_user_and_port(text: str, parts: tuple[str | None, str, int | None], label: str) -> None:
    assert parse_address(text) == parts
    host = Host(text)
    assert (host.user, host.name, host.port) == parts
    assert host.label == label
    again = Host(host.label)
    assert (again.user, again.name, again.port) == parts


@pytest.mark.row("H01")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": ""}, "name: '' is empty|is empty"),
        ({"name": "-oProxyCommand=x"}, "starts with '-'"),
        ({"name": "a b"}, "contains ' '"),
        ({"name": "a;b"}, "contains ';'"),
        ({"name": "@a"}, "nothing stands before"),
        ({"name": "a:x"}, "port 'x' is not a number"),
        ({"name": "[::1"}, "write an IPv6 address as"),
        ({"name": "a:99999"}, "must be 1..65535"),
        ({"name": "n", "user": "-l"}, "host 'n': user: '-l' starts with '-'"),
        ({"name": "m@n", "user": "o"}, "the name says 'm', the field 'o'"),
        ({"name": "n", "temp_path": "tmp"}, "host 'n': temp_path: 'tmp' is neither absolute nor starts with '~'"),
        ({"name": "n", "n_cpu": 0}, "host 'n': n_cpu: must be 1.."),
        ({"name": "n", "n_cpu": "4"}, "n_cpu: must be a whole number, not '4'"),
        ({"name": "n", "n_cpu": True}, "n_cpu: must be a whole number"),
        ({"name": "n", "n_cpu": 2, "use_n_cpu": 3}, "use_n_cpu: 3 is more than the 2 of n_cpu"),
        ({"name": "n", "use_n_cpu": -1}, "use_n_cpu: must be 0.."),
        ({"name": "n", "niceness": 20}, "niceness: must be -20..19, not 20"),
        ({"name": "n", "python": " "}, "python: is empty"),
        ({"name": "n", "init_cmd": 3}, "init_cmd: must be text, not 3"),
        ({"name": "n", "port": 0}, "port: must be 1..65535, not 0"),
        ({"name": "n", "jump": "a,,b"}, "jump: '' is empty|jump: is empty"),
        ({"name": "n", "env": {"1A": "x"}}, "env: '1A' is not the name of a variable"),
        ({"name": "n", "env": {"A": None}}, "env: A: must be text or a number"),
        ({"name": "n", "env": ["A"]}, "env: must be a mapping"),
        ({"name": "n", "ssh": "opensh"}, "local, pbsdsh, pbs_tmrsh, srun, qrsh, not 'opensh'. Did you mean 'openssh'"),
        ({"name": "n", "transport": "udp"}, "must be one of auto, direct, tunnel, not 'udp'"),
    ],
)
def test_a_wrong_field_is_named_with_its_host(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Host(**arguments)  # type: ignore[arg-type]
    assert any(words in str(caught.value) for words in says.split("|")), caught.value


@pytest.mark.row("H01", "H04")
def test_later_changes_are_checked_as_well() -> None:
    host = Host("n")
    host.set_niceness(19)
    assert host.niceness == 19
    with pytest.raises(ValueError, match=r"niceness: must be -20\.\.19"):
        host.set_niceness(-21)
    assert host.niceness == 19
    with pytest.raises(AttributeError, match=r"a host has no field 'n_cpus'\. Did you mean 'n_cpu'"):
        host.n_cpus = 4  # type: ignore[attr-defined]


@pytest.mark.row("H02")
@pytest.mark.parametrize("path", ["/scratch/my files", "~/grid", "~", "~mara/grid"])
def test_a_temp_path_is_kept_as_written(path: str) -> None:
    host = Host("n")
    host.set_temp_path(path)
    assert host.temp_path == path
    host.set_temp_path(Path("/a/b"))
    assert host.temp_path == "/a/b"
    with pytest.raises(ValueError, match="temp_path"):
        host.set_temp_path("here/there")


@pytest.mark.row("H03")
def test_use_n_cpu_starts_as_n_cpu_and_never_exceeds_it() -> None:
    host = Host("n", n_cpu=8)
    assert host.use_n_cpu == 8
    host.use_n_cpu = 0
    host.use_n_cpu = 5
    host.n_cpu = 4
    assert (host.n_cpu, host.use_n_cpu) == (4, 4)
    host.n_cpu = 16
    assert host.use_n_cpu == 4


class Running:
    halted = False

    def ishalted(self) -> bool:
        return self.halted


@pytest.mark.row("U13", "H01")
def test_a_host_can_not_be_changed_while_a_grid_uses_it() -> None:
    host, one, two = Host("n", env={"A": "1"}), Running(), Running()
    hosts = FixedHosts([host], one)
    FixedHosts([host], two)
    one.halted = True
    with pytest.raises(GridError, match=r"^host 'n' is used by a grid that runs, so its n_cpu can't be changed"):
        hosts[0].n_cpu = 4
    with pytest.raises(GridError, match="niceness"):
        host.set_niceness(1)
    with pytest.raises(ValueError, match="must be a whole number"):
        host.n_cpu = "4"  # type: ignore[assignment]
    host.n_cpu = 1  # as it is
    for other in (copy.copy(host), pickle.loads(pickle.dumps(host)), dataclasses.replace(host, port=22)):
        other.niceness, other.env = 5, {}
        assert (other.name, other.niceness, host.niceness) == ("n", 5, 0)
    two.halted = True
    host.n_cpu = 4
    assert (host.n_cpu, host.use_n_cpu) == (4, 1)
    FixedHosts([host], Running())  # nobody keeps that grid
    gc.collect()
    host.n_cpu = 2


@pytest.mark.row("H07")
def test_a_list_from_names_keeps_order_and_duplicates() -> None:
    hosts = create_host_list(["b", "a", "b"], "~/t", 3, "python3", "nice !")
    assert [host.name for host in hosts] == ["b", "a", "b"]
    assert {(h.temp_path, h.niceness, h.python, h.init_cmd) for h in hosts} == {("~/t", 3, "python3", "nice !")}
    hosts[0].niceness = 0
    assert hosts[2].niceness == 3


@pytest.mark.row("G28")
def test_names_and_hosts_make_a_list_of_hosts() -> None:
    own = Host("own", n_cpu=2)
    hosts = as_hosts(["a", own, "mara@b:2222", own])
    assert [host.label for host in hosts] == ["a", "own", "mara@b:2222", "own"]
    assert hosts[1] is own and hosts[3] is own
    assert [host.name for host in as_hosts("alone")] == ["alone"]
    assert as_hosts(own) == [own]
    with pytest.raises(TypeError, match="a host is a name or a Host, not int"):
        as_hosts([3])  # type: ignore[list-item]


@pytest.mark.row("G28")
def test_two_entries_of_one_machine_are_two() -> None:
    assert Host("n") != Host("n")
    assert len({Host("n"), Host("n")}) == 2


@given(st.text(max_size=30))
def test_no_name_is_both_accepted_and_dangerous(text: str) -> None:
    try:
        host = Host(text)
    except ValueError:
        return
    for word in (host.name, host.user or "x"):
        assert word and not word.startswith("-")
        assert not set(word) & set(" \t\n'\"`$\\;&<>|(){}")


# ---- the file --------------------------------------------------------------------------------------------


def write(directory: Path, text: str) -> Path:
    path = directory / "hosts.yaml"
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.row("H08")
def test_the_example_is_a_file_that_works() -> None:
    hosts = load_hosts(EXAMPLE)
    assert [host.label for host in hosts] == [
        "desk1", "mara@desk2:2222", "node17", "mara@gpu1", "otp.cluster", "here",
    ]  # fmt: skip
    assert {host.niceness for host in hosts} == {10}
    node = hosts[2]
    assert (node.n_cpu, node.use_n_cpu, node.env, node.groups) == (16, 8, {"OMP_NUM_THREADS": "1"}, ("cluster",))
    assert [host.name for host in load_hosts(EXAMPLE, "cluster")] == ["node17", "gpu1"]
    assert [host.name for host in load_hosts(EXAMPLE, "all-but-otp")] == ["desk1", "desk2", "node17", "gpu1", "here"]


@pytest.mark.row("H08")
def test_the_example_names_every_field() -> None:
    text = EXAMPLE.read_text()
    for name in Host.__dataclass_fields__:
        assert f"{name}:" in text, name


@pytest.mark.row("H08", "G28")
def test_a_host_listed_twice_is_two_entries(tmp_path: Path) -> None:
    hosts = load_hosts(write(tmp_path, "hosts: [n, m, n]\ngroups: {g: [n]}\n"))
    assert [host.name for host in hosts] == ["n", "m", "n"]
    assert hosts[0] is not hosts[2]
    assert [host.name for host in load_hosts(tmp_path / "hosts.yaml", "g")] == ["n", "n"]


@pytest.mark.row("H08")
@pytest.mark.parametrize(
    "text",
    [
        "hosts: [{name: n, n_cpu: 4}]",
        "hosts: [n: {n_cpu: 4}]",
        "hosts: {n: {n_cpu: 4}}",
        "defaults: {n_cpu: 4}\nhosts: [n]",
        "defaults: {n_cpu: 4}\nhosts: {n: }",
        "defaults: {n_cpu: 2}\nhosts: [{name: n, n_cpu: 4}]",
        "defaults: &d {n_cpu: 4}\nhosts: {n: *d}",
    ],
)
def test_the_forms_of_an_entry(text: str, tmp_path: Path) -> None:
    (host,) = load_hosts(write(tmp_path, text))
    assert (host.name, host.n_cpu, host.use_n_cpu) == ("n", 4, 4)


@pytest.mark.row("H08")
def test_defaults_fill_in_and_the_name_comes_first(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        defaults: {user: all, port: 2200, env: {A: 1, B: 2}}
        hosts:
          - x
          - me@y:22
          - {name: z, user: own, env: {B: 3, C: yes}}
        """,
    )
    x, y, z = load_hosts(path)
    assert [host.label for host in (x, y, z)] == ["all@x:2200", "me@y:22", "own@z:2200"]
    assert x.env == {"A": "1", "B": "2"} and z.env == {"A": "1", "B": "3", "C": "true"}


@pytest.mark.row("H08")
@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("", None, None, "the file is empty"),
        ("hosts: []", 1, "hosts", "lists no host"),
        ("hosts: n", 1, "hosts", "must be a list or a mapping"),
        ("defaults: {}", 1, None, "there is no 'hosts:'"),
        ("- a\n- b", 1, None, "the file must be a mapping"),
        ("hosts: [n]\nhost: [m]", 2, "host", "unknown key 'host'. Did you mean 'hosts'?"),
        ("hosts:\n  - name: n\n    n_cpus: 4", 3, "n_cpus", "host 'n': unknown key 'n_cpus'. Did you mean 'n_cpu'?"),
        ("defaults:\n  nicenes: 4\nhosts: [n]", 2, "nicenes", "unknown key 'nicenes'. Did you mean 'niceness'?"),
        ("defaults:\n  name: x\nhosts: [n]", 2, "name", "unknown key 'name'"),
        ("hosts:\n  - name: n\n    n_cpu: many", 3, "n_cpu", "n_cpu: must be a whole number, not 'many'"),
        ("defaults:\n  n_cpu: many\nhosts: [n]", 2, "n_cpu", "host 'n': n_cpu: must be a whole number"),
        ("hosts:\n  - name: n\n    n_cpu: 1\n    n_cpu: 2", 4, "n_cpu", "'n_cpu' is given twice"),
        ("hosts: {n: {}, n: {}}", 1, "n", "'n' is given twice"),
        ("hosts:\n  - n_cpu: 3", 2, "name", "has no 'name'"),
        ("hosts:\n  - a b", 2, "name", "contains ' '"),
        ("hosts:\n  - x@n:y", 2, "name", "is not a number"),
        ("hosts:\n  - name: x@n\n    user: y", 2, "name", "the name says 'x', the field 'y'"),
        ("hosts:\n  - n\n  - [m]", 3, None, "a host must be a mapping"),
        ("hosts: [n]\ngroups:\n  g: [m]", 3, "g", "lists 'm', which is neither a host nor a group"),
        ("hosts: [node1]\ngroups:\n  g: [nod1]", 3, "g", "Did you mean 'node1'?"),
        ("hosts: [n]\ngroups:\n  a: [b]\n  b: [n, a]", 4, "b", "group 'a' contains itself: a -> b -> a"),
        ("hosts: [n]\ngroups:\n  a: [a]", 3, "a", "contains itself"),
        ("hosts: [n]\ngroups:\n  a: {x: y}", 3, "a", "must be a list"),
        ("hosts:\n  - name: n\n   n_cpu: 4", 3, None, "is not YAML"),
        ("hosts: [n\n", 2, None, "is not YAML"),
        ("hosts:\n  - name: n\n    port: !!python/object:os.system x", 3, None, "can't use this value"),
        ("hosts: [\x00]", None, None, "is not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(
    text: str, line: int | None, key: str | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    with pytest.raises(InventoryError) as caught:
        load_hosts(path)
    error = caught.value
    assert says in str(error), error
    assert (error.file, error.key) == (str(path), key)
    assert error.line == line or (key is None and line is not None and error.line in (line - 1, line)), error
    assert str(path) in str(error) and (line is None or f":{error.line}: " in str(error))


@pytest.mark.row("H08")
def test_an_unknown_group_lists_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "hosts: [n, {name: m, groups: gpu}]\ngroups: {cpu: [n]}\n")
    with pytest.raises(InventoryError, match=r"no group 'gpus'\. The file has: cpu, gpu\. Did you mean 'gpu'"):
        load_hosts(path, "gpus")
    with pytest.raises(InventoryError, match="The file has no groups"):
        load_hosts(write(tmp_path, "hosts: [n]"), "x")


@pytest.mark.row("H08")
def test_a_group_gives_each_entry_once_in_its_own_order(tmp_path: Path) -> None:
    path = write(tmp_path, "hosts: [a, b, c]\ngroups: {x: [c, a], y: [b, x], z: [x, y, a]}\n")
    assert [host.name for host in load_hosts(path, "z")] == ["c", "a", "b"]


@pytest.mark.row("H08")
def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="can't read the hosts file: No such file"):
        load_hosts(tmp_path / "none.yaml")
    (tmp_path / "bytes").write_bytes(b"hosts: [\xff]")
    with pytest.raises(InventoryError, match="is not UTF-8"):
        load_hosts(tmp_path / "bytes")


@pytest.mark.row("H08")
def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here, named = tmp_path / "home", tmp_path / "here", tmp_path / "named.yaml"
    (home / ".config/grid").mkdir(parents=True)
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("GRID_HOSTS", raising=False)
    monkeypatch.chdir(here)
    assert find_hosts_file() is None
    (home / ".config/grid/hosts.yaml").touch()
    assert find_hosts_file() == home / ".config/grid/hosts.yaml"
    (here / "hosts.yaml").touch()
    found = find_hosts_file()
    assert found is not None and found.resolve() == here / "hosts.yaml"
    monkeypatch.setenv("GRID_HOSTS", str(named))
    with pytest.raises(InventoryError, match="GRID_HOSTS"):
        find_hosts_file()
    named.touch()
    assert find_hosts_file() == named
