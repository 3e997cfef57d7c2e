"""Where tasks run: a local cluster sized to the machine, one described in a file, or any Dask scheduler by its address."""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dask
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.deploy import Cluster

from minugan_jobs.clusters.cluster_file import deaf_to_interrupts, load_cluster, start_cluster
from minugan_jobs.clusters.descriptors import provide_descriptors
from wsi_minugan import __version__
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import InputError, SettingsError
from wsi_minugan.minugan.devices import has_gpu, usable_cores
from wsi_minugan.words import pluralize

_DASK = {
    # For failures of workers that no task can be blamed for. worker_failures.py gives no third worker to a block that ended two.
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "30s",
    # The logs of a scheduler and of each worker keep what they saw of a task, and so would grow by kilobytes with every block.
    "distributed.admin.low-level-log-length": 50,
    # No dashboard: nothing may listen but the scheduler and the workers themselves.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}

# Dask has glibc give back memory at every chance, which costs a worker 40 % of its time in page faults (docs/performance.md):
# activations of up to 64 MiB stay, whole blocks still go back. What a thread frees stays in that thread's arena: two arenas hold
# less in vain than one for each of the threads that read, blend and write.
MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_ARENA_MAX": "2",
}


_GOODBYE_S = 10.0
_OWN_CONFIGURATION = (
    "Check Dask's own configuration on this machine (~/.config/dask, variables that begin with DASK_), or leave its files out for this "
    "run by setting DASK_CONFIG=/dev/null."
)
_ADDRESS = re.compile(r"inproc://\S+|(\w+://)?\S+:\d+/?")


class _Client(Client):  # type: ignore[misc]  # Dask's classes have no types
    """A client that is closed where it does not get to its scheduler; Dask's own then waits 40 s as Python ends, and prints a traceback."""

    def start(self, **options: object) -> None:
        try:
            super().start(**options)
        except BaseException:  # a signal, too
            with suppress(Exception):
                self.close(timeout=_GOODBYE_S)
            # Where that did not end in time, nobody is to try again.
            self.status = "closed"
            raise


@contextmanager
def open_cluster(settings: RunSettings, plugin: WorkerPlugin) -> Iterator[Client]:
    """Yield a client whose workers have a plugin; the cluster, or on somebody's own the plugin, ends with the block.

    Parameters
    ----------
    settings : RunSettings
        Which cluster.
    plugin : distributed.WorkerPlugin
        What each worker gets, under the plugin's name.

    Yields
    ------
    distributed.Client
        Of the cluster.

    Raises
    ------
    InputError
        If no scheduler answers at the address given, or one of its workers lacks this package.
    SettingsError
        If the cluster file does not fit, or its cluster does not start.
    """
    with dask.config.set(_DASK), ExitStack() as stack:
        if settings.scheduler:
            client = stack.enter_context(_connected(settings.scheduler))
            stack.callback(_remove_plugin, client, plugin.name)
        else:
            client = stack.enter_context(_client_of(settings, stack))
        _register_plugin(client, plugin)
        yield client


@contextmanager
def _ending(cluster: Cluster) -> Iterator[Cluster]:
    """Yield a cluster and close it after the block; a worker that ends late on a busy machine is no failure of the run."""
    try:
        yield cluster
    finally:
        with suppress(TimeoutError):
            cluster.close()


def _register_plugin(client: Client, plugin: WorkerPlugin) -> None:
    try:
        client.register_plugin(plugin)
    except Exception as e:  # whatever a worker says that cannot load it
        raise InputError(_why_not_registered(client, plugin, e)) from e


def _remove_plugin(client: Client, name: str) -> None:
    """Have a scheduler that goes on forget a run's plugin, and its workers the model that the plugin holds."""
    if client.status == "running":
        # A scheduler that went at this moment has forgotten it, and one that hangs must not keep the run from ending.
        with suppress(OSError, TimeoutError):
            client.sync(client.scheduler.unregister_worker_plugin, name=name, callback_timeout=_GOODBYE_S)


def _why_not_registered(client: Client, plugin: WorkerPlugin, error: Exception) -> str:
    tried = client.run(importlib.import_module, type(plugin).__module__, on_error="return")
    unfit = {address: e for address, e in tried.items() if isinstance(e, Exception)}
    if not unfit:
        return f"Dask's workers cannot start this program: {error}. Install version {__version__} of wsi-minugan for each of them."
    address, why = min(unfit.items())
    return (
        f"{pluralize(len(unfit), 'Dask worker')} cannot run this program. The one at {address} says: {why}. Install version "
        f"{__version__} of wsi-minugan into the Python that runs it and start it again, or stop it; then run the same command again."
    )


