"""Files and modules on their way to hosts: what arrives, what is said, what is not sent twice."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import Host, LocalGrid, MissingModules, PublishError, SSHGrid, StagingError
from grid.errors import HostError
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, text in {
        "top.py": "WHERE = 'top'\n",
        "data/a b.txt": "blank",
        "data/deep/er/c.txt": "deep",
        "other/data/d.txt": "not below data",
        "data/cns/x.txt": "excluded",
        "lib/mod.py": "VALUE = 41\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def local() -> Iterator[LocalGrid]:
    with LocalGrid(1, output=None) as g:
        yield g


@pytest.mark.row("F01", "F02", "F03", "F05", "F11", "F14", "G26")
def test_chosen_files_arrive_in_their_structure(local: LocalGrid, tree: Path) -> None:
    before = os.getcwd()
    report = local.copy_files(tree, ["data/*.txt"])
    assert os.getcwd() == before
    assert report.files == {"data": ["a b.txt"], "data/deep/er": ["c.txt"]}
    assert (report.sent, report.skipped, report.bytes) == ({"localhost": 2}, {"localhost": 0}, 9)
    assert local.copied_files is report
    with local.acquire_service(local.publish(Probe())) as proxy:
        assert proxy.read("data/a b.txt").get(10) == "blank"
        assert proxy.read("data/deep/er/c.txt").get(10) == "deep"
        for absent in ("other/data/d.txt", "data/cns/x.txt"):
            with pytest.raises(FileNotFoundError):
                proxy.read(absent).get(10)


@pytest.mark.row("F04", "F06", "F15")
def test_staged_modules_can_be_imported_before_and_after_publish(local: LocalGrid, tree: Path) -> None:
    with local.acquire_service(local.publish(Probe())) as proxy:
        with pytest.raises(ModuleNotFoundError):
            proxy.import_and_get("top", "WHERE").get(10)
        local.copy_files(tree, ["*.py"])
        assert proxy.import_and_get("top", "WHERE").get(10) == "top"
        root = proxy.environment("GRID_ROOT").get(10)
        assert (root and sorted(os.listdir(root))[:2] == ["lib", "top.py"]) or "top.py" in os.listdir(root)
    with local.acquire_service(local.publish(Probe())) as proxy:
        assert proxy.import_and_get("top", "WHERE").get(10) == "top"


@pytest.mark.row("F13")
def test_what_is_there_unchanged_is_not_sent_again(local: LocalGrid, tree: Path) -> None:
    assert local.copy_files(tree, ["*"]).sent == {"localhost": 5}
    again = local.copy_files(tree, ["*"])
    assert (again.sent, again.skipped) == ({"localhost": 0}, {"localhost": 5})
    (tree / "data" / "a b.txt").write_text("other")
    assert local.copy_files(tree, ["*"]).sent == {"localhost": 1}
    with local.acquire_service(local.publish(Probe())) as proxy:
        assert proxy.read("data/a b.txt").get(10) == "other"


@pytest.mark.row("F09", "F10")
def test_what_matches_nothing_or_lies_outside_is_said(
    local: LocalGrid, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "grid"):
        local.copy_files(tree, ["*.nothing"])
    assert "'*.nothing' matched nothing" in caplog.text
    with pytest.raises(StagingError, match=r"\*\.nothing"):
        local.copy_files(tree, ["*.nothing"], strict=True)
    assert local.copy_files(tree, [str(tree / "top.py")]).files == {"": ["top.py"]}
    with pytest.raises(StagingError):
        local.copy_files(tree, ["/etc/hostname"])
    with pytest.raises(StagingError, match="not hosts of this grid: elsewhere"):
        local.copy_files(tree, ["*"], hosts="elsewhere")


@pytest.mark.row("F07")
def test_a_compiled_module_for_another_python_is_warned_of(local: LocalGrid, tree: Path) -> None:
    (tree / "fast.cpython-36m-sparc-linux-gnu.so").write_bytes(b"\0")
    (warning,) = local.copy_files(tree, ["*.so"]).warnings
    assert "fast.cpython-36m" in warning and "localhost" in warning


@pytest.mark.row("F11")
def test_many_files_arrive(local: LocalGrid, tmp_path: Path) -> None:
    for index in range(2000):
        (tmp_path / f"f {index}.txt").write_text(str(index))
    assert local.copy_files(tmp_path, ["*.txt"]).sent == {"localhost": 2000}
    with local.acquire_service(local.publish(Probe())) as proxy:
        assert proxy.read("f 1999.txt").get(10) == "1999"


@pytest.mark.row("G05", "G19", "G30", "G31", "H10")
def test_initialise_and_subroots_may_be_repeated(tree: Path) -> None:
    with LocalGrid(1, src_path=tree, output=None) as g:
        for _ in range(2):
            g.initialise(".", ["*.py"])
            g.create_subroot("out/deep")
        assert g.src_files == ["lib/mod.py", "top.py"]
        (place,) = g.temp_paths["localhost"]
        assert os.path.isdir(os.path.join(place, "src", "out", "deep"))
        with pytest.raises(HostError, match="leads out"):
            g.create_subroot("../../escape")
    assert not os.path.exists(place)


@pytest.fixture
def by_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    return lab


@pytest.mark.lab
@pytest.mark.row("G04", "F08")
def test_a_shared_directory_gets_one_copy_that_all_see_and_strangers_are_refused(by_lab: Lab, tree: Path) -> None:
    by_lab.hosts["s3"].run(["sh", "-c", "mkdir -m 1777 /shared"], user="root", check=True)
    hosts = [Host(name, "/shared/x") for name in ("s1", "s2", "s3")]
    with SSHGrid(hosts, shared_temp_path=True, output=None) as g:
        report = g.copy_files(tree, ["*.txt"])
        assert list(report.sent) == ["s1"]
        sid = g.publish(Probe(), wait="all", missing="ok")
        assert [server.host.name for server in g.servers[sid]] == ["s1", "s2"]
        assert "does not see" in str(g.failures["s3"]) and "'s1'" in str(g.failures["s3"])
        assert g.gather(g.broadcast(sid, "read", "data/a b.txt"), 20) == ["blank"] * 2
        g.release_all()
    by_lab.hosts["s1"].run(["rmdir", "/shared/x"])
    by_lab.hosts["s3"].run(["sh", "-c", "rm -rf /shared"], user="root")


@pytest.mark.lab
@pytest.mark.row("F01", "F13")
def test_one_host_can_be_chosen(by_lab: Lab, tree: Path) -> None:
    with SSHGrid(["s1", "s2"], output=None) as g:
        assert g.copy_files(tree, ["top.py"], hosts=g.hosts[1]).sent == {"s2": 1}
        assert g.copy_files(tree, ["top.py"]).sent == {"s1": 1, "s2": 0}


@pytest.mark.lab
@pytest.mark.row("F12")
def test_a_host_that_is_full_is_listed_and_the_others_have_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.bin").write_bytes(os.urandom(3_000_000))
    with Lab([LabHost("roomy"), LabHost("tiny", tmpfs={"/tiny": "size=1m,mode=1777"})]) as lab:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        with SSHGrid([Host("roomy"), Host("tiny", "/tiny")], output=None) as g:
            with pytest.raises(StagingError) as caught:
                g.copy_files(tmp_path, ["*.bin"])
            assert list(caught.value.failures) == ["tiny"] and "large.bin" in str(caught.value)
            with g.acquire_service(g.publish(Probe(), wait="all")):
                assert g._engine.fleet.homes[0].staged.keys() == {"large.bin"}


@pytest.mark.lab
@pytest.mark.row("G43", "F06")
def test_modules_of_ones_own_are_found_and_staged_by_themselves(
    by_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mine"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("from .core import Model\n")
    (package / "core.py").write_text(
        "from .parts import rules\nclass Model:\n"
        "    def run(self, x):\n        from . import late\n        return late.twice(rules.plus(x))\n"
    )
    (package / "parts" / "__init__.py").write_text("")
    (package / "parts" / "rules.py").write_text("def plus(x):\n    return x + 1\n")
    (package / "late.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine

    with SSHGrid(["s1", "s3"], output=None) as g:
        sid = g.publish(mine.Model(), wait="all")
        assert g.gather(g.broadcast(sid, "run", 4), 20) == [10, 10]
        g.release_all()


@pytest.mark.lab
@pytest.mark.row("G43", "H12")
def test_a_module_that_a_host_lacks_is_named_before_the_call(by_lab: Lab) -> None:
    import yaml

    with SSHGrid(["s1"], output=None) as g:
        with pytest.raises(PublishError, match="lacks yaml") as caught:
            g.publish(yaml.ScalarNode("tag", "value"))
        assert isinstance(caught.value.failures["s1"], MissingModules)
        with g.acquire_service(g.publish(Probe())) as proxy:
            with pytest.raises(MissingModules, match="yaml"):
                proxy.echo(yaml.ScalarNode("tag", "value"))
            assert proxy.add().get(10) == 1
