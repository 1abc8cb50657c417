"""Failed calls in files: the first ones, for their owner alone, and made again here."""

from __future__ import annotations

import stat
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from grid.errors import FailureFileError
from grid.failures import keeper
from grid.failures.keeper import Keeper, keeper_of
from grid.failures.reopen import Failure


class Model:
    def energy(self, x: float) -> float:
        return 1 / x


class Made(Future[Any]):
    method = "energy"


@pytest.mark.row("G47")
def test_a_call_that_fails_is_kept_and_can_be_made_again(tmp_path: Path) -> None:
    kept = Keeper(tmp_path / "failed")
    for error in (None, ZeroDivisionError("division by zero")):
        call = Made()
        kept.sent(call, Model(), (0.0,), {})
        call.set_exception(error) if error else call.set_result(1)
    (path,) = kept.kept
    assert path.name == "0001-energy-ZeroDivisionError.call" and stat.S_IMODE(path.stat().st_mode) == 0o600
    failure = Failure(path)
    assert (failure.name, failure.error) == ("energy", "ZeroDivisionError: division by zero")
    with pytest.raises(ZeroDivisionError):
        failure.run()
    assert str(tmp_path / "failed") in kept.hint()


@pytest.mark.row("G47")
def test_only_the_first_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "MOST", 2)
    kept = Keeper(tmp_path)
    for number in range(4):
        kept.failed(len, None, (number,), {}, TypeError(str(number)))
    assert [path.name for path in kept.kept] == ["0001-len-TypeError.call", "0002-len-TypeError.call"]


@pytest.mark.row("G47")
def test_it_is_off_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRID_KEEP_FAILURES", raising=False)
    assert keeper_of(None) is None
    monkeypatch.setenv("GRID_KEEP_FAILURES", str(tmp_path))
    made = keeper_of(None)
    assert made is not None and made.directory == tmp_path
    (tmp_path / "other.call").write_bytes(b"nothing of ours")
    with pytest.raises(FailureFileError):
        Failure(tmp_path / "other.call")
