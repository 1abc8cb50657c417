"""Which modules an object needs: whose they are, how far imports lead, and that what is found suffices."""

import ast
import os
import random
import subprocess
import sys
import tempfile
import textwrap
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.kernel.unpack import unpack
from grid.staging.imports import find_needs
from grid.staging.manifest import write_archive


def write(root, **sources):
    """`a__b="..."` makes a/b.py; three underscores at the end are those of __init__."""
    for name, source in sources.items():
        path = Path(root, name.replace("__", "/").replace("/init", "/__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def own(*modules):
    return {name: [file.relative for file in files] for name, files in find_needs(modules).own.items()}


@pytest.mark.row("F06")
def test_imports_are_followed_through_own_modules_only(project):
    write(
        project,
        model_x="import json, helper_x\nimport numpy.linalg as la",
        helper_x="def f():\n    from deeper_x import g\n    import yaml",
        deeper_x="import os.path, concurrent.futures\nfrom numpy import array",
        unrelated_x="",
    )
    needs = find_needs(["model_x"])
    assert set(needs.own) == {"model_x", "helper_x", "deeper_x"}
    assert needs.installed == {"numpy", "yaml"}
    assert needs.unknown == set()
    assert [file.relative for file in needs.files] == ["deeper_x.py", "helper_x.py", "model_x.py"]
    assert needs.files[0].source == project / "deeper_x.py"
    assert "model_x" not in sys.modules  # found, not imported


def test_a_package_travels_as_its_whole_tree(project):
    write(
        project,
        pack_x__init="from . import one",
        pack_x__one="from .sub import two as renamed",
        pack_x__sub__init="",
        pack_x__sub__two="from ...elsewhere_x import gone\nfrom ..one import thing\nimport side_x",
        pack_x__plugins__by_name="import not_looked_at_x",
        side_x="",
    )
    (project / "pack_x/data.txt").write_text("read from beside the code")
    (project / "pack_x/.hidden").write_text("the user's own")
    write(project / "pack_x/.venv/lib/site-packages", big="")
    assert own("pack_x.one") == {
        "pack_x": [
            *("pack_x/__init__.py", "pack_x/one.py", "pack_x/plugins/by_name.py"),
            *("pack_x/sub/__init__.py", "pack_x/sub/two.py", "pack_x/data.txt"),
        ],
        "side_x": ["side_x.py"],
    }


def test_relative_imports_with_and_without_a_module(project):
    write(project, rel_x__init="", rel_x__a="from . import b, VALUE\nfrom .c import *", rel_x__b="import rb_x",
          rel_x__c="import rc_x", rb_x="", rc_x="")  # fmt: skip
    assert set(own("rel_x.a")) == {"rel_x", "rb_x", "rc_x"}


def test_namespace_packages_give_the_parts_that_are_needed(project):
    write(project, space_x__wanted__init="", space_x__wanted__deep="", space_x__single="", space_x__other__init="")
    write(project, user_x="import space_x.wanted\nfrom space_x import single")
    assert own("user_x") == {
        "user_x": ["user_x.py"],
        "space_x.wanted": ["space_x/wanted/__init__.py", "space_x/wanted/deep.py"],
        "space_x.single": ["space_x/single.py"],
    }


def test_optional_imports_are_no_error(project):
    write(
        project,
        opt_x="""
            import sys, contextlib
            from typing import TYPE_CHECKING
            try:
                import numpy, missing1_x
            except ImportError:
                import missing2_x
            try:
                import own_opt_x
            except (ValueError, ModuleNotFoundError):
                pass
            with contextlib.suppress(ImportError):
                import missing3_x
            if sys.version_info >= (3, 99):
                import missing4_x
            if TYPE_CHECKING:
                import missing5_x
            else:
                import own_else_x
            if __name__ == "__main__":
                import missing6_x, paramiko
        """,
        own_opt_x="import click",
        own_else_x="",
    )
    needs = find_needs(["opt_x"])
    assert set(needs.own) == {"opt_x", "own_opt_x", "own_else_x"}
    assert needs.installed == set()
    assert needs.unknown == set()
    assert {"numpy", "click"} <= needs.optional


def test_what_is_needed_somewhere_is_not_optional(project):
    write(project, both_x="try:\n import m_x\nexcept ImportError: pass\nimport n_x")
    write(project, n_x="import m_x", m_x="import numpy")
    needs = find_needs(["both_x"])
    assert needs.installed == {"numpy"}
    assert needs.optional == set()


def test_missing_modules_are_reported(project):
    write(project, lost_x="import nowhere_x.sub\ntry:\n    import away_x\nexcept ValueError:\n    pass")
    assert find_needs(["lost_x"]).unknown == {"nowhere_x", "away_x"}
    assert find_needs(["never_was_x"]).unknown == {"never_was_x"}


def test_imports_by_call_with_a_constant_name(project):
    write(project, call_x="import importlib\nm = importlib.import_module('called_x')\nn = __import__('called2_x')",
          called_x="", called2_x="")  # fmt: skip
    assert set(own("call_x")) == {"call_x", "called_x", "called2_x"}


def test_modules_that_are_not_the_users_need_no_files():
    assert find_needs(["json", "os.path", "sys", "numpy.linalg", "grid.errors"]).own == {}
    assert find_needs(["json", "os.path", "sys", "grid.errors"]).installed == set()
    assert find_needs(["numpy.linalg"]).installed == {"numpy"}
    assert find_needs(["grid.errors"], provided=()).own.keys() == {"grid"}  # an editable install


def test_what_pip_put_into_a_folder_is_installed(project):
    write(project, target_x__init="", target_x__target_x="", edited_x="import target_x.target_x")
    record = project / "target_x-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: target_x\nVersion: 1.0\n")
    (record / "RECORD").write_text("target_x/__init__.py,,\ntarget_x/target_x.py,,\n")
    egg = project / "edited_x.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: edited_x\nVersion: 1.0\n")
    (egg / "SOURCES.txt").write_text("edited_x.py\n")
    needs = find_needs(["edited_x"])
    assert set(needs.own) == {"edited_x"}
    assert needs.installed == {"target_x"}