def _client_of(settings: RunSettings, stack: ExitStack) -> Client:
    """Start a cluster, that ends with the stack, and return a client of it."""
    try:
        cluster = stack.enter_context(_ending(_started(settings, stack)))
        return _Client(cluster, set_as_default=False)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError, TimeoutError) as e:
        raise SettingsError(f"Dask does not start its workers here: {e}. {_OWN_CONFIGURATION}") from e


def _started(settings: RunSettings, stack: ExitStack) -> Cluster:
    if settings.cluster != "local":
        described = load_cluster(Path(settings.cluster))
        provide_descriptors(described.workers.maximum if described.workers else 1)
        return start_cluster(described, worker_environment(settings))
    provide_descriptors(worker_count(settings))
    # Its workers are reached on the loopback alone, and what needs no encryption must not be refused for lack of it.
    stack.enter_context(dask.config.set({"distributed.comm.require-encryption": False}))
    return _local(settings, stack.enter_context(tempfile.TemporaryDirectory(prefix="wsi-minugan-")))


def worker_environment(settings: RunSettings) -> dict[str, str]:
    """Return what must be set before a worker starts: torch, NumPy and OpenCV size their pools at import.

    ``OMP_NUM_THREADS`` does not reach OpenCV, whose builds on PyPI bring threads of their own.

    Parameters
    ----------
    settings : RunSettings
        Settings of the run.

    Returns
    -------
    dict of str to str
        Variables of its environment.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    threads = dict.fromkeys(names, str(settings.threads))
    return threads | MALLOC | {"DASK_LOGGING__DISTRIBUTED": "critical"}


def _local(settings: RunSettings, scratch: str) -> LocalCluster:
    environ = {"distributed.nanny.pre-spawn-environ": worker_environment(settings)}
    with dask.config.set(environ), deaf_to_interrupts():
        return LocalCluster(
            n_workers=worker_count(settings),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            local_directory=scratch,
            memory_limit=0,
            resources={"GPU": 1} if uses_gpu(settings) else None,
        )


def worker_count(settings: RunSettings) -> int:
    """Return how many workers a local cluster gets: as set, or one for each core this process may use.

    The process that runs the network for all of them has a core, too. Without it, a GPU is one worker's.

    Parameters
    ----------
    settings : RunSettings
        Settings of the run.

    Returns
    -------
    int
        Number of worker processes.
    """
    if settings.workers:
        return settings.workers
    if uses_gpu(settings) and not shares_network(settings):
        return 1
    return max(1, usable_cores() // settings.threads - shares_network(settings))


def shares_network(settings: RunSettings) -> bool:
    """Return whether one process runs the network for all workers; by default where it has a GPU and they are this machine's.

    Parameters
    ----------
    settings : RunSettings
        Settings of the run.

    Returns
    -------
    bool
        Whether there is such a process.

    Raises
    ------
    SettingsError
        If it is asked for and the workers may be elsewhere.
    """
    here = settings.cluster == "local" and settings.scheduler is None
    if settings.share_network and not here:
        raise SettingsError(
            "--share-network is for the workers that a run starts on its own machine. Leave it out with --cluster and --scheduler."
        )
    if settings.share_network is not None:
        return settings.share_network
    return here and uses_gpu(settings)


def uses_gpu(settings: RunSettings) -> bool:
    """Return whether workers on this machine run the network on a GPU; more than one process would share its memory.

    Parameters
    ----------
    settings : RunSettings
        Settings of the run.

    Returns
    -------
    bool
        Whether a GPU is used.
    """
    return settings.device == "cuda" or (settings.device == "auto" and has_gpu())


def _connected(address: str) -> Client:
    if not _ADDRESS.fullmatch(address):
        raise InputError(f"{address} is no address of a Dask scheduler. Give one like tcp://HOST:8786.")
    try:
        return _Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as e:
        raise InputError(
            f"No Dask scheduler answers at {address} ({e}). Check the address and the firewall."
        ) from e
    except (RuntimeError, TypeError, LookupError, AttributeError) as e:
        # That encryption is required, for one, and the address begins with tcp.
        raise InputError(f"Dask refuses the scheduler at {address}: {e}. {_OWN_CONFIGURATION}") from e
