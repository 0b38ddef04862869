"""THE configuration: one frozen tree of settings, a sentence under each.

Everything that changes results is a setting of its stage. Everything under ``resources`` says how
the work is done, never what comes out; it is in no fingerprint. Unknown keys are refused.

A YAML file, ``--set a.b=c`` and Python meet here::

    Config.load("jobs/alpaca.yaml", ["select.percent=5"])
    Config(pool={"paths": ["pool.jsonl"]}, select={"percent": "5"})
"""

from __future__ import annotations

import copy
import datetime
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from engine import yaml_text
from engine.errors import ConfigError, did_you_mean

BUNDLED = "bundled"
"""Model name that stands for the model shipped with the package."""
SMOLLM2 = "smollm2"
"""Name of the proxy that `make smollm2` fetches."""

SHARDS, SHARD_ROWS = 16, (256, 4096)
"""A pool is cut into this many shards, as long as their rows stay between these."""

MOST_PROBLEMS, MOST_LETTERS = 11, 200
"""Of an error's text."""

MAX_ROW_BYTES = 16 * 2**20

STAGE_NAMES = (
    "pool",
    "embed",
    "cluster",
    "tokens",
    "perplexity",
    "finetune",
    "score",
    "select",
    "report",
)
"""The stages in order, by name; `pipeline.STAGES` are the modules."""

Dtype = Literal["float32", "bfloat16"]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction01 = Annotated[float, Field(ge=0, lt=1)]
KmeansSeed = Annotated[int, Field(ge=0, lt=2**31)]
"""faiss takes a C int; numpy takes no negative number."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Part01 = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FieldMap(Section):
    """Names of a row's own keys, for formats that are not recognised from their keys."""

    prompt: str | None = None
    """Key of the instruction (flat rows)."""
    input: str | None = None
    """Key of the instruction's further context (flat rows)."""
    response: str | None = None
    """Key of the response (flat rows)."""
    history: str | None = None
    """Key of the earlier rounds, a list of [user, assistant] pairs (flat rows)."""
    system: str | None = None
    """Key of the system text."""
    turns: str | None = None
    """Key of the list of turns (chat rows)."""
    role: str | None = None
    """Key of the role inside a turn; unset: role, else from."""
    content: str | None = None
    """Key of the text inside a turn; unset: content, else value."""
    thinking: str | None = None
    """Key of what the assistant reasoned before its response (flat rows), or inside a turn."""
    weight: str | None = None
    """Key inside a turn whose 0 or false makes context of it; without it the usual ones."""
    roles: Mapping[str, str] = Field(default_factory=dict)
    """The pool's role names to ours (system, user, assistant), where they are unusual."""

    @model_validator(mode="after")
    def _flat_or_chat(self) -> FieldMap:
        flat = self.prompt is not None and self.response is not None
        if flat == (self.turns is not None):
            raise ValueError("name either both prompt and response, or turns")
        if self.turns is not None and (self.input is not None or self.history is not None):
            raise ValueError("input and history go with prompt and response, not with turns")
        return self


class PoolConfig(Section):
    """1-pool: which rows there are."""

    paths: tuple[str, ...] = ()
    """Files, folders or globs of .jsonl, .json, .csv, .tsv (also .gz, .zst), .parquet, .arrow."""
    fields: FieldMap | None = None
    """Names of the rows' keys, where the format is not recognised from them."""
    source_field: str | None = None
    """Key whose value names a row's source, `meta.source` for one inside an object; without it, and
    in rows that lack it, the source is the file's stem."""
    holdout_fraction: Fraction01 = 0.0
    """Part of the rows, by hash of their id, that is scored but never trained on or selected."""
    shard_rows: PositiveInt | None = None
    """Rows per shard, the unit of work and of resume; unset: a 16th of the pool, 256 to 4,096."""
    shard_bytes: PositiveInt = 64 * 2**20
    """Bytes of `raw` text at which a shard is closed early."""
    max_row_bytes: PositiveInt = MAX_ROW_BYTES
    """Larger rows are rejected before they are parsed."""
    max_reject_fraction: Part01 = 0.01
    """Part of the lines that may be rejected before the run stops; one line always may."""
    keep_broken_files: bool = False
    """Score the rows before the break of a damaged file, instead of stopping."""

    def rows_per_shard(self, num_rows: int) -> int:
        """Rows of each shard but the last, in a pool of `num_rows`.

        A function of the pool alone: a small one still gives work to several actors and loses
        little when one dies, a large one is not scattered over too many files.
        """
        few, many = SHARD_ROWS
        return self.shard_rows or min(many, max(few, math.ceil(num_rows / SHARDS)))


