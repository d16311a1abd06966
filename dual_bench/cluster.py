"""Jobs on a Ray cluster (https://docs.ray.io): the extra ``cluster``.

What goes there is what goes to a process of this machine, so what comes back is the same to the byte where the
processors are. Voices, faces and words go into the object store once, and from there to each node once; a task carries
but the numbers of what it reads. Results come back here, and are stored here.

A task whose worker or node is lost is given to another, by Ray itself. Where this process is lost, or the head of the
cluster, what it has stored is there, and the same command goes on.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from dual_bench import provenance
from dual_bench.engine import Done, attempt
from dual_bench.inputs import Inputs
from dual_bench.job import THREADS, Job
from dual_bench.journal import failure
from dual_bench.types import MODALITIES, DualBenchError, Ragged, UserError

_PROCESS = 3 << 28
"""Bytes that a worker takes before it has read anything: Python, torch, and a small model (.7 GiB where it was
measured)."""
_AGAIN = 3
"""How often a task is given to another worker when its own is lost."""
_PATIENCE = 5.0
"""Seconds between looks at what the cluster has."""
_NOTHING = Ragged(np.empty((0, 1), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class Cluster:
    """Nodes that are connected to; ``jobs`` tasks at most side by side, 0: as many as there is room for. ``gpu_share``
    is what a task asks for of a GPU, 0 where models are trained on processors."""

    ray: Any
    jobs: int
    gpu_share: float
    _stored: dict[int, tuple[Ragged, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        nodes = sum(bool(node["Alive"]) for node in self.ray.nodes())
        return f"ray {self.ray.__version__}, {nodes} node{'s' if nodes > 1 else ''}"

    @property
    def side_by_side(self) -> int:
        room = self.ray.cluster_resources()
        slots = int(room.get("CPU", 0) // THREADS)
        if self.gpu_share:
            slots = min(slots, int(room.get("GPU", 0) / self.gpu_share))
        return max(1, min(slots, self.jobs or slots))

    def each(self, count: int, job_of: Callable[[int], Job]) -> Generator[tuple[int, Job, Done], None, None]:
        """UserError where a node has other versions; DualBenchError where the cluster is lost, or has no node that is
        large enough for a job."""
        from ray.exceptions import RayError

        running: dict[Any, tuple[int, Job]] = {}
        try:
            yield from self._each(count, job_of, running)
        except RayError as error:
            raise DualBenchError(
                f"the Ray cluster is gone ({failure(error).error[:300]}); what is finished is stored, and the same "
                "command goes on from there"
            ) from error
        finally:
            for reference in running:
                with suppress(RayError):
                    self.ray.cancel(reference, force=True)

    def _each(
        self, count: int, job_of: Callable[[int], Job], running: dict[Any, tuple[int, Job]]
    ) -> Generator[tuple[int, Job, Done], None, None]:
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

        task = self.ray.remote(max_retries=_AGAIN)(_task)
        coming = iter(range(count))
        left = count
        while left:
            at_once = self.side_by_side
            # some wait where they will run, but never more than were asked for; nodes may come and go
            while len(running) < (at_once if self.jobs else 1 + at_once * 3 // 2):
                if (number := next(coming, None)) is None:
                    break
                job = job_of(number)
                inputs = [self._reference(getattr(job.inputs, m)) for m in MODALITIES]
                sent = task.options(**self._asks(job)).remote(_light(job), _versions(), *inputs)
                running[sent] = (number, job)
            ended, _ = self.ray.wait(list(running), timeout=_PATIENCE)
            if not ended:
                self._check_room(next(iter(running.values()))[1])
            for reference in ended:
                number, job = running.pop(reference)
                try:
                    done = self.ray.get(reference)
                except (RayTaskError, WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
                    # its workers were lost again and again, or killed for want of memory
                    done = Done(failure(error), "a lost worker")
                if isinstance(done, str):
                    raise UserError(done)
                left -= 1
                yield number, job, done

    def _asks(self, job: Job) -> dict[str, Any]:
        """What a job needs of a node."""
        asked: dict[str, Any] = {"num_cpus": THREADS, "memory": _memory(job)}
        return asked | ({"num_gpus": self.gpu_share} if self.gpu_share else {})

    def _check_room(self, job: Job) -> None:
        """DualBenchError where no living node could ever take the job."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        asked = {names[name]: value for name, value in self._asks(job).items()}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= value for name, value in asked.items()) for node in nodes):
            raise DualBenchError(
                f"expected a node with {', '.join(f'{name} {value:g}' for name, value in asked.items())} for a "
                "training, found none in the cluster; add one, and the same command goes on"
            )

    def _reference(self, ragged: Ragged) -> Any:
        """Where the sequences lie in the object store; they are put there when they are asked for first."""
        if id(ragged) not in self._stored:
            whole = ragged if int(ragged.lengths.sum()) >= len(ragged.values) else ragged.compact()
            # as an array, not as the path of a file that other nodes may not have
            put = self.ray.put(Ragged(np.asarray(whole.values), whole.starts, whole.lengths))
            self._stored[id(ragged)] = (ragged, put)  # kept, so that no other gets its id
        return self._stored[id(ragged)][1]


