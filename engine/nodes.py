"""The Ray cluster: joining it, and what a worker gets of it."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from engine.config import ResourcesConfig
from engine.errors import ConfigError

OBJECT_STORE_BYTES = 256 * 2**20
"""Enough for receipts; rows never pass through the object store."""

_WORKER_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",  # the work is spread over actors; embedders turn it on
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
}
_FORWARDED = ("HF_HUB_OFFLINE", "HF_HOME", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Nodes:
    """What the cluster offers, and how the configuration shares it out."""

    num_cpus: int
    num_gpus: int
    resources: ResourcesConfig
    num_cpus_one_node: int = 1
    """CPU cores of the largest node: the most that one process can ask for."""
    num_nodes: int = 1
    per_node: tuple[tuple[int, int], ...] = ()
    """CPU cores and GPUs of each node; one node with everything where it is left out."""
    may_grow: bool = False
    """A cluster that others run: its autoscaler may bring nodes that are not there yet."""

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        wanted = self.resources.device
        if wanted == "cuda" and not self.num_gpus and not self.may_grow:
            raise ConfigError("resources.device = 'cuda', but there is no GPU here. Use 'cpu'.")
        return wanted if wanted != "auto" else ("cuda" if self.num_gpus else "cpu")

    @property
    def cpus_per_worker(self) -> int:
        """CPU cores of one actor: the setting, but on one machine never more than it has."""
        wanted = self.resources.cpus_per_worker
        if self.may_grow:
            return wanted
        # Rather fewer cores for each than GPUs that nobody feeds.
        share = self.num_cpus // self.num_gpus if self.gpus_per_worker else self.num_cpus
        return min(wanted, max(1, share))

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
        fit = sum(
            min(node_cores // cores, node_gpus if gpus else node_cores // cores)
            for node_cores, node_gpus in self.per_node or ((self.num_cpus, self.num_gpus),)
        )
        wanted = self.resources.num_workers or fit
        return max(1, min(wanted if self.may_grow else min(wanted, fit), num_shards))

    @property
    def cpus_per_train_worker(self) -> int:
        """CPU cores of one training worker; on one machine the workers share what there is."""
        share = max(1, self.num_cpus // self.train_workers)
        return self.cpus_per_worker if self.may_grow else min(self.cpus_per_worker, share)

    @property
    def train_workers(self) -> int:
        """Number of training workers."""
        return self.resources.train_workers or max(1, self.num_gpus * self.gpus_per_worker)


@contextmanager
def session(resources: ResourcesConfig) -> Iterator[Nodes]:
    """Join the configured Ray cluster, or start a private one on this machine.

    Raises:
        ConfigError: the address answers to nobody.
    """
    address = resources.address or os.environ.get("RAY_ADDRESS") or "local"
    if not ray.is_initialized():
        _init(address)
        ours = True
    else:
        ours = False
    try:
        total = ray.cluster_resources()
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        one = [node.get("CPU", 0) for node in alive]
        yield Nodes(
            num_cpus=max(1, int(total.get("CPU", 0))),
            num_gpus=int(total.get("GPU", 0)),
            resources=resources,
            # A cluster that has yet to grow has only its head, which may lend no core at all.
            num_cpus_one_node=int(max(one, default=0)) or resources.cpus_per_worker,
            num_nodes=max(1, len(one)),
            per_node=tuple((int(n.get("CPU", 0)), int(n.get("GPU", 0))) for n in alive),
            may_grow=address != "local",
        )
    finally:
        if ours:
            ray.shutdown()


def _init(address: str) -> None:
    environment = dict(_WORKER_ENVIRONMENT)
    environment.update({name: os.environ[name] for name in _FORWARDED if name in os.environ})
    for name in _set_by_the_job():  # Ray refuses a variable that is set twice
        environment.pop(name, None)
    local = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    # Ray's C++ core warns on stderr about the retries that Ray Data sets up. What fails for real
    # arrives as an exception, so its own voice is turned off, and its line that says so as well.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with _stderr_muted():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": environment},
                **(local if address == "local" else {}),
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"Ray at {address!r} (resources.address or RAY_ADDRESS) cannot be used: {error}\n"
            "Start a cluster with `ray start --head`, or leave the address out to run on this "
            "machine alone."
        ) from None


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