class EmbedConfig(Section):
    """2-embed: a sentence embedding per row."""

    model: str = BUNDLED
    """A sentence-transformers model: hub id, local folder, or `bundled` (all-MiniLM-L6-v2)."""
    revision: str | None = None
    """Commit of the hub model (40 hex digits); looked up as `proxy.revision` is."""
    max_tokens: PositiveInt = 256
    """Tokens of a row that the embedder sees."""
    dtype: Dtype = "float32"
    """Precision of the embedder."""


class ClustersConfig(Section):
    """3-cluster: k-means over the embeddings."""

    num: PositiveInt | None = None
    """Number of clusters; without it one per `rows_per_cluster` rows."""
    rows_per_cluster: PositiveInt = 50
    """Rows per cluster aimed at when `num` is not given."""
    num_iterations: PositiveInt = 20
    """Iterations of Lloyd's algorithm."""
    seed: KmeansSeed = 42
    """Seed of the initial centroids."""
    two_level_from: PositiveInt = 500_000
    """Embedded rows from which on k-means runs in two levels. Its cost grows with the square of the
    rows, five minutes on two cores at this size; in two levels with their power 1.5."""


class ProxyConfig(Section):
    """The small language model whose learning is measured."""

    name: str | None = None
    """Name of its folder under `proxies/`; without it the last part of `model`."""
    model: str = BUNDLED
    """A causal language model: hub id, local folder, GGUF file, `smollm2` (once `make smollm2` has
    fetched it) or `bundled`. Safetensors only; `poolscore convert` makes them of .bin files."""
    revision: str | None = None
    """Commit of the hub model (40 hex digits). Unset, or the name of a branch: looked up once and
    written down; without a network it must be given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of scoring and training; `auto` is bfloat16 on GPUs, float32 on CPUs."""
    template: Literal["alpaca", "chat"] = "alpaca"
    """Prompt wording: the paper's Alpaca text, or the tokenizer's own chat template."""
    scored_turns: Literal["all", "last"] = "all"
    """Which assistant turns are scored and trained: all, or the last. Never one the pool masks."""
    date: datetime.date | None = None
    """What a chat template prints as today's date, YYYY-MM-DD; without it the day of the first run,
    where the template asks for today's."""
    max_tokens: PositiveInt = 512
    """Context in tokens; longer rows are cut on the right. The model's own limit caps it."""


class FinetuneConfig(Section):
    """6-finetune: one epoch over the pool, step by step as the paper's reference does it."""

    num_epochs: PositiveInt = 1
    """Epochs to train and score; LP_app needs one."""
    schedule_epochs: PositiveInt | None = None
    """Length of the cosine schedule in epochs; the paper's P_1 lies in one of 3."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate; without it the bundled proxy's own, else the paper's 2e-5."""
    schedule: Literal["nonzero", "published"] = "nonzero"
    """Cosine with warm-up: `nonzero` trains in every step, `published` is the paper's, whose first
    step has the learning rate 0 and so trains nothing."""
    batch_size: PositiveInt | None = None
    """Rows per optimizer step, over all workers; without it the paper's 96, or less for a pool
    that would give an epoch fewer than 32 steps then (64, 32, 16 or 8)."""
    warmup_fraction: Fraction01 = 0.03
    """Part of the schedule over which the learning rate rises to its peak."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay."""
    betas: tuple[Fraction01, Fraction01] = (0.9, 0.999)
    """AdamW's moment decays."""
    epsilon: PositiveFloat = 1e-8
    """AdamW's epsilon."""
    max_grad_norm: NonNegativeFloat = 1.0
    """Gradient norm to clip at; 0 for no clipping."""
    dropout: Fraction01 = 0.0
    """Every dropout probability of the model while training."""
    seed: Seed = 42
    """Seed of the epoch's order (and of dropout, where there is any)."""

    @model_validator(mode="after")
    def _schedule_is_long_enough(self) -> FinetuneConfig:
        if self.schedule_epochs is not None and self.schedule_epochs < self.num_epochs:
            raise ValueError("schedule_epochs must not be smaller than num_epochs")
        return self