def test_editable_installs_with_a_finder_of_their_own(tmp_path, monkeypatch):
    write(tmp_path / "odd place", code__init="", code__part="")

    class Finder:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            from importlib.util import spec_from_file_location

            if name == "mapped_x":
                return spec_from_file_location(name, tmp_path / "odd place/code/__init__.py")
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert own("mapped_x.part") == {"mapped_x": ["mapped_x/__init__.py", "mapped_x/part.py"]}


def test_sources_of_another_python_and_other_encodings(project):
    (project / "latin_x.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'Größe'\nimport after_x".encode("latin-1"))
    write(project, after_x="print 'Python 2'", deep_x="x = " + " + ".join(["1"] * 900) + "\nimport after_x")
    assert set(own("latin_x")) == {"latin_x", "after_x"}
    assert set(own("deep_x")) == {"deep_x", "after_x"}


def test_circles_end(project):
    write(project, egg_x="import hen_x", hen_x="import egg_x, hen_x")
    assert set(own("hen_x")) == {"egg_x", "hen_x"}


def test_extension_modules_in_a_source_tree(project):
    write(project, built_x__init="from . import fast, absent")
    suffix = __import__("importlib.machinery").machinery.EXTENSION_SUFFIXES[0]
    (project / f"built_x/fast{suffix}").write_bytes(b"\x7fELF")
    assert own("built_x") == {"built_x": ["built_x/__init__.py", f"built_x/fast{suffix}"]}


def test_main_is_read_but_does_not_travel(project):
    write(project, script_x="from .near_x import f\nimport beside_x", beside_x="")
    main = types.ModuleType("__main__")
    main.__file__ = str(project / "script_x.py")
    assert own(main) == {"beside_x": ["beside_x.py"]}


def test_main_typed_in_gives_the_modules_that_it_holds(project):
    write(project, held_x="import under_x\nclass C: pass", under_x="")
    import held_x

    for held in ({"h": held_x}, {"C": held_x.C}):
        main = types.ModuleType("__main__")
        main.__dict__.update(held)
        assert set(own(main)) == {"held_x", "under_x"}


def test_a_module_object_that_was_loaded_by_hand(tmp_path):
    import importlib.util

    write(tmp_path, loose_x="import numpy")
    spec = importlib.util.spec_from_file_location("loose_x", tmp_path / "loose_x.py")
    module = importlib.util.module_from_spec(spec)
    needs = find_needs([module])
    assert [file.relative for file in needs.files] == ["loose_x.py"]
    assert needs.installed == {"numpy"}


# What is always true: after staging what was found, the module can be imported where nothing else is.


@pytest.mark.row("F06")
@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_found_suffices(seed):
    chance = random.Random(seed)
    names = [f"mod{i}" for i in range(4)] + [f"pk{i}.m{j}" for i in range(2) for j in range(3)] + ["nsp.a", "nsp.b"]
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        for i, name in enumerate(names):
            lines = ["import json"]
            for other in chance.sample(names[i + 1 :], min(2, len(names) - i - 1)):
                head, _, tail = other.rpartition(".")
                plain, parted = f"import {other}", f"from {head} import {tail}"
                lines.append(chance.choice([plain, parted]) if head else plain)
            path = Path(here, *name.split(".")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
        for package in ("pk0", "pk1"):
            Path(here, package, "__init__.py").write_text(f"from . import m{chance.randrange(3)}\n")
        code = f"import sys; sys.path.insert(0, {here!r})\nfrom grid.staging.imports import find_needs\n"
        code += "for f in find_needs(['mod0']).files: print(f.relative)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for relative in found.stdout.split():
            Path(there, relative).parent.mkdir(parents=True, exist_ok=True)
            Path(there, relative).write_text(Path(here, relative).read_text())
        run = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {there!r}); import mod0"]
        subprocess.run(run, check=True)


@pytest.mark.row("F06", "F02")
def test_from_find_to_import_on_the_other_side(project, tmp_path_factory):
    write(project, whole_x__init="from .core import VALUE", leaf_x="VALUE = 7")
    write(project, whole_x__core="import leaf_x\nVALUE = leaf_x.VALUE")
    host = tmp_path_factory.mktemp("host")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as sink:
        write_archive(find_needs(["whole_x"]).files, sink)
        sink.close()
        unpack(source, host)
    code = f"import sys; sys.path.insert(0, {str(host)!r}); import whole_x; print(whole_x.VALUE)"
    answer = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(answer.stdout) == 7