@contextmanager
def connected(address: str = "", jobs: int = 0, gpu_share: float = 0.0) -> Iterator[Cluster]:
    """A cluster: that at ``address`` ("auto": the one this node belongs to), or else one of this machine alone, with
    ``jobs`` workers, which ends with the block. UserError where there is none, Ray is not installed, or a node has
    other versions than this one."""
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray; install it by: pip install 'dual-bench[cluster]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    # a task without a GPU sees what its node sees, as Ray has announced for later, with a warning until then
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    path = os.pathsep.join([*_own_paths(), *filter(None, [os.environ.get("PYTHONPATH")])])
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "address": address or "local"}
    options["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
    if not address:
        options |= {"num_cpus": jobs or None, "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address:  # Ray itself tries for minutes
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**options)
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"no Ray cluster at '{address}' ({said[:200]}); start one by: ray start --head") from None
    try:
        signal.signal(signal.SIGTERM, before)  # Ray has put its own in the place
        if address:
            _check_nodes(ray)
        yield Cluster(ray, jobs, gpu_share)
    finally:
        ray.shutdown()


def _own_paths() -> list[str]:
    """Where this process finds modules that are not installed, in the order in which it looks."""
    installed = tuple({sys.prefix, sys.base_prefix})
    return [path for path in sys.path if path and not path.startswith(installed)]


def _check_nodes(ray: Any) -> None:
    """UserError where a node has other versions, which would give other numbers."""
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_difference)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(_versions())
        for node in nodes
    ]
    for reference in asked:
        try:
            wrong = ray.get(reference)
        except RayError as error:
            said = failure(error).error
            raise UserError(f"a node of the cluster cannot run dual-bench ({said[-300:]}); install it there") from error
        if wrong:
            raise UserError(wrong)


@cache
def _versions() -> dict[str, str]:
    """What has to be the same where the work is done."""
    python = ".".join(map(str, sys.version_info[:2]))
    found = {"python": python} | {name: metadata.version(name) for name in ("dual-bench", "torch", "numpy")}
    return found | {"code": provenance.code(provenance.gather("", 0, 0))}


def _difference(versions: dict[str, str]) -> str:
    """What is not the same here, in a sentence; empty where nothing is."""
    own = _versions()
    for name, expected in versions.items():
        if own.get(name) != expected:
            host = socket.gethostname()
            return f"expected {name} {expected} on node {host}, found {own.get(name)}; install the same everywhere"
    return ""


def _light(job: Job) -> Job:
    """The job without its sequences."""
    return replace(job, inputs=Inputs(_NOTHING, _NOTHING, _NOTHING, job.inputs.scales))


def _memory(job: Job) -> int:
    """Bytes that a worker asks for: itself, and its scores as they are made, joined, sent and stored."""
    answers = len(job.queries.rows) + (0 if job.probe is None else 8 * len(job.probe.rows))
    return _PROCESS + 4 * answers * job.task.outputs * 4 * len(job.streams)


def _task(job: Job, versions: dict[str, str], audio: Ragged, vision: Ragged, text: Ragged) -> Done | str:
    """What a worker does; or a sentence, where it cannot: a node may have come after all were asked."""
    if wrong := _difference(versions):
        return wrong
    import ray

    done = attempt(replace(job, inputs=replace(job.inputs, audio=audio, vision=vision, text=text)))
    return replace(done, host=f"{done.host}, node {ray.get_runtime_context().get_node_id()[:8]}")