class SelectConfig(Section):
    """8-select: how many rows of every cluster are taken, and from which end."""

    percent: Annotated[Decimal, Field(gt=0, le=100)] | None = None
    """Percent of the scored training rows to select; 10 when no size is given."""
    rows: PositiveInt | None = None
    """Number of rows to select."""
    tokens: PositiveInt | None = None
    """Token budget (prompt and response) that the selected rows fit into."""
    metric: str = "lp_app_1"
    """Score column to order by."""
    order: Literal["low", "mid", "high"] = "low"
    """Which part of each cluster to take: lowest, middle or highest scores."""
    rule: Literal["exact", "reference"] = "exact"
    """Exact percentages, or the published code's array_split (which rounds up per cluster)."""

    @field_validator("percent")
    @classmethod
    def _plain(cls, percent: Decimal | None) -> Decimal | None:
        """10 and 10.0 are one setting."""
        return None if percent is None else Decimal(format(percent.normalize(), "f"))

    @model_validator(mode="after")
    def _one_size(self) -> SelectConfig:
        if sum(size is not None for size in (self.percent, self.rows, self.tokens)) > 1:
            raise ValueError("give one of percent, rows and tokens")
        if self.rule == "reference" and (self.rows is not None or self.tokens is not None):
            raise ValueError("the reference rule knows only percent")
        return self


class ResourcesConfig(Section):
    """How the work is done. Never changes what comes out, so it is in no fingerprint."""

    address: str | None = None
    """Ray cluster to use; without it RAY_ADDRESS, else a private Ray on this machine."""
    insecure_local: bool = False
    """Use a Ray cluster on this machine whose job API answers without a token."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; `auto` takes GPUs where the cluster has any."""
    num_workers: PositiveInt | None = None
    """Scoring and embedding actors; without it as many as the cluster holds."""
    cpus_per_worker: PositiveInt | None = None
    """CPU cores and torch threads of each actor and training worker; without it 2 beside a GPU. On
    CPUs then 1 per actor, or more where there are few shards or little memory for models, and for
    training a worker's whole share of the machine."""
    train_workers: PositiveInt | None = None
    """Training workers; without it one per GPU, or one on CPU."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """DeepSpeed ZeRO stage; without it the lowest whose states fit into a worker's memory."""
    micro_batch_tokens: PositiveInt | None = None
    """Padded tokens per forward and backward pass of one training worker; without it 2,048 on CPUs,
    8,192 on GPUs."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, a third more compute. Without it
    only where a micro-batch's activations would not fit into a worker's memory."""
    score_batch_tokens: PositiveInt | None = None
    """Padded tokens per scoring batch; without it what this proxy's last run here used, else 1,024
    on CPUs and 32,768 on GPUs."""
    embed_batch_rows: PositiveInt | None = None
    """Rows per embedding batch; without it 16 on CPUs, 256 on GPUs."""
    stall_seconds: PositiveInt = 600
    """Seconds without a sign of life (a batch, an optimizer step, a block of lines) after which a
    run stops and says what hangs."""
    checkpoint_seconds: NonNegativeFloat | None = 900
    """Seconds between two checkpoints inside a training epoch; 0 for one after each step, null for
    none."""
    price_per_node_hour: NonNegativeFloat | None = None
    """What an hour of one node costs, in any currency, for `poolscore plan`."""


