"""The template tried before any work: on made-up conversations, and on lines of the pool.

What comes out is what a run would find hours later: that a template scores nothing, or how many
rows it and the context's length would cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice

from engine import formats, readers, schema
from engine.config import Config, PoolConfig
from engine.encoding import Encoded, scored_turns
from engine.errors import ConfigError, PoolscoreError
from engine.formats import Turn
from engine.text import Template

SAMPLE_ROWS = 200
MAX_FILES = 8
MAX_ARRAY_BYTES = 64 * 2**20
WORTH_SAYING = 0.01
"""Part of the rows below which nobody need hear of them before the report."""
TOO_MANY = 0.5
"""Part of the rows that the template may cost before the run stops."""

_QUESTION, _ANSWER = Turn(schema.USER, "Name a colour."), Turn(schema.ASSISTANT, "Blue.")
CONVERSATIONS = (
    (_QUESTION, _ANSWER),
    (_QUESTION, _ANSWER, Turn(schema.USER, "Another."), Turn(schema.ASSISTANT, "Red.")),
    (Turn(schema.SYSTEM, "Be brief."), _QUESTION, _ANSWER),
)
"""One round, two, and one behind a system turn."""
_FIX = {
    "chat": "Use proxy.template=alpaca, or a model whose chat template takes such rows.",
    "alpaca": "Use proxy.template=chat with a model whose chat template renders thoughts.",
}
TEMPLATE_FLAGS = (
    schema.TEMPLATE_REFUSED,
    schema.TEMPLATE_REWRITES,
    schema.THINKING_NOT_RENDERED,
    schema.NO_SCORED_TOKEN,
)


def try_template(template: Template, config: Config) -> list[str]:
    """Warnings about rows that would not be scored, found in seconds.

    Raises:
        ConfigError: the template scores nothing of any conversation, or would cost most rows.
    """
    made_up = template.encode(CONVERSATIONS)
    if not any(_is_scored(row) for row in made_up):
        told = "; ".join(_meaning(row.flag) for row in made_up[:1])
        raise ConfigError(
            f"proxy.template = {config.proxy.template!r}: nothing of a plain question and answer "
            f"would be scored ({told}).\nUse proxy.template=alpaca, or a model with another chat "
            "template."
        )
    rows = [
        turns
        for turns in pool_head(config.pool)
        if scored_turns(turns, config.proxy.scored_turns)  # else it is the pool that says so
    ]
    return judge(template.encode(rows), config)


def judge(rows: Sequence[Encoded], config: Config) -> list[str]:
    """Warnings about what these rows of the pool say of all.

    Raises:
        ConfigError: the template costs most of them.
    """
    counts = Counter(row.flag for row in rows)
    kind = config.proxy.template
    by_template = sum(counts[flag] for flag in TEMPLATE_FLAGS)
    if by_template > TOO_MANY * len(rows):
        raise ConfigError(
            f"proxy.template = {kind!r}: of the pool's first {len(rows):,} rows "
            f"{by_template:,} could not be scored:\n{_listed(counts, TEMPLATE_FLAGS)}{_FIX[kind]}"
        )
    return lost(counts, len(rows), config, "of the pool's first rows")


def lost(counts: Counter[str], num_rows: int, config: Config, which: str) -> list[str]:
    """Sentences on the rows that the template or the context's length cost, if they are many.

    Args:
        counts: rows per flag.
        num_rows: rows that might have been scored.
        config: resolved settings.
        which: what the rows are, for the sentence.
    """
    warnings: list[str] = []
    by_template = {flag: counts[flag] for flag in TEMPLATE_FLAGS if counts[flag]}
    if sum(by_template.values()) > WORTH_SAYING * num_rows:
        told = "; ".join(f"{num:,} {flag}: {_meaning(flag)}" for flag, num in by_template.items())
        share = sum(by_template.values()) / num_rows
        warnings.append(f"{share:.1%} {which} cannot be scored ({told}).")
    long = counts[schema.PROMPT_TOO_LONG]
    if long > WORTH_SAYING * num_rows:
        warnings.append(
            f"{long / num_rows:.1%} {which} have a prompt that fills the context of "
            f"{config.proxy.max_tokens:,} tokens, and are not scored. A larger proxy.max_tokens "
            "keeps them, as far as the model has positions."
        )
    return warnings


def pool_head(config: PoolConfig) -> list[tuple[Turn, ...]]:
    """Conversations from the beginning of up to eight of the pool's files, those that are ``ok``.

    Reading the whole of a large file to draw from it would take minutes. What cannot be read is
    left to the pool's stage, which says it better.
    """
    found: list[tuple[Turn, ...]] = []
    try:
        files = [file for file in readers.find_files(config.paths) if _is_quick(file)]
        files = files[:: max(1, -(-len(files) // MAX_FILES))]
        for file in files:
            pieces = readers.cut(file)
            lines = chain.from_iterable(map(readers.read_lines, pieces))
            found += _conversations(islice(lines, SAMPLE_ROWS // len(files)), config)
    except (PoolscoreError, OSError):
        pass
    return found


def _is_quick(file: readers.PoolFile) -> bool:
    """Whether its first rows come at once: an array is parsed from end to end."""
    return file.path.suffix.lower() != ".json" or file.path.stat().st_size <= MAX_ARRAY_BYTES


def _conversations(lines: Iterable[readers.Line], config: PoolConfig) -> list[tuple[Turn, ...]]:
    found: list[tuple[Turn, ...]] = []
    for line in lines:
        if line.row is None:
            continue
        try:
            turns, flag = formats.to_conversation(line.row, config.fields)
        except formats.RowError:
            continue
        if flag == schema.OK:
            found.append(turns)
    return found


def _is_scored(row: Encoded) -> bool:
    """Scored, or would be in a longer context: a tiny one is no fault of the template."""
    return row.flag in (schema.OK, schema.PROMPT_TOO_LONG)


def _listed(counts: Counter[str], flags: Sequence[str]) -> str:
    return "".join(
        f"  {flag}: {counts[flag]:,} ({_meaning(flag)})\n" for flag in flags if counts[flag]
    )


def _meaning(flag: str) -> str:
    return schema.FLAGS[flag]
