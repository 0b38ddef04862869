"""The columns of every artefact and the reason codes of rows, as constants.

A run directory is read by name: ``<stage folder>/part-00042.parquet`` holds the same rows in the
same order as ``1-pool/part-00042.parquet``. What each column means is said once, here, in the
field's metadata, and travels inside every Parquet file.
"""

# pyarrow ships no types, so nothing that comes out of it is known to a strict checker.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from typing import Final

import pyarrow as pa

# ── row flags ────────────────────────────────────────────────────────────────────────────────────
# A flagged row stays a row in every artefact; it just has no embedding, score or rank.
OK: Final = "ok"
DUPLICATE: Final = "duplicate"
EMPTY_RESPONSE: Final = "empty_response"
EMPTY_PROMPT: Final = "empty_prompt"
NO_RESPONSE: Final = "no_response"
ASSISTANT_FIRST: Final = "assistant_first"
ROLES_NOT_ALTERNATING: Final = "roles_not_alternating"
TOOL_TURN: Final = "tool_turn"
NON_TEXT_CONTENT: Final = "non_text_content"
ALL_MASKED: Final = "all_masked"
PROMPT_TOO_LONG: Final = "prompt_too_long"
NO_SCORED_TOKEN: Final = "no_scored_token"
THINKING_NOT_RENDERED: Final = "thinking_not_rendered"
TEMPLATE_REWRITES: Final = "template_rewrites"
TEMPLATE_REFUSED: Final = "template_refused"
UNKNOWN_TOKEN: Final = "unknown_token"
NOT_FINITE: Final = "not_finite"
EMBEDDING_FAILED: Final = "embedding_failed"
TOKENISING_FAILED: Final = "tokenising_failed"
SCORING_FAILED: Final = "scoring_failed"

FLAGS: Final[dict[str, str]] = {
    OK: "scored",
    DUPLICATE: "same turns as an earlier row",
    EMPTY_RESPONSE: "an assistant turn is empty or only white space",
    EMPTY_PROMPT: "the first user turn is empty or only white space",
    NO_RESPONSE: "no assistant turn",
    ASSISTANT_FIRST: "an assistant turn comes before the first user turn",
    ROLES_NOT_ALTERNATING: "two turns of one role in a row, or a system turn past the first place",
    TOOL_TURN: "a tool or function turn, a turn that calls a tool, or tools that a row offers",
    NON_TEXT_CONTENT: "an image, a video, audio, or content with a part that is not text",
    ALL_MASKED: "the pool masks every assistant turn: nothing to score",
    PROMPT_TOO_LONG: "the prompt fills the context, no response token is left to score",
    NO_SCORED_TOKEN: "every assistant turn is masked, or the chat template marks none of it",
    THINKING_NOT_RENDERED: "the template leaves out what the last answer was reasoned from",
    TEMPLATE_REWRITES: "the chat template changes a response, or its end, beyond recognition",
    TEMPLATE_REFUSED: "the chat template raised an error on this conversation",
    UNKNOWN_TOKEN: "a token that the proxy has no embedding for",
    NOT_FINITE: "a mean NLL or a score is NaN or infinite",
    EMBEDDING_FAILED: "the embedder raised an error on it alone, or died",
    TOKENISING_FAILED: "the tokenizer raised an error on it alone, or died",
    SCORING_FAILED: "the proxy raised an error on it alone, or died",
}

# ── reject reasons ───────────────────────────────────────────────────────────────────────────────
# A rejected line never became a conversation: it is no row, and is listed in rejected.parquet.
INVALID_UTF8: Final = "invalid_utf8"
INVALID_JSON: Final = "invalid_json"
NOT_AN_OBJECT: Final = "not_an_object"
UNKNOWN_FORMAT: Final = "unknown_format"
MISSING_FIELD: Final = "missing_field"
WRONG_TYPE: Final = "wrong_type"
UNKNOWN_ROLE: Final = "unknown_role"
LONE_SURROGATE: Final = "lone_surrogate"
NO_TURNS: Final = "no_turns"
DUPLICATE_KEY: Final = "duplicate_key"
RAGGED_ROW: Final = "ragged_row"
ROW_TOO_LARGE: Final = "row_too_large"
BROKEN_FILE: Final = "broken_file"
WRONG_KIND: Final = "wrong_kind"
UNSAFE_FILE: Final = "unsafe_file"