class Config(Section):
    """Every setting of a run."""

    pool: PoolConfig = PoolConfig()
    embed: EmbedConfig = EmbedConfig()
    clusters: ClustersConfig = ClustersConfig()
    proxy: ProxyConfig = ProxyConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    select: SelectConfig = SelectConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @classmethod
    def load(cls, path: str | Path | None = None, settings: Sequence[str] = ()) -> Config:
        """Read a YAML file (or the defaults) and lay ``a.b=c`` settings over it.

        Raises:
            ConfigError: the file is unreadable, a key is unknown or a value is wrong.
        """
        tree = _read_yaml(Path(path)) if path is not None else {}
        own = copy.deepcopy(tree)
        for setting in settings:
            _set(tree, setting)
        try:
            return cls.from_tree(tree, where="--set")
        except ConfigError:
            if path is not None:
                cls.from_tree(own, where=str(path))  # told as the file's where it is the file's
            raise

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], where: str = "the configuration") -> Config:
        """Validate a nested mapping; errors name every wrong key, its value and what is allowed."""
        yaml_text.refuse_unwritable(tree, where)
        return cls.model_validate(tree, context={"where": where})

    @model_validator(mode="wrap")
    @classmethod
    def _told_to_people(
        cls, tree: Any, handler: ModelWrapValidatorHandler[Config], info: ValidationInfo
    ) -> Config:
        try:
            return handler(tree)
        except ValidationError as error:
            context: dict[str, str] = info.context or {}
            where = context.get("where", "engine.Config")
            raise ConfigError(_explain(error, where)) from None

    def override(self, **sections: Mapping[str, Any]) -> Config:
        """A copy with some settings replaced: ``config.override(select={"percent": 5})``."""
        tree = self.model_dump(mode="json")
        for section, values in sections.items():
            tree[section] = {**tree[section], **values}
        return Config.from_tree(tree)

    def to_yaml(self) -> str:
        """The whole configuration as YAML, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def proxy_name(self) -> str:
        """Folder name of the proxy under ``proxies/``, safe for a file system."""
        name = self.proxy.name or Path(self.proxy.model).name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "proxy"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml_text.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the configuration {path} is not valid YAML:\n{error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"the configuration {path} must be a mapping of sections")
    return cast("dict[str, Any]", tree)


def _set(tree: dict[str, Any], setting: str) -> None:
    """Lay one ``a.b=c`` over the tree; the value is read as YAML, so ``null`` and ``[a]`` work."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, for example select.percent=5; got {setting!r}")
    *parents, last = key.strip().split(".")
    for parent in parents:
        below: object = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {setting}: {parent!r} holds a value, not a section")
        tree = cast("dict[str, Any]", below)
    try:
        tree[last] = _number(text)
    except ValueError:
        raise ConfigError(
            f"--set {_shown(setting)}: the value is not valid YAML; quote it"
        ) from None


def _number(text: str) -> Any:
    """YAML, except that 5e-4 is a number too (YAML 1.1 wants a dot in it)."""
    value: Any = yaml_text.load(text)
    if re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text.strip()):  # not when quoted
        return float(text)
    return value


def _explain(error: ValidationError, where: str) -> str:
    lines = [f"wrong settings in {where}:"]
    problems = error.errors()
    for problem in problems[:MOST_PROBLEMS]:
        key = _shown(".".join(str(part) for part in problem["loc"])) or "(top level)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: no such setting{_meant(problem['loc'])}")
            lines.append(f"    Allowed here: {', '.join(_beside(problem['loc']))}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"  {key} = {reprlib.repr(problem['input'])}: {_shown(message)}")
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"  and {len(problems) - MOST_PROBLEMS:,} more")
    return "\n".join(lines)


def _shown(text: str) -> str:
    """The beginning of a text that may be of any length."""
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def _meant(loc: tuple[int | str, ...]) -> str:
    """The setting that may have been meant: one beside it, else one of that name elsewhere."""
    key = str(loc[-1])
    if told := did_you_mean(key, _beside(loc)):
        return told
    elsewhere = [
        f"{name}.{key}"
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
        and key in field.annotation.model_fields
    ]
    return f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else ""


def _beside(loc: tuple[int | str, ...]) -> list[str]:
    """Names of the settings beside an unknown key."""
    section: type[BaseModel] = Config
    for part in loc[:-1]:
        annotation = section.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            annotation = FieldMap
        section = annotation
    return list(section.model_fields)
