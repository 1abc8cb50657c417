"""A backend for joblib, and so for scikit-learn and whatever else says `Parallel`.

    import grid.compat.joblib          # registers the backend "grid"
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("grid", grid=g, n_jobs=-1):
        Parallel()(delayed(energy)(pose) for pose in poses)

joblib makes the batches; each is one call on a server that is free. What runs on a server and says `Parallel` itself
runs one after the other there. joblib travels to hosts that lack it; scikit-learn and others must be there, or come
with `environment=`.

Lives here: the backend. Elsewhere: the calls (`work`), the grid, which is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from grid.compat.crew import Initializer, Publishes, check_handed, crew_of, initializer_of
from grid.compat.work import PooledCalls
from grid.errors import GridError
from grid.extras import need

need("the backend for joblib", "joblib", "joblib")

from joblib import register_parallel_backend  # noqa: E402
from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase, SequentialBackend  # noqa: E402


class GridBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """See the module.

    Args:
        grid: A grid that runs. retries: How often a batch is run again when its server died with it.
        initializer, initargs: A function that runs on each server before its first batch, as with loky.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_sharedmem = False
    uses_threads = False

    def __init__(self, grid: Publishes | None = None, retries: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if grid is None:
            raise GridError("the joblib backend got no grid", hint='Say parallel_config("grid", grid=g)')
        check_handed(grid, retries)
        initializer_of(kwargs.get("initializer"), kwargs.get("initargs"))
        self._grid, self._retries = grid, retries
        self._calls: PooledCalls | None = None
        self._initializer: Initializer | None = None

    @property
    def _workers(self) -> PooledCalls | None:
        """The executor of the `Parallel` that has begun; another after an abort, None at the end."""
        return self._calls

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As many as there are servers, for -1; else `n_jobs`, and not more than there are."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        servers = max(1, self._grid.n_hosts)
        if n_jobs is None:
            return servers
        return max(1, servers + 1 + n_jobs) if n_jobs < 0 else min(n_jobs, servers)

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **given: Any) -> int:
        """joblib begins. `given`: what `Parallel` was called with, on top of what the backend was made with."""
        self.parallel = parallel
        self._given = given
        words = {**self.backend_kwargs, **given}
        wanted, last = initializer_of(words.get("initializer"), words.get("initargs")), self._initializer
        crew = crew_of(self._grid)
        if wanted is None or last is None or (last.function, last.args) != (wanted.function, wanted.args):
            self._initializer = wanted  # else the same one has run already
        self._calls = PooledCalls(crew.service, crew, self._retries, self._initializer)
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """One batch. It is needed once, so it travels as an argument and is not kept on the server."""
        assert self._calls is not None
        future = self._calls.make("run", (func, (), {}), {})
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def apply_async(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """`submit` by its name before joblib 1.5."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The values of a batch that is done, or its error."""
        return out.result()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """What `Parallel` inside of a batch uses."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A batch failed: withdraw those that have not begun, and end those that run; their servers are replaced."""
        if self._calls is not None:
            self._calls.end_running()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self._given)

    def terminate(self) -> None:
        """joblib is done; the servers are the grid's."""
        if self._calls is not None:
            self._calls.close()
            self._calls = None
        self.reset_batch_stats()

    def __reduce__(self) -> Any:
        # joblib's batches may mention the backend that made them; on a server that is one after the other
        return SequentialBackend, (self.nesting_level,)


register_parallel_backend("grid", GridBackend)
