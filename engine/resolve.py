"""Settings that were left open, filled in for the model and the machine, and so recorded."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

from engine import hub, models, rundir
from engine.assets import bundled_proxy
from engine.chat.rendering import prints_today
from engine.config import BUNDLED, SMOLLM2, Config, EmbedConfig, ProxyConfig
from engine.errors import ConfigError, beginning
from engine.rundir import RunDir
from engine.stages.select import DEFAULT_PERCENT
from engine.step import PERPLEXITY, TOKENS, proxy_folder

PAPER_LEARNING_RATE = 2e-5
MAIN = "main"
"""The hub's name of the branch that is meant where none is given."""
_BATCH_DEFAULTS = {
    "score_batch_tokens": (1024, 32768),
    "micro_batch_tokens": (2048, 8192),
    "embed_batch_rows": (16, 256),
}
"""On CPUs small batches stay in the cache: the bundled proxy scores the sample pool at 30,000
tokens/s under 1,024 and 21,000 under 4,096 (two cores). On GPUs large ones keep the cores busy."""


def resolve(config: Config, device: str, before: Config | None = None) -> Config:
    """Fill in every setting that depends on the model or the machine, so that it is recorded.

    Args:
        config: settings as they were given.
        device: ``cpu`` or ``cuda``.
        before: settings of this proxy's last run here; they decide where nothing was given,
            whatever machine goes on with it.
    """
    proxy = config.proxy.model_dump(mode="json")
    finetune_ = config.finetune.model_dump(mode="json")
    is_bundled = config.proxy.model == BUNDLED
    if proxy["name"] is None and is_bundled:
        proxy["name"] = bundled_proxy().folder.name
    if proxy["dtype"] == "auto":
        here = "bfloat16" if device == "cuda" else "float32"
        proxy["dtype"] = before.proxy.dtype if before else here
    if finetune_["learning_rate"] is None:
        rate = bundled_proxy().learning_rate if is_bundled else PAPER_LEARNING_RATE
        finetune_["learning_rate"] = rate
    if finetune_["schedule_epochs"] is None:
        finetune_["schedule_epochs"] = finetune_["num_epochs"]
    resources = config.resources.model_dump(mode="json")
    if resources["score_batch_tokens"] is None and before:
        resources["score_batch_tokens"] = before.resources.score_batch_tokens
    for name in _BATCH_DEFAULTS:
        if resources[name] is None:
            resources[name] = default_batch(name, device)
    embed_ = config.embed.model_dump(mode="json")
    for section in (proxy, embed_):
        section["model"] = _absolute(section["model"])
    resolved = config.override(
        pool={"paths": [_absolute(path, must_exist=False) for path in config.pool.paths]},
        proxy=proxy,
        embed=embed_,
        finetune=finetune_,
        resources=resources,
    )
    sizes = (config.select.percent, config.select.rows, config.select.tokens)
    if all(size is None for size in sizes):
        resolved = resolved.override(select={"percent": str(DEFAULT_PERCENT)})
    return resolved


def default_batch(name: str, device: str) -> int:
    """Size of a batch where the setting `resources.NAME` was left open."""
    on_cpu, on_gpu = _BATCH_DEFAULTS[name]
    return on_gpu if device == "cuda" else on_cpu


def settle(
    config: Config,
    device: str,
    run: RunDir | None,
    rebuild: Sequence[str] = (),
    warn: Callable[[str], object] = lambda text: None,
) -> Config:
    """`resolve` for a run directory, after what an earlier run in it was done with.

    Args:
        config: settings as they were given.
        device: ``cpu`` or ``cuda``.
        run: the run directory, if there is one.
        rebuild: stages that will be redone.
        warn: takes a sentence about each file of an earlier run's settings that cannot be used.

    Raises:
        ModelError: a hub model has no commit, and it cannot be looked up.
    """
    resolved = resolve(config, device)
    own = _recorded(run, proxy_folder(resolved), warn)
    latest = _recorded(run, ".", warn)
    if run is not None and _keeps_scores(resolved, run, rebuild):
        resolved = resolve(config, device, own)
    resolved = resolved.override(
        proxy={"revision": _commit(resolved.proxy, "proxy", own and own.proxy)},
        embed={"revision": _commit(resolved.embed, "embed", latest and latest.embed)},
    )
    return _on_one_day(resolved, run, rebuild, own)


