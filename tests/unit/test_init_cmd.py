"""The three forms of `init_cmd`, and the text that reaches a host's shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.hosts import compose_command
from grid.launch.shell import announced, find_python_script, remote_path, sh_command
from tests.lab import LOGIN_SHELLS, shell_path

SHELLS = ("sh", "bash", *LOGIN_SHELLS)


@pytest.mark.row("H06")
@pytest.mark.parametrize(
    ("init_cmd", "composed"),
    [
        ("", "python"),
        ("  \n", "python"),
        ("module load gcc;", "module load gcc; python"),
        ("module load gcc; ", "module load gcc; python"),
        ("export A='x;'", "export A='x;'; python"),
        (". ~/env/activate", ". ~/env/activate; python"),
        ("numactl -N 0 !", "numactl -N 0 python"),
        ("numactl -N 0!  ", "numactl -N 0 python"),
        ("A=1; nice !", "A=1; nice python"),
        ("!", "python"),
        (";", "; python"),
    ],
)
def test_the_last_character_decides(init_cmd: str, composed: str) -> None:
    assert compose_command(init_cmd, "python") == composed


@pytest.mark.row("H06")
def test_a_shell_does_what_was_meant() -> None:
    def result(init_cmd: str) -> str:
        text = compose_command(init_cmd, 'printf "%s" "$A"')
        return subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout

    assert result("A='one two'; export A;") == "one two"
    assert result("A='one two'; export A") == "one two"
    assert result("A=x; env -i !") == "x"


@pytest.mark.row("H06")
@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_the_interpreter_stays_as_it_is_at_the_end(init_cmd: str, interpreter: str) -> None:
    composed = compose_command(init_cmd, interpreter)
    assert composed.endswith(interpreter)
    rest = composed[: -len(interpreter)].strip()
    own = init_cmd.strip()
    assert rest in (own, own + ";", own[:-1].strip() if own.endswith("!") else own)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "it's",
        'a "b"',
        "x!y !! !$",
        "back\\slash \\' \\\\ \\n",
        "$HOME `id` $(id)",
        "two\nlines\n",
        "*? [a] {b,c} ~",
        "%s %b \\0101 %%",
        "#no; |&<>",
        "ü€\t",
    ],
)
def test_text_passes_any_login_shell(text: str, shell: str) -> None:
    """As sshd does it: the user's shell gets the command with -c."""
    shell = shell_path(shell)
    quoted = text.replace("'", "'\\''")
    command = sh_command(f"printf %s '{quoted}'")
    done = subprocess.run([shell, "-c", command], capture_output=True, check=True, timeout=20)
    assert done.stdout.decode() == text


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_any_text_passes_sh(text: str) -> None:
    quoted = text.replace("'", "'\\''")
    done = subprocess.run(["sh", "-c", sh_command(f"printf %s '{quoted}'")], capture_output=True, check=True)
    assert done.stdout.decode() == text


def test_an_announced_command_keeps_its_own_streams_and_status() -> None:
    text = sh_command(announced("cat; echo $$ >&2; exit 4"))
    done = subprocess.run(["sh", "-c", text], input=b"in", capture_output=True, check=False)
    first, second = done.stderr.decode().splitlines()
    assert (done.stdout, done.returncode, first) == (b"in", 4, f"grid-pid {second}")


@pytest.mark.parametrize(
    ("path", "word"),
    [("/a b", "'/a b'"), ("~", "~"), ("~/a b/c", "~/'a b/c'"), ("~mara/x", "~mara/x"), ("~$(id)/x", "'~$(id)/x'")],
)
def test_paths_on_the_host_keep_only_their_tilde_unquoted(path: str, word: str) -> None:
    assert remote_path(path) == word


@pytest.mark.row("H05")
def test_which_interpreter_is_taken(tmp_path: Path) -> None:
    def find(python: str = "python") -> str:
        text = f'{find_python_script(python, 11)}; printf %s "$PY"'
        environment = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}
        return subprocess.run(["/bin/sh", "-c", text], env=environment, capture_output=True, text=True).stdout

    def make(path: str) -> str:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o755)
        return str(place)

    assert find() == ""
    for path, found in [
        ("bin/python", "python"),
        ("bin/python3", "python3"),
        (".grid/env/py312/bin/python", f"{tmp_path}/.grid/env/py312/bin/python"),
        ("bin/python3.11", "python3.11"),
        (".grid/env/py311/bin/python", f"{tmp_path}/.grid/env/py311/bin/python"),
    ]:
        make(path)
        assert find() == found
    assert find("python3.9") == "python3.9"
    assert find("~/my env/bin/python") == f"{tmp_path}/my env/bin/python"
