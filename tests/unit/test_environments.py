"""What an environment is: words, lock files, requirements, and the wheel that fits a host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.environments.fetching import errors_of
from grid.environments.fitting import Offered, PinnedPackage, Wheel, choose, name_of
from grid.environments.locks import read_lock
from grid.environments.states import GIT_ADDRESS, SourceStates
from grid.environments.target import Target
from grid.environments.uvpython import newest_of
from grid.environments.wanted import logical_lines, parts_of, read_requirements, wanted
from grid.errors import PackagesError
from grid.grids.packages import Packages
from grid.hosts import Host, load_hosts


def target(python: str = "3.12", libc: tuple[str, str] = ("glibc", "2.28"), machine: str = "x86_64") -> Target:
    major, minor = python.split(".")
    markers = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "implementation_version": f"{python}.1",
        "platform_release": "6.1",
        "platform_version": "#1",
    }
    return Target.of(
        {
            "version": [int(major), int(minor), 1],
            "cache_tag": f"cpython-{major}{minor}",
            "platform": f"linux-{machine}",
            "libc": list(libc),
            "markers": markers,
        }
    )


def pinned(*tags: str) -> PinnedPackage:
    return PinnedPackage("numpy", "2.1", tuple(Offered(f"numpy-2.1-{tag}.whl") for tag in tags))


MANY = (
    "cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64",
    "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
    "cp312-cp312-manylinux_2_34_x86_64",
    "cp312-cp312-musllinux_1_2_x86_64",
    "cp312-cp312-macosx_14_0_arm64",
    "cp312-cp312-manylinux_2_17_aarch64",
)


@pytest.mark.row("W02")
@pytest.mark.parametrize(
    ("there", "tag"),
    [
        (target(), MANY[1]),
        (target(libc=("glibc", "2.35")), MANY[2]),
        (target("3.10"), MANY[0]),
        (target(libc=("", "")), MANY[3]),
        (target(machine="aarch64"), MANY[5]),
    ],
)
def test_the_wheel_that_fits_best_is_chosen(there: Target, tag: str) -> None:
    assert choose(pinned(*MANY), there).filename == f"numpy-2.1-{tag}.whl"
    assert choose(pinned(*reversed(MANY)), there).filename == f"numpy-2.1-{tag}.whl"


@pytest.mark.row("W02")
def test_a_stable_abi_fits_later_versions_and_pure_code_fits_all() -> None:
    assert choose(pinned("cp39-abi3-manylinux2014_x86_64"), target("3.13"))
    assert choose(pinned("py3-none-any"), target("3.10", machine="riscv64"))
    own, pure = "cp312-cp312-manylinux2014_x86_64", "py3-none-any"
    assert choose(pinned(pure, own), target()).filename == f"numpy-2.1-{own}.whl"


@pytest.mark.row("W03")
def test_where_no_wheel_fits_package_version_and_the_tags_that_exist_are_named() -> None:
    with pytest.raises(PackagesError) as caught:
        choose(pinned(*MANY), target("3.13"))
    error = caught.value
    assert (error.package, error.version) == ("numpy", "2.1")
    assert "no wheel of numpy 2.1 fits Python 3.13 (linux-x86_64, glibc 2.28)" in str(error)
    assert MANY[1] in str(error) and "pip wheel numpy==2.1" in error.hint


TAGS = st.sampled_from([*MANY, "py3-none-any", "cp39-abi3-manylinux2014_x86_64", "py2-none-any"])
TARGETS = st.builds(
    target,
    st.sampled_from(["3.10", "3.11", "3.12", "3.13", "3.14"]),
    st.sampled_from([("glibc", "2.17"), ("glibc", "2.28"), ("glibc", "2.39"), ("", "")]),
    st.sampled_from(["x86_64", "aarch64"]),
)


@pytest.mark.row("W02")
@given(st.lists(TAGS, unique=True), TARGETS)
def test_a_chosen_wheel_fits_and_no_other_fits_better(tags: list[str], there: Target) -> None:
    try:
        chosen = choose(pinned(*tags), there)
    except PackagesError:
        assert all(_rank(tag, there) is None for tag in tags)
        return
    ranks = [rank for tag in tags if (rank := _rank(tag, there)) is not None]
    assert _rank(chosen.filename.removeprefix("numpy-2.1-").removesuffix(".whl"), there) == min(ranks)


def _rank(tag: str, there: Target) -> int | None:
    from packaging.tags import parse_tag

    return min((there.tags[each] for each in parse_tag(tag) if each in there.tags), default=None)


WHEELS = st.lists(
    st.builds(
        Wheel,
        st.builds("{}-{}-py3-none-any.whl".format, st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.integers(0, 9)),
        st.sampled_from(["a" * 64, "b" * 64]),
        st.just(1),
    ),
    unique=True,
)


@pytest.mark.row("W01")
@given(WHEELS, st.randoms())
def test_the_same_wheels_in_any_order_have_the_same_name_and_others_have_another(wheels: list[Wheel], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(wheels)
    random.shuffle(shuffled)
    assert name_of(wheels, "3.12.1 /usr/bin/python3") == name_of(shuffled, "3.12.1 /usr/bin/python3")
    assert name_of(wheels, "3.12.1 /usr/bin/python3") != name_of(wheels, "3.12.2 /usr/bin/python3")
    changed = [*wheels, Wheel("zzzzz-1-py3-none-any.whl", "c" * 64, 1)]
    assert name_of(changed, "") != name_of(wheels, "")


# ---- lock files ----------------------------------------------------------------------------------------------

PYLOCK = """
lock-version = "1.0"
created-by = "test"
requires-python = ">=3.10"
[[packages]]
name = "numpy"
version = "2.1"
wheels = [
  {url = "https://x.invalid/numpy-2.1-cp312-cp312-manylinux2014_x86_64.whl", hashes = {sha256 = "aa"}},
  {name = "numpy-2.1-cp310-cp310-manylinux2014_x86_64.whl", path = "w/numpy.whl", hashes = {sha256 = "bb"}},
]
[[packages]]
name = "tomli"
version = "2.0"
marker = "python_version < '3.11'"
wheels = [{url = "https://x.invalid/tomli-2.0-py3-none-any.whl", hashes = {sha256 = "cc"}}]
[[packages]]
name = "ours"
directory = {path = "../ours", editable = true}
[[packages]]
name = "theirs"
vcs = {type = "git", url = "https://x.invalid/theirs.git", commit-id = "abc"}
"""

UV = """
version = 1
requires-python = ">=3.10"
[[package]]
name = "project"
version = "0.1"
source = { virtual = "." }
dependencies = [
  { name = "numpy", version = "2.1", source = { registry = "x" }, marker = "python_full_version < '3.11'" },
  { name = "numpy", version = "2.3", source = { registry = "x" }, marker = "python_full_version >= '3.11'" },
  { name = "plot", extra = ["fast"] },
  { name = "winonly", marker = "sys_platform == 'win32'" },
]
[[package]]
name = "numpy"
version = "2.1"
source = { registry = "x" }
wheels = [{ url = "https://x.invalid/numpy-2.1-cp310-cp310-manylinux2014_x86_64.whl", hash = "sha256:aa" }]
[[package]]
name = "numpy"
version = "2.3"
source = { registry = "x" }
wheels = [{ url = "https://x.invalid/numpy-2.3-cp312-cp312-manylinux2014_x86_64.whl", hash = "sha256:bb" }]
[[package]]
name = "plot"
version = "1"
source = { git = "https://x.invalid/plot.git?rev=main#abc" }
[package.optional-dependencies]
fast = [{ name = "quick" }]
[[package]]
name = "quick"
version = "3"
source = { editable = "libs/quick" }
[[package]]
name = "winonly"
version = "1"
source = { registry = "x" }
[[package]]
name = "dev"
version = "1"
source = { registry = "x" }
"""


def by_name(found: list[PinnedPackage]) -> dict[str, PinnedPackage]:
    return {each.name: each for each in found}


@pytest.mark.row("W01")
def test_a_pylock_gives_what_applies_to_the_host() -> None:
    found = by_name(read_lock(PYLOCK, "/p/lock/pylock.toml", target("3.12")))
    assert list(found) == ["numpy", "ours", "theirs"]
    assert choose(found["numpy"], target("3.12")).sha256 == "aa"
    assert Path(found["ours"].source).resolve() == Path("/p/ours")
    assert found["theirs"].source == "theirs @ git+https://x.invalid/theirs.git@abc"
    older = by_name(read_lock(PYLOCK, "/p/lock/pylock.toml", target("3.10")))
    assert "tomli" in older
    chosen = choose(older["numpy"], target("3.10"))
    assert (chosen.sha256, chosen.url) == ("bb", "/p/lock/w/numpy.whl")


@pytest.mark.row("W01")
def test_a_uv_lock_is_walked_from_its_root_with_the_markers_of_the_host() -> None:
    found = by_name(read_lock(UV, "/p/uv.lock", target("3.12")))
    assert set(found) == {"numpy", "plot", "quick"}
    assert found["numpy"].version == "2.3" and found["numpy"].wheels[0].sha256 == "bb"
    assert found["plot"].source == "plot @ git+https://x.invalid/plot.git@abc"
    assert found["quick"].source == "/p/libs/quick"
    assert by_name(read_lock(UV, "/p/uv.lock", target("3.10")))["numpy"].version == "2.1"


@pytest.mark.row("W03")
@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ('lock-version = "2.0"\n', "pylock.toml", "version 2.0, and 1.x is known"),
        ("", "pylock.toml", "version None"),
        ("version = 7\n", "uv.lock", "version 7, and 1 is known"),
        ("not toml", "uv.lock", "is not TOML"),
        ('lock-version = "1.0"\nrequires-python = ">=3.13"\n', "pylock.toml", "is for Python >=3.13"),
        ('lock-version = "1.0"\n[[packages]]\nversion = "1"\n', "pylock.toml", "lacks 'name'"),
        (
            'lock-version = "1.0"\n[[packages]]\nname = "x"\n'
            'wheels = [{path = "x-1-py3-none-any.whl", hashes = {md5 = "a"}}]\n',
            "pylock.toml",
            "lacks 'sha256'",
        ),
        ('lock-version = "1.0"\npackages = 3\n', "pylock.toml", "is not as its format says"),
        ('lock-version = "1.0"\n[[packages]]\nname = "x"\nmarker = "?"\n', "pylock.toml", "is not as its format"),
    ],
)
def test_a_lock_file_that_can_not_be_used_is_refused_with_its_name(text: str, name: str, says: str) -> None:
    with pytest.raises(PackagesError, match=re.escape(says)) as caught:
        read_lock(text, f"/p/{name}", target())
    assert f"/p/{name}" in str(caught.value) and caught.value.hint


# ---- words and requirements ----------------------------------------------------------------------------------


@pytest.mark.row("W01")
def test_words_mean_what_is_here_or_a_file(tmp_path: Path) -> None:
    assert wanted("here").kind == "here"
    for name, kind in (("requirements.txt", "requirements"), ("pylock.gpu.toml", "lock"), ("uv.lock", "lock")):
        (tmp_path / name).touch()
        found = wanted(name, tmp_path)
        assert (found.kind, found.path) == (kind, str(tmp_path / name))


@pytest.mark.row("W03")
@pytest.mark.parametrize("word", ["nowhere.txt", ".", "pyproject.toml", "env.yml"])
def test_a_word_that_names_nothing_of_use_is_refused(word: str, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "env.yml", "uv.lock"):
        (tmp_path / name).touch()
    with pytest.raises(PackagesError, match="environment: ") as caught:
        wanted(word, tmp_path)
    assert "uv.lock" in caught.value.hint


@pytest.mark.row("W01")
def test_requirements_are_read_with_the_files_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "# all\nnumpy >= 2 \\\n  , < 3  # two\n-r more/base.txt\n-c limits.txt\n-e ./ours[fast]\n"
        "--extra-index-url https://x.invalid/simple\ntheirs @ git+https://x.invalid/t.git@abc\nscipy#no comment\n"
    )
    (tmp_path / "more/base.txt").write_text("dill==0.4\n./local.whl\n")
    (tmp_path / "limits.txt").write_text("scipy<2\n")
    found = read_requirements(tmp_path / "requirements.txt")
    option = "--extra-index-url https://x.invalid/simple"
    assert [" ".join(line.split()) for line in found.lines] == [
        "numpy >= 2 , < 3",
        "dill==0.4",
        option,
        "scipy#no comment",
    ]
    assert found.constraints == ("scipy<2",)
    assert found.sources == (
        *(f"{tmp_path}/more/local.whl", f"{tmp_path}/ours[fast]"),
        "theirs @ git+https://x.invalid/t.git@abc",
    )


@pytest.mark.row("W01")
@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("/p/ours", ("/p/ours", "", "")),
        ("/p/my ours[fast, x];python_version<'3.11'", ("/p/my ours", "[fast, x]", "python_version<'3.11'")),
        (
            "t[a] @ git+https://x.invalid/t ; os_name == 'nt'",
            ("t[a] @ git+https://x.invalid/t", "[a]", "os_name == 'nt'"),
        ),
        ("git+https://x.invalid/t@abc", ("git+https://x.invalid/t@abc", "", "")),
    ],
)
def test_a_source_is_taken_apart(source: str, parts: tuple[str, str, str]) -> None:
    assert parts_of(source) == parts


@pytest.mark.row("W03")
def test_files_of_requirements_that_name_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r a.txt\n")
    with pytest.raises(PackagesError, match="name each other"):
        read_requirements(tmp_path / "a.txt")


@pytest.mark.row("W01")
@given(st.text(alphabet="ab =<>#\\\n\t-", max_size=60))
def test_no_text_breaks_the_reading_of_lines(text: str) -> None:
    for line in logical_lines(text):
        assert line == line.strip() and line and "\n" not in line


# ---- where the word is said --------------------------------------------------------------------------------------


@pytest.mark.row("W06")
def test_the_entry_of_a_host_comes_before_the_argument_and_that_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRID_ENVIRONMENT", raising=False)
    assert Packages(None).word_for(Host("n")) == "none"
    monkeypatch.setenv("GRID_ENVIRONMENT", "here")
    assert Packages(None).word_for(Host("n")) == "here"
    assert Packages("a.txt").word_for(Host("n")) == str(tmp_path / "a.txt")
    assert Packages("a.txt").word_for(Host("n", environment="here")) == "here"
    assert Packages("a.txt").word_for(Host("n", environment="none")) == "none"
    assert Packages("here").word_for(Host("localhost", ssh="local")) == "none", "it is what is here already"
    assert Packages(None).word_for(Host("n", environment="none", python_archive="p.tar.gz")) == ""


@pytest.mark.row("W06")
def test_paths_in_a_hosts_file_begin_in_its_directory(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text(
        "defaults: {environment: here}\nhosts:\n  - a\n"
        "  - {name: b, environment: env/r.txt, python_archive: p.tar.gz}\n"
        "  - {name: c, environment: none}\n  - {name: d, python_archive: 'uv:3.12'}\n"
    )
    a, b, c, d = load_hosts(tmp_path / "hosts.yaml")
    assert d.python_archive == "uv:3.12"
    assert (a.environment, c.environment) == ("here", "none")
    assert (b.environment, b.python_archive) == (f"{tmp_path}/env/r.txt", f"{tmp_path}/p.tar.gz")


@pytest.mark.row("W03")
def test_variables_and_packages_that_are_mixed_up_are_told_apart() -> None:
    with pytest.raises(ValueError, match="packages are named by environment:"):
        Host("n", env="here")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="variables go to env:"):
        Host("n", environment={"A": "1"})  # type: ignore[arg-type]
    with pytest.raises(PackagesError, match="no file here"):
        Packages("nowhere.txt")


@pytest.mark.row("W06")
def test_the_command_line_names_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.txt").write_text("numpy\n")
    script = tmp_path / "s.py"
    script.write_text("import os\nprint(os.environ['GRID_ENVIRONMENT'])\n")
    command = [sys.executable, "-m", "grid", "run", "--local", "1", "--environment"]
    done = subprocess.run([*command, "requirements.txt", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == f"{tmp_path}/requirements.txt\n", done.stderr
    done = subprocess.run([*command, "pyproject.toml", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "'pyproject.toml' is no file here" in done.stderr
    command = [sys.executable, "-m", "grid", "qsub", "--dry-run", "--dialect", "torque", "--environment", "here"]
    done = subprocess.run([*command, "--", "python", script], capture_output=True, text=True, cwd=tmp_path)
    assert "GRID_ENVIRONMENT" in done.stdout and "here" in done.stdout, done.stderr


@pytest.mark.row("W07")
def test_of_what_uv_has_the_newest_release_of_a_version_for_the_platform_is_taken() -> None:
    """Names as `uv python list` writes them."""
    names = [
        *("cpython-3.12.4-linux-x86_64-gnu", "cpython-3.12.13-linux-x86_64-gnu", "cpython-3.12.14-linux-x86_64-musl"),
        *(
            "cpython-3.13.1+freethreaded-linux-x86_64-gnu",
            "cpython-3.1.9-linux-x86_64-gnu",
            "pypy-3.12.9-linux-x86_64-gnu",
        ),
        *("cpython-3.12-linux-x86_64-gnu", "cpython-3.12.15-macos-aarch64-none", ".lock"),
    ]
    assert newest_of(names, "3.12", "linux-x86_64-gnu") == "cpython-3.12.13-linux-x86_64-gnu"
    assert newest_of(names, "3.12.4", "linux-x86_64-gnu") == "cpython-3.12.4-linux-x86_64-gnu"
    assert newest_of(names, "3.12", "macos-aarch64-none") == "cpython-3.12.15-macos-aarch64-none"
    assert newest_of(names, "3.13", "linux-x86_64-gnu") is None
    with pytest.raises(ValueError, match="'uv:new' names no version of Python"):
        Host("n", python_archive="uv:new")


@pytest.mark.row("W01")
@pytest.mark.parametrize(
    ("source", "repository", "name"),
    [  # as pip's documentation of VCS support writes them
        ("MyProject @ git+ssh://git@git.example.com/MyProject", "ssh://git@git.example.com/MyProject", None),
        ("git+file:///home/user/projects/MyProject", "file:///home/user/projects/MyProject", None),
        ("MyProject @ git+https://git.example.com/MyProject.git@v1.0", "https://git.example.com/MyProject.git", "v1.0"),
        (
            "git+https://git.example.com/My.git@refs/pull/123/head#egg=x",
            "https://git.example.com/My.git",
            "refs/pull/123/head",
        ),
        ("git+https://u:p@h.org/a/b@f/x ; python_version < '3'", "https://u:p@h.org/a/b", "f/x"),
    ],
)
def test_an_address_of_a_repository_and_what_is_wanted_of_it(source: str, repository: str, name: str | None) -> None:
    found = GIT_ADDRESS.search(source)
    assert found is not None and found.groups() == (repository, name)


def test_a_branch_is_looked_at_once_so_that_the_key_and_the_wheel_mean_one_commit(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=u", "-c", "user.email=u@example.org", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "first")
    first = git("rev-parse", "HEAD")
    git("tag", "-a", "v1", "-m", "a tag with words of its own is no commit")
    states, source = SourceStates(), f"x[a] @ git+file://{tmp_path}@main#egg=x ; os_name == 'posix'"
    before = states.of(source)
    git("commit", "-q", "--allow-empty", "-m", "second")
    assert states.of(source) == before and first in before
    assert states.pinned(source) == source.replace("@main", f"@{first}")
    assert SourceStates().pinned(source) == source.replace("@main", f"@{git('rev-parse', 'HEAD')}")
    assert states.pinned(f"git+file://{tmp_path}@v1") == f"git+file://{tmp_path}@{first}"
    assert states.pinned(f"git+file://{tmp_path}").endswith(f"@{git('rev-parse', 'HEAD')}")
    for other in ("numpy==2", f"git+file://{tmp_path}@nobody", str(tmp_path)):
        assert states.pinned(other) == other


@pytest.mark.row("W03")
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (  # uv 0.13
            "error: No solution found when resolving dependencies\n  cause: Because numpy==2.4.6 has no usable wheels "
            "and you require numpy==2.4.6, we can conclude that your requirements are unsatisfiable.\n\nhint: "
            "Wheels are required for `numpy`\n",
            "error: No solution found when resolving dependencies cause: Because numpy==2.4.6 has no usable wheels and "
            "you require numpy==2.4.6, we can conclude that your requirements are unsatisfiable.",
        ),
        (  # uv 0.8
            "  × No solution found when resolving dependencies:\n  ╰─▶ Because nobody was not found in the package\n"
            "      registry and you require nobody, we can conclude that your\n      requirements are unsatisfiable.\n",
            "× No solution found when resolving dependencies: ╰─▶ Because nobody was not found in the package registry "
            "and you require nobody, we can conclude that your requirements are unsatisfiable.",
        ),
        (  # pip 23
            "WARNING: Location is ignored\nERROR: Cannot install a==1 because of conflicts.\nERROR: "
            "ResolutionImpossible: for help visit pip's pages\n",
            "ERROR: Cannot install a==1 because of conflicts.",
        ),
        ("something else\n", "something else"),
        ("", ""),
    ],
)
def test_what_uv_and_pip_say_of_an_error_is_told_whole_and_without_advice(said: str, told: str) -> None:
    assert errors_of(said) == told