REJECT_REASONS: Final[dict[str, str]] = {
    INVALID_UTF8: "the line is not valid UTF-8",
    INVALID_JSON: "the line is not valid JSON",
    NOT_AN_OBJECT: "the line is JSON, but no object",
    UNKNOWN_FORMAT: "the keys fit no known format",
    MISSING_FIELD: "a field that the format needs is missing",
    WRONG_TYPE: "a field has the wrong type",
    UNKNOWN_ROLE: "a turn's role is none that is known",
    LONE_SURROGATE: "the text holds half a surrogate pair, which no Unicode text can",
    NO_TURNS: "the conversation has no turns",
    DUPLICATE_KEY: "an object names a key twice, and which value counts is anyone's guess",
    RAGGED_ROW: "the row has more or fewer fields than the header names",
    ROW_TOO_LARGE: "the row is larger than pool.max_row_bytes",
    BROKEN_FILE: "the file breaks off or is damaged here; the rows before are whole",
    WRONG_KIND: "the file is not of the kind that its name says",
    UNSAFE_FILE: "the file is refused unread: it could run code or fill the memory",
}
FILE_REASONS: Final = (BROKEN_FILE, WRONG_KIND, UNSAFE_FILE)
"""Reasons that cost more than their line: nobody knows how many rows the file would have held."""

# ── splits ───────────────────────────────────────────────────────────────────────────────────────
TRAIN: Final = "train"
HOLDOUT: Final = "holdout"

# ── roles ────────────────────────────────────────────────────────────────────────────────────────
# `input` is Alpaca's and Dolly's second field: a turn of its own that follows the instruction, so
# that the row's id covers it and each template can put it where it belongs.
SYSTEM: Final = "system"
USER: Final = "user"
INPUT: Final = "input"
ASSISTANT: Final = "assistant"


def _field(name: str, type_: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, type_, metadata={b"meaning": meaning.encode()})


TURN = pa.struct(
    [
        pa.field("role", pa.string()),
        pa.field("content", pa.large_string()),
        pa.field("thinking", pa.large_string()),
        pa.field("scored", pa.bool_()),
    ]
)
"""`thinking` is what an assistant reasoned before its content, kept apart by the pool, else empty;
`scored` is false for an assistant turn that the pool masks: it is context, as a user's is."""

_ID = _field("id", pa.string(), "first 32 hex digits of SHA-256 over the turns")
_ROW = _field("row", pa.int64(), "place in the pool, from 0")
_SOURCE = _field("source", pa.string(), "the configured source field, else the file's stem")
_SPLIT = _field("split", pa.string(), "train or holdout, by hash of the id")
_FLAG = _field("flag", pa.string(), "ok, or why the row is not scored")
_RAW = _field("raw", pa.large_string(), "the row's own JSON, byte for byte")
_NUM_PROMPT = _field("num_prompt_tokens", pa.int32(), "tokens that are not scored")
_NUM_RESPONSE = _field("num_response_tokens", pa.int32(), "tokens that are scored")
_TRUNCATED = _field("truncated", pa.bool_(), "the row was cut at the context's end")

POOL = pa.schema(
    [
        _ID,
        _ROW,
        _SOURCE,
        _field("file", pa.string(), "path of the file, relative to the pool's common folder"),
        _field("line", pa.int64(), "line in the file from 1; row number for Parquet"),
        _SPLIT,
        _field("turns", pa.list_(TURN), "the conversation, turn by turn"),
        _RAW,
        _FLAG,
    ]
)

REJECTED = pa.schema(
    [
        _field("file", pa.string(), "path of the file, relative to the pool's common folder"),
        _field("line", pa.int64(), "line in the file from 1; row number for Parquet"),
        _field("reason", pa.string(), "reason code"),
        _field("detail", pa.string(), "what exactly is wrong, without the row's text"),
    ]
)


