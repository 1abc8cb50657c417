"""Whether a pending job can start: its service is here, as it was, or can't come any more."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import Service
from grid.jobs.manager.book import Book
from grid.jobs.manager.fitting import Fitting
from grid.jobs.manager.registry import ServiceRegistry
from grid.jobs.modules.install import SERVICE as INSTALL
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState
from tests.unit.shelf import book_of, record


class Fit(Service):
    service = "fits.Fit"
    version = "1"


def fitting_of(directory: Path, *records: JobRecord) -> tuple[Fitting, Book, ServiceRegistry]:
    book, _ = book_of(directory, *records)
    registry = ServiceRegistry()
    return Fitting(book, registry), book, registry


def install(number: int, state: JobState, **values: Any) -> JobRecord:
    made = record(number, state, **values)
    made.service, made.request = INSTALL, {**made.request, "data": {"name": "fits"}}
    return made


def after(number: int) -> dict[str, Any]:
    return {"atom": "completed", "id": "a", "job": f"job-{number}"}


@pytest.mark.row("J06")
def test_a_job_whose_service_is_not_here_says_what_it_waits_for(tmp_path: Path) -> None:
    fitting, book, registry = fitting_of(tmp_path, record(1))
    with book.lock:
        why = fitting.why_not(book.record("job-1"))
        assert why == "waits until the service fits.Fit 1 is registered"
        assert book.record("job-1").state is JobState.PENDING
        registry.add(Fit)
        assert fitting.why_not(book.record("job-1")) == ""


@pytest.mark.row("C32")
def test_a_job_whose_installed_module_has_no_such_service_is_cancelled_with_what_it_has(tmp_path: Path) -> None:
    done = install(1, JobState.COMPLETE, result={"name": "fits", "services": {"mara/fits.Other": "3"}})
    fitting, book, _ = fitting_of(tmp_path, done, record(2, condition=after(1)))
    fitting.came_early("job-2", None)
    with book.lock:
        assert fitting.why_not(book.record("job-2")) == "cancelled"
    late = book.record("job-2")
    assert late.state is JobState.CANCELLED
    assert late.reason == "job-1 installed fits, which has no service fits.Fit 1, but mara/fits.Other 3"


@pytest.mark.row("C32")
def test_the_job_that_brings_a_service_is_the_one_that_the_condition_names_or_ones_own(tmp_path: Path) -> None:
    fitting, _, _ = fitting_of(
        tmp_path, install(1, JobState.COMPLETE), install(2, JobState.ACTIVE), install(3, JobState.WAITING, owner="ole")
    )
    assert fitting.installing("mara", "fits.Fit", None) == "job-2"
    assert fitting.installing("ole", "ole/fits.Fit", None) == "job-3"
    assert fitting.installing("lea", "fits.Fit", after(1)) == "job-1", "also one that has ended"
    assert fitting.installing("mara", "fits.Fit", after(1)) == "job-2", "the newest of these"
    assert fitting.installing("mara", "other.Fit", None) is None
    assert fitting.installing("lea", "fits.Fit", None) is None


@pytest.mark.row("S08")
def test_jobs_of_a_file_that_was_edited_wait_until_it_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from grid.jobs import Service\n\nclass Fit(Service):\n    service = 'fits.Fit'\n    version = '1'\n"
    path = tmp_path / "fits_edited.py"
    path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("fits_edited")
    monkeypatch.delitem(sys.modules, "fits_edited")
    monkeypatch.setitem(sys.modules, "fits_edited", module)
    fitting, book, registry = fitting_of(tmp_path, record(1))
    registry.add(module.Fit)
    with book.lock:
        assert fitting.why_not(book.record("job-1")) == ""
        path.write_text(f"{text}\nEDITED = True\n")
        os.utime(path, ns=(1, 1))
        assert f"waits: {path} was edited after fits.Fit 1" in fitting.why_not(book.record("job-1"))
        assert fitting.mended() == []
        path.write_text(text)
        assert fitting.mended() == ["fits.Fit"] and fitting.mended() == []
        assert fitting.why_not(book.record("job-1")) == ""
