"""The Ray cluster: joining it, and what a worker gets of it."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from engine import access, private_ray
from engine.config import ResourcesConfig
from engine.errors import ConfigError

OBJECT_STORE_BYTES = 256 * 2**20
"""Enough for receipts; rows never pass through the object store."""

CORES_BESIDE_A_GPU = 2
"""One to feed it, one to read and to commit."""
WORKER_BYTES, WEIGHTS_FACTOR = 1.5 * 2**30, 1.25
"""Memory of one actor: Python, torch and a batch, and so many times its model's weights."""
THREADS_EXPONENT = 0.8
"""n threads of one actor do the work of n to this power: 1.74 of two, as measured on two cores."""

_WORKER_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",  # the work is spread over actors; embedders turn it on
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
}
_FORWARDED = ("HF_HUB_OFFLINE", "HF_HOME", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class NodeSize:
    """What one machine lends to the cluster."""

    num_cpus: int
    num_gpus: int
    memory_bytes: float = math.inf
    """All of it where that is known, not what is free just now: the same at every start."""


@dataclass(frozen=True)
class Nodes:
    """What the cluster offers, and how the configuration shares it out."""

    num_cpus: int
    num_gpus: int
    resources: ResourcesConfig
    sizes: tuple[NodeSize, ...] = ()
    """Of each node; one node with everything where they are left out."""
    may_grow: bool = False
    """A cluster that others run: its autoscaler may bring nodes that are not there yet."""

    @property
    def each(self) -> tuple[NodeSize, ...]:
        """`sizes`, never empty."""
        return self.sizes or (NodeSize(self.num_cpus, self.num_gpus),)

    @property
    def num_nodes(self) -> int:
        return len(self.each)

    @property
    def num_cpus_one_node(self) -> int:
        """CPU cores of the largest node: the most that one process can ask for."""
        # A cluster that has yet to grow has only its head, which may lend no core at all.
        largest = max(node.num_cpus for node in self.each)
        return largest or self.resources.cpus_per_worker or 1

    @property
    def kmeans_options(self) -> dict[str, Any]:
        """Ray's options for k-means: the cores of a whole node, or a GPU and the cores beside it.

        Variables of its own give it a process of its own, without torch in it: faiss and torch
        bring two OpenMP runtimes.
        """
        return {
            "num_cpus": self.cpus_per_worker if self.gpus_per_worker else self.num_cpus_one_node,
            "num_gpus": self.gpus_per_worker,
            "runtime_env": {"env_vars": {"POOLSCORE_PROCESS": "faiss"}},
        }

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        wanted = self.resources.device
        if wanted == "cuda" and not self.num_gpus and not self.may_grow:
            raise ConfigError("resources.device = 'cuda', but there is no GPU here. Use 'cpu'.")
        return wanted if wanted != "auto" else ("cuda" if self.num_gpus else "cpu")

    def in_words(self) -> str:
        """What there is, for people: ``cpu (1 node, 8 cores)``."""
        parts = [(self.num_nodes, "node"), (self.num_cpus, "core"), (self.num_gpus, "GPU")]
        told = ", ".join(f"{num} {what}{'s' * (num != 1)}" for num, what in parts if num)
        return f"{self.device} ({told})"

    @property
    def cpus_per_worker(self) -> int:
        """CPU cores of one actor: the setting, but on one machine never more than it has."""
        wanted = self.resources.cpus_per_worker or (
            CORES_BESIDE_A_GPU if self.gpus_per_worker else 1
        )
        if self.may_grow:
            return wanted
        # Rather fewer cores for each than GPUs that nobody feeds.
        share = self.num_cpus // self.num_gpus if self.gpus_per_worker else self.num_cpus
        return min(wanted, max(1, share))

    def for_shards(self, num_shards: int, model_bytes: int = 0) -> Nodes:
        """The same, with the cores of one actor settled for a pool of so many shards.

        Actors share nothing; threads wait for one another after each matrix product, and whatever
        else runs on the machine stops them all. So on CPUs an actor gets one core, or more where
        that ends sooner (few shards, few actors wanted) or where as many models don't fit into
        memory. A function of the machines, the settings and the arguments alone.

        Args:
            num_shards: of the whole pool, whatever is done of it.
            model_bytes: weights of the model that every actor holds; 0 where that is not known.
        """
        cores = self.resources.cpus_per_worker
        if cores is None and not self.gpus_per_worker:
            need = WORKER_BYTES + WEIGHTS_FACTOR * model_bytes
            fit = [c for c in range(1, self.num_cpus_one_node + 1) if self._fits(c, need)]
            wanted = min(self.resources.num_workers or num_shards, num_shards)

            def rounds(cores: int) -> float:
                actors = max(1, min(self._places(cores), wanted))
                return math.ceil(num_shards / actors) / cores**THREADS_EXPONENT

            cores = min(fit, key=rounds, default=self.num_cpus_one_node)
        resources = self.resources.model_copy(update={"cpus_per_worker": cores})
        return replace(self, resources=resources)

    def _places(self, cores: int) -> int:
        """Processes of so many cores that fit, node by node."""
        return sum(node.num_cpus // cores for node in self.each)

    def _fits(self, cores: int, need: float) -> bool:
        """Whether every node has the memory for as many actors as it has cores for."""
        return all(node.num_cpus // cores * need <= node.memory_bytes for node in self.each)

    @property
    def gpus_per_worker(self) -> int:
        return int(self.device == "cuda")

    def one_core_each(self) -> Nodes:
        """The same cores, an actor on each: for work of one thread that no GPU helps with."""
        actors, cores = self.resources.num_workers, self.cpus_per_worker
        spread = {"cpus_per_worker": 1, "num_workers": actors and actors * cores}
        resources = self.resources.model_copy(update={"device": "cpu", **spread})
        return replace(self, num_gpus=0, resources=resources)

    def num_workers(self, num_shards: int) -> int:
        """Size of the actor pool for `num_shards` shards: what all fits at once, node by node."""
        cores, gpus = self.cpus_per_worker, self.gpus_per_worker
        fit = self._places(cores)
        if gpus:
            fit = sum(min(node.num_cpus // cores, node.num_gpus) for node in self.each)
        wanted = self.resources.num_workers or fit
        return max(1, min(wanted if self.may_grow else min(wanted, fit), num_shards))

    @property
    def cpus_per_train_worker(self) -> int:
        """CPU cores of one training worker: the setting, or as many as all of them can have."""
        most = range(self.num_cpus_one_node, 0, -1)
        share = next((c for c in most if self._places(c) >= self.train_workers), 1)
        suits = CORES_BESIDE_A_GPU if self.gpus_per_worker else share
        wanted = self.resources.cpus_per_worker or suits
        return wanted if self.may_grow else min(wanted, share)

    @property
    def train_workers(self) -> int:
        """Number of training workers."""
        return self.resources.train_workers or max(1, self.num_gpus * self.gpus_per_worker)


@contextmanager
def session(resources: ResourcesConfig) -> Iterator[Nodes]:
    """Join the configured Ray cluster, or start a private one on this machine.

    Raises:
        ConfigError: the address answers to nobody, or the cluster's job API to anybody.
    """
    address = resources.address or os.environ.get("RAY_ADDRESS") or "local"
    ours = not ray.is_initialized()
    with private_ray.folder(wanted=ours and address == "local") as folder:
        yield from _joined(resources, address, ours, folder)


def _joined(
    resources: ResourcesConfig, address: str, ours: bool, folder: str | None
) -> Iterator[Nodes]:
    try:
        if ours:
            dashboard = _init(address, folder)
        else:  # of a Ray that was there before, what it says of itself is asked for again
            again = ray.init(ignore_reinit_error=True, configure_logging=False)
            dashboard = again.dashboard_url
        access.refuse_open_jobs(address, dashboard, resources.insecure_local)
        total = ray.cluster_resources()
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield Nodes(
            num_cpus=max(1, int(total.get("CPU", 0))),
            num_gpus=int(total.get("GPU", 0)),
            resources=resources,
            sizes=tuple(_size(node, own_machine=address == "local") for node in alive),
            may_grow=address != "local",
        )
    finally:
        if ours:
            ray.shutdown()


def _size(lent: dict[str, float], own_machine: bool) -> NodeSize:
    # Of other machines only what Ray lends is known: what was free when it started there.
    memory = psutil.virtual_memory().total if own_machine else lent.get("memory", math.inf)
    return NodeSize(int(lent.get("CPU", 0)), int(lent.get("GPU", 0)), memory)


def _init(address: str, folder: str | None) -> str | None:
    """Join, or start in a folder, a Ray; where its job API is."""
    if address.startswith("ray://"):
        raise ConfigError(
            f"{address!r} is for Ray Client, over which Ray Data and Ray Train do not run.\n"
            "Submit a job (`ray job submit`), or name the cluster as HOST:6379 on one of its nodes."
        )
    if address == "local":
        access.keep_token_private()
    environment = dict(_WORKER_ENVIRONMENT)
    environment.update({name: os.environ[name] for name in _FORWARDED if name in os.environ})
    for name in _set_by_the_job():  # Ray refuses a variable that is set twice
        environment.pop(name, None)
    local: dict[str, Any] = {
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_temp_dir": folder,
    }
    # Ray's C++ core warns on stderr about the retries that Ray Data sets up. What fails for real
    # arrives as an exception, so its own voice is turned off, and its line that says so as well.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with _stderr_muted(), private_ray.starting(address == "local"):
            context = ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": environment},
                **(local if address == "local" else {}),
            )
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise access.cannot_be_used(address, error) from None
    return context.dashboard_url


def _set_by_the_job() -> list[str]:
    """Variables that `ray job submit --runtime-env` has set for this job."""
    told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return list((told.get("runtime_env") or {}).get("env_vars") or {})


@contextmanager
def _stderr_muted() -> Iterator[None]:
    """Drop what C++ code writes to file descriptor 2; exceptions are not touched."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