def embeddings(dimension: int) -> pa.Schema:
    """Schema of ``2-embed``: `embedding` is float32[dimension], null for flagged rows."""
    vector = pa.list_(pa.float32(), dimension)
    return pa.schema(
        [_ID, _field("embedding", vector, "sentence embedding, as the model gives it")]
    )


CLUSTERS = pa.schema(
    [
        _ID,
        _field("cluster", pa.int32(), "index of the nearest centroid; null for flagged rows"),
        _field("distance", pa.float32(), "Euclidean distance to that centroid"),
    ]
)


def centroids(dimension: int) -> pa.Schema:
    """Schema of ``3-cluster/centroids.parquet``: one row per cluster, float32[dimension]."""
    return pa.schema(
        [
            _field("cluster", pa.int32(), "index of the cluster"),
            _field("num_rows", pa.int64(), "rows nearest to this centroid"),
            _field("centroid", pa.list_(pa.float32(), dimension), "mean of the cluster's rows"),
        ]
    )


TOKENS = pa.schema(
    [
        _ID,
        _field("input_ids", pa.large_list(pa.int32()), "token ids; null for flagged rows"),
        _field("scored", pa.large_list(pa.int32()), "positions in input_ids that are scored"),
        _field("end_scored", pa.bool_(), "the last scored position is the final end-of-turn token"),
        _NUM_PROMPT,
        _NUM_RESPONSE,
        _TRUNCATED,
        _FLAG,
    ]
)

PERPLEXITY = pa.schema(
    [
        _ID,
        _field("nll_sum", pa.float64(), "summed NLL of the scored tokens, nats; null if flagged"),
        _field("num_tokens", pa.int32(), "number of scored tokens"),
        _field("nll_last", pa.float64(), "NLL of the end token, nats; null when it was cut off"),
    ]
)

STEPS = pa.schema(
    [
        _field("step", pa.int64(), "optimizer step of the epoch, from 0"),
        _field("loss", pa.float64(), "mean NLL per scored token of the global batch, nats"),
        _field("learning_rate", pa.float64(), "learning rate of this step"),
        _field("grad_norm", pa.float64(), "gradient norm before clipping"),
        _field("num_tokens", pa.int64(), "scored tokens in the global batch"),
        _field("rows", pa.list_(pa.int64()), "rows of the global batch, all ranks, sorted"),
    ]
)


def scores(num_epochs: int) -> pa.Schema:
    """Schema of ``7-score`` after `num_epochs` epochs; from two epochs on with ``lp_1 … lp_n``."""
    epochs = range(num_epochs + 1)
    columns = [
        _ID,
        _ROW,
        _SOURCE,
        _SPLIT,
        _field("cluster", pa.int32(), "cluster of similar rows"),
        _field("distance", pa.float32(), "Euclidean distance to the cluster's centroid"),
        _NUM_PROMPT,
        _NUM_RESPONSE,
        _TRUNCATED,
        *(
            _field(f"mean_nll_{i}", pa.float64(), f"nats per scored token after epoch {i}")
            for i in epochs
        ),
        *(_field(f"ppl_{i}", pa.float64(), f"perplexity after epoch {i}") for i in epochs),
        *(
            _field(f"lp_app_{i}", pa.float64(), f"(ppl_0 - ppl_{i}) / ppl_0; low = hard")
            for i in epochs
            if i > 0
        ),
        *(
            _field(f"lp_{i}", pa.float64(), f"(ppl_{i - 1} - ppl_{i}) / (ppl_0 - ppl_{num_epochs})")
            for i in epochs
            if i > 0 and num_epochs > 1
        ),
        _field("rank_in_cluster", pa.int32(), "0 = lowest lp_app_1 (hardest) of the cluster"),
        _FLAG,
    ]
    return pa.schema(columns)


def selection(num_epochs: int) -> pa.Schema:
    """Schema of ``8-select/selected.parquet``: the score columns and `raw`."""
    return scores(num_epochs).append(_RAW)
