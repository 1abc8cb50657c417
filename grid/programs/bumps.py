"""Fits with bumps and refl1d as jobs: they can be watched, steered, aborted, and go on after a crash.

    grid serve grid.programs.bumps --hosts node1,node2 --name fits

    from grid.programs.bumps import FitService, request_of
    job = FitService.submit(**request_of("model.py", "data.dat", method="dream", samples=10000))
    for message in job.messages(): ...

A request has the text of the model's file and those of its data, so the server needs none of them. What a fit has found
so far is the job's best. A fit by DREAM goes on from its last checkpoint, which has all draws until then, after the
server was killed; other fitters of bumps keep no state, and begin again.

Lives here: the service, its requests. Elsewhere: fits in scripts (`compat/bumps.py`), jobs (`grid.jobs`).
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grid.jobs import RequestError, Service

_MOST_BYTES = 64 << 20
"""Of all files of a request."""


def request_of(model: str | os.PathLike[str], *data: str | os.PathLike[str], **words: Any) -> dict[str, Any]:
    """The values of a request: for `FitService.submit(**request_of(...))`.

    Args:
        model: File of the model, as for bumps' command line.
        data: Files that it reads, in or below its directory; there they will be for the service.
        words: `method` (default "dream"), `seed`, `args` (of the model), and all else options of the fitter.

    Raises:
        RequestError: A file can't be read, lies elsewhere, or all are too large together.
    """
    path = Path(model)
    files, total = {}, 0
    for each in (path, *map(Path, data)):
        try:
            name = each.resolve().relative_to(path.resolve().parent).as_posix()
            content = each.read_bytes()
        except ValueError:
            raise RequestError(f"{each} is not below the directory of {path}", hint="Put it beside the model") from None
        except OSError as exc:
            raise RequestError(f"can't read {each} ({exc.strerror})", hint="Name files that are there") from exc
        files[name], total = base64.b64encode(content).decode(), total + len(content)
    if total > _MOST_BYTES:
        raise RequestError(f"the files have {total >> 20} MB; {_MOST_BYTES >> 20} are the limit", hint="Thin the data")
    known = {"method": words.pop("method", "dream"), "seed": words.pop("seed", 0), "args": words.pop("args", [])}
    return {"model": path.name, "files": files, **known, "options": words}


class FitService(Service):  # type: ignore[misc]
    """Request: see `request_of`.

    Result: `method`, `nllf`, `chisq`, `parameters` (name -> value and error), `generations` (DREAM). Files of the job:
    `fit.par` as bumps writes it, and for DREAM `draws.h5`, its state with all draws.
    """

    service = "bumps.fit"
    version = "1"

    def prepare(self, request: Any) -> None:
        self._load({"dream": None, "best": None})

    def restore(self, state: Any) -> None:
        self._load(state)

    def _load(self, before: dict[str, Any]) -> None:
        from bumps.fitproblem import load_problem

        self._state: Any = None if before["dream"] is None else _state_from(before["dream"])
        self._best: dict[str, Any] | None = before["best"]
        self._step = 0
        self._driver: Any = None
        self._place = Path(tempfile.mkdtemp(prefix="bumps-", dir=os.getcwd()))
        for name, content in self.request.files.items():
            path = (self._place / name).resolve()
            if self._place.resolve() not in path.parents:
                raise RequestError(f"the file {name!r} leads out of the fit's directory", hint="Name files below it")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        self._problem = load_problem(self._place / self.request.model, [str(word) for word in self.request.args])

    def cleanup(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)

    def run(self, handler: Any) -> Any:
        import numpy
        from bumps.fitters import FIT_AVAILABLE_IDS, FITTERS, FitDriver

        fitters = {fitter.id: fitter for fitter in FITTERS}
        if (fitter := fitters.get(self.request.method)) is None:
            handler.stop(f"bumps has no fitter {self.request.method!r}. It has: {', '.join(FIT_AVAILABLE_IDS)}")
        if self._state is not None:
            handler.log(f"goes on from generation {self._state.generation}, after {self._state.draws} draws")
        elif self.request.seed:
            numpy.random.seed(int(self.request.seed))
        with handler.units(_Likelihood(self._problem)) as units:
            self._driver = FitDriver(
                fitter,
                problem=self._problem,
                monitors=[_Watcher(self)],
                mapper=lambda points: _values(units, points),
                **self.request.options,
            )
            self._driver.fit(fit_state=self._state)
        return self._result(handler)

    def advanced(self, step: int, point: Any, value: float) -> None:
        """The fitter has done a step: the best point so far is this, with this value."""
        self._step = step
        if self._best is None or value < self._best["nllf"]:
            self._best = self._told(point, value)
            self.handler.improved(self._best)
        self.handler.ready()

    def _told(self, point: Any, value: float) -> dict[str, Any]:
        numbers = [float(each) for each in point]
        return {"nllf": float(value), "parameters": dict(zip(self._problem.labels(), numbers, strict=True))}

    def _result(self, handler: Any) -> dict[str, Any]:
        driver, problem = self._driver, self._problem
        point, value = driver.result
        errors = [float(each) for each in driver.stderr()]
        state = getattr(driver.fitter, "state", None)
        handler.keep("fit.par", "".join(f"{name} {x:.15g}\n" for name, x in zip(problem.labels(), point, strict=True)))
        found = self._told(point, value)
        pairs = zip(found["parameters"].items(), errors, strict=True)
        told = {
            "method": self.request.method,
            "nllf": found["nllf"],
            "chisq": float(problem.chisq()),
            "parameters": {name: {"value": x, "error": error} for (name, x), error in pairs},
        }
        if state is not None and self.request.method == "dream":
            handler.keep("draws.h5", _state_as_bytes(state))
            told["generations"] = int(state.generation)
        return told

    def progress(self) -> tuple[float, float, str] | None:
        most = None
        if self._driver is not None and hasattr(self._driver.fitclass, "max_steps"):
            most = self._driver.fitclass.max_steps(self._problem, dict(self.request.options))
        return None if not most else (min(self._step, most), most, "steps")

    def checkpoint(self) -> Any:
        state = getattr(getattr(self._driver, "fitter", None), "state", None)
        if state is None or self.request.method != "dream":
            return None
        return {"dream": _state_as_bytes(state), "best": self._best}

    def on_signal_get_best(self, message: Any) -> None:
        self.handler.answer(message, self._best)


class _Likelihood:
    """The function of the units: it has the problem, which so goes to each worker once; an item is a point."""

    def __init__(self, problem: Any) -> None:
        self._problem = problem

    def __call__(self, point: Any) -> float:
        return float(self._problem.nllf(point))


def _values(units: Any, points: Iterable[Any]) -> list[float]:
    """The values of these points, in their order."""
    numbers = units.put(list(points))
    found: dict[int, float] = {}
    while units.under_way:
        number, value, error = units.take()
        if error is not None:
            raise error
        found[number] = value
    return [found[number] for number in numbers]


class _Watcher:
    """A monitor of bumps that tells the service."""

    def __init__(self, service: FitService) -> None:
        self._service = service

    def config_history(self, history: Any) -> None:
        history.requires(step=1, point=1, value=1)

    def __call__(self, history: Any) -> None:
        self._service.advanced(history.step[0], history.point[0], history.value[0])

    def final(self, history: Any, best: Any) -> None:
        """bumps calls it at the end."""


def _state_as_bytes(state: Any) -> bytes:
    """DREAM's state in the format that bumps itself keeps it in, HDF5."""
    import h5py
    from bumps.dream.state import h5dump

    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "state.h5")
        with h5py.File(path, "w") as file:
            h5dump(file.create_group("state"), state)
        return Path(path).read_bytes()


def _state_from(data: bytes) -> Any:
    import h5py
    from bumps.dream.state import h5load

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "state.h5"
        path.write_bytes(data)
        with h5py.File(path, "r") as file:
            return h5load(file["state"])
