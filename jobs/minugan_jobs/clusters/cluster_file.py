"""Clusters described in YAML files: SLURM, several GPUs in one machine, machines reached by SSH."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Literal

import dask
from distributed.deploy import Cluster
from pydantic import Field

from minugan_jobs.clusters.slurm import Submissions, telling_job
from wsi_minugan.config import read_yaml
from wsi_minugan.errors import SettingsError
from wsi_minugan.frozen import FrozenModel

_EXTRA = {"slurm": "dask-jobqueue", "cuda": "dask-cuda", "ssh": "asyncssh"}


class Workers(FrozenModel):
    """How many workers there may be; they come and go with the work between these bounds.

    Attributes
    ----------
    minimum, maximum : int
        Fewest and most workers.
    """

    minimum: int = Field(1, ge=0)
    maximum: int = Field(1, ge=1)


class ClusterFile(FrozenModel):
    """A cluster file.

    Attributes
    ----------
    kind : {"slurm", "cuda", "ssh"}
        Which kind of cluster.
    workers : Workers or None
        Bounds, for SLURM only.
    options : dict of str to any
        Arguments of the cluster's class.
    """

    kind: Literal["slurm", "cuda", "ssh"]
    workers: Workers | None = Field(
        None, description="Bounds for SLURM jobs; the other kinds start all at once."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of dask_jobqueue.SLURMCluster, dask_cuda.LocalCUDACluster or distributed.SSHCluster.",
    )


def load_cluster(path: Path) -> ClusterFile:
    """Read a cluster file.

    Parameters
    ----------
    path : Path
        A YAML file.

    Returns
    -------
    ClusterFile
        What it describes.

    Raises
    ------
    SettingsError
        If it cannot be read or does not fit.
    """
    return read_yaml(path, ClusterFile, "cluster file")


def start_cluster(described: ClusterFile, environment: Mapping[str, str]) -> Cluster:
    """Start a described cluster.

    Parameters
    ----------
    described : ClusterFile
        What to start.
    environment : mapping of str to str
        Variables that each worker must have before Python starts: sizes of thread pools, memory settings.

    Returns
    -------
    distributed.deploy.Cluster
        The cluster, which starts its workers.

    Raises
    ------
    SettingsError
        If a package is missing, or the cluster does not start with these options.
    """
    start = {"slurm": _slurm, "cuda": _cuda, "ssh": _ssh}[described.kind]
    try:
        return start(described, environment)
    except ImportError as e:
        raise SettingsError(
            f"A cluster of kind '{described.kind}' needs the package {_EXTRA[described.kind]} "
            f"({e}). Install it: pip install {_EXTRA[described.kind]}"
        ) from e
    except (TypeError, ValueError, OSError, RuntimeError) as e:
        raise SettingsError(
            f"The cluster of kind '{described.kind}' does not start: {e}. Check 'options' in its file."
        ) from e


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Have worker processes of clusters started in this block not take SIGINT, also those that replace them later.

    Ctrl-C in a terminal goes to all processes of a run. This one takes it, and stops its workers in order.
    """
    # It takes the signal again for the thread that starts it: not for those of the cluster, which hand their mask to workers.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _slurm(described: ClusterFile, environment: Mapping[str, str]) -> Cluster:
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.slurm import SLURMJob

    submissions = Submissions()
    options = dict(described.options)
    # Dask's settings of this process hold for workers too; jobs start with none of them.
    inherited = {"DASK_INTERNAL_INHERIT_CONFIG": dask.config.serialize(dask.config.global_config)}
    exports = [f"export {k}={shlex.quote(v)}" for k, v in {**environment, **inherited}.items()]
    options["job_script_prologue"] = [*exports, *options.get("job_script_prologue", [])]
    # As without a file there is no dashboard, and two batches of one host do not ask for the same port.
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    own = options.get("scheduler_options") or dask.config.get("jobqueue.slurm.scheduler-options", None)
    options["scheduler_options"] = quiet | (own or {})
    cluster = SLURMCluster(**options, job_cls=telling_job(SLURMJob, submissions))
    cluster.submissions = submissions
    workers = described.workers or Workers()
    # Adaptive also where both bounds are one number: a job that is cancelled or ends is then replaced.
    cluster.adapt(minimum=workers.minimum, maximum=workers.maximum)
    return cluster


def _cuda(described: ClusterFile, environment: Mapping[str, str]) -> Cluster:
    from dask_cuda import LocalCUDACluster

    options = {"host": "127.0.0.1", "dashboard_address": None, "resources": {"GPU": 1}} | described.options
    with dask.config.set({"distributed.nanny.pre-spawn-environ": dict(environment)}), deaf_to_interrupts():
        return LocalCUDACluster(**options)


def _ssh(described: ClusterFile, environment: Mapping[str, str]) -> Cluster:
    from distributed import SSHCluster

    # The configuration travels to the machines, and with it what a worker's process gets before it starts.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": dict(environment)}):
        return SSHCluster(**described.options)