def _recorded(run: RunDir | None, folder: str, warn: Callable[[str], object]) -> Config | None:
    """The settings that an earlier run left; None where there are none, or none that can be used.

    Nothing hangs on them but what was left open: finished stages have their settings in their
    records, and a run that would mix two is refused.
    """
    path = run.path / folder / rundir.SETTINGS if run else None
    if path is None or not path.exists():
        return None
    try:
        return Config.load(path)
    except ConfigError as error:
        told = " ".join(beginning(str(error)).split())
        warn(
            f"{path} is damaged, or of another version of poolscore, and is written anew: {told} "
            "What it said of settings that were left open is lost; where a finished stage was "
            "made with others, this run says so and stops."
        )
        return None


def _on_one_day(
    config: Config, run: RunDir | None, rebuild: Sequence[str], recorded: Config | None
) -> Config:
    """The day that the chat template prints, where it prints today's: the first run's, so that one
    that passes midnight does not mix two, and one that goes on tomorrow makes the same tokens.
    """
    proxy = config.proxy
    if proxy.template != "chat" or proxy.date is not None:
        return config
    own = run.path / proxy_folder(config) if run else None
    if own and (own / TOKENS).exists() and not {"pool", "tokens"}.intersection(rebuild):
        before = recorded.proxy if recorded else None
        if before and (before.model, before.template) == (proxy.model, proxy.template):
            return config.override(proxy={"date": before.date and before.date.isoformat()})
    if not prints_today(models.load_tokenizer(models.proxy_source(config))):
        return config
    return config.override(proxy={"date": datetime.date.today().isoformat()})


def commits_told(given: Config, settled: Config) -> list[str]:
    """A line for each hub model whose commit was not given, for the screen."""
    pairs = {
        "proxy": (given.proxy, settled.proxy),
        "embed": (given.embed, settled.embed),
    }
    return [
        f"{section}.model {after.model} is taken at commit {after.revision}; "
        f"{section}.revision={after.revision} gives the same one anywhere"
        for section, (before, after) in pairs.items()
        if after.revision != before.revision
    ]


def _commit(
    model: ProxyConfig | EmbedConfig, section: str, known: ProxyConfig | EmbedConfig | None
) -> str | None:
    """The revision of a model: a hub model's becomes a commit, the one recorded here first.

    A branch moves; what a run directory was begun with does not.
    """
    if not is_of_the_hub(model.model) or hub.is_commit(model.revision):
        return model.revision
    is_open = model.revision in (None, MAIN)
    if known and is_open and known.model == model.model and hub.is_commit(known.revision):
        return known.revision
    return hub.commit_of(f"{section}.model", model.model, model.revision)


def is_of_the_hub(name: str) -> bool:
    """Whether a model's name is neither a word of ours nor anything on this machine."""
    path = Path(name).expanduser()
    local = path.exists() or path.is_absolute() or name.startswith((".", "~"))
    return not (name in (BUNDLED, SMOLLM2) or local or hub.cannot_be(name))


def _absolute(path: str, must_exist: bool = True) -> str:
    """A local path as every process sees it; hub ids and addresses stay as they are."""
    if path in ("", BUNDLED, SMOLLM2) or "://" in path:
        return path
    local = Path(path).expanduser()
    return str(local.absolute()) if local.exists() or not must_exist else path


_BEFORE_SCORING = {"pool", "tokens", "perplexity"}


def _keeps_scores(config: Config, run: RunDir, rebuild: Sequence[str]) -> bool:
    """Whether anything that this proxy's last run has scored will be kept."""
    scored = (run.path / proxy_folder(config) / PERPLEXITY).exists()
    return scored and not _BEFORE_SCORING.intersection(rebuild)
