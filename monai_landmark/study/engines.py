"""Where the jobs of a study run: processes of this machine, a Ray cluster, or Slurm.

Each engine only starts a job and tells when it is over; who waits for whom is decided in
:mod:`monai_landmark.study.runner`. The work folder must be the same path on all machines.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from monai_landmark.errors import ConfigurationError

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "SlurmEngine", "study_engine"]

T = TypeVar("T")


class Engine(Protocol):
    """Runs jobs.

    Attributes:
        workers: how many jobs run at once, as far as is known; for the estimate of the time left.
    """

    workers: int

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Start a job as soon as there is room.

        Args:
            function: what to run; a function of a module, so that another process can import it.
            *args: its arguments.

        Returns:
            Its result, once it is there.
        """

    def close(self) -> None:
        """Give the machines back."""


class LocalEngine:
    """Jobs on this machine; each is a process of its own already, so a thread to wait for it is enough.

    Args:
        workers: how many at once.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers)

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """See :meth:`Engine.submit`."""
        return self._pool.submit(function, *args)

    def close(self) -> None:
        """Drop what has not begun; a job that runs ends with its own process."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class RayEngine:
    """Jobs on a Ray cluster; those of a node that is lost are started again on another, where they go on.

    Args:
        address: of the cluster, e.g. ``auto`` or ``ray://host:10001``; ``local`` starts one on this machine.
        processors: that a job needs.
        gpus: that a job needs; a share such as 0.5 is possible.
        retries: how often a job is started again when its node is lost.
    """

    def __init__(self, address: str = "auto", processors: float = 1, gpus: float = 0, retries: int = 3) -> None:
        self._ray = _imported("ray")
        self._ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        self._options = {"num_cpus": processors, "num_gpus": gpus, "max_retries": retries}
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1) // max(processors, 1e-9)))

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """See :meth:`Engine.submit`."""
        future: Future[T] = self._ray.remote(**self._options)(function).remote(*args).future()
        return future

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


class SlurmEngine:
    """Jobs under Slurm, through submitit; where there is no Slurm, submitit's own local executor does the same.

    Args:
        folder: for submitit's scripts and logs, on a disk that all nodes see.
        cluster: ``slurm`` or ``local``; None: whatever is there.
        workers: how many jobs wait or run at once.
        **parameters: of ``submitit.AutoExecutor.update_parameters``, e.g. ``timeout_min``, ``slurm_partition``,
            ``gpus_per_node``, ``cpus_per_task``.
    """

    def __init__(self, folder: str, cluster: str | None = None, workers: int = 16, **parameters: Any) -> None:
        self._executor = _imported("submitit").AutoExecutor(folder=folder, cluster=cluster)
        self._executor.update_parameters(**{"timeout_min": 24 * 60, **parameters})
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers)

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """See :meth:`Engine.submit`."""
        return self._pool.submit(lambda: self._executor.submit(function, *args).result())

    def close(self) -> None:
        """Drop what has not been handed to Slurm."""
        self._pool.shutdown(wait=False, cancel_futures=True)


ENGINES = {"local": LocalEngine, "ray": RayEngine, "slurm": SlurmEngine}


def study_engine(name: str, **options: Any) -> Engine:
    """An engine by its name.

    Args:
        name: ``local``, ``ray`` or ``slurm``.
        **options: of the engine.

    Returns:
        The engine.

    Raises:
        ConfigurationError: if there is none of this name, or it needs a package that is not installed.
    """
    if name not in ENGINES:
        raise ConfigurationError("no such engine", field="engine", value=name, expected=" | ".join(ENGINES))
    engine: Engine = ENGINES[name](**options)
    return engine


def _imported(package: str) -> Any:
    try:
        return __import__(package)
    except ImportError as error:
        action = "pip install 'monai_landmark[study]', or use the engine local"
        raise ConfigurationError("a package is missing", field="engine", value=package, action=action) from error
