"""The report of small run directories that are written by hand: no Ray, no model."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import schema
from engine.config import Config
from engine.errors import RunDirError
from engine.nodes import Nodes
from engine.rundir import Record, RunDir
from engine.stages import report
from engine.step import Outcome, Step
from engine.wholeness import entries

PROXY = "proxies/nano"
SCORE, SELECT = f"{PROXY}/7-score", f"{PROXY}/8-select"
NO_NODES = cast(Nodes, None)  # the stage asks no other machine for anything
SELECTION = {
    "percent": "10",
    "rows": None,
    "tokens": None,
    "metric": "lp_app_1",
    "order": "low",
    "rule": "exact",
}
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
TAG = "<script>alert(1)</script>"
VOID = {"meta", "br", "line", "rect", "circle", "path", "polyline"}


@dataclass
class Pool:
    """What a run directory is written from; one entry per row."""

    lp: list[float | None]
    """None for a flagged row."""
    selected: list[int] = field(default_factory=list)
    flag: str = schema.DUPLICATE
    source: list[str] = field(default_factory=list)
    turns: list[tuple[str, str]] = field(
        default_factory=lambda: [("user", "Say it."), ("assistant", "It.")]
    )
    cluster: list[int] = field(default_factory=list)
    holdout: list[int] = field(default_factory=list)
    shard_rows: int = 4
    num_epochs: int = 1
    losses: list[float] = field(default_factory=lambda: [3.0, 2.5, 2.0])
    rejected: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """More of what the pool's record says."""
    select: dict[str, Any] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """Of stages, by folder."""

    def columns(self) -> dict[str, list[Any]]:
        """The score columns; perplexity starts at 100 and halves in every epoch past the first."""
        n, ok = range(len(self.lp)), [lp is not None for lp in self.lp]
        ppl = [[100.0 if lp is not None else None for lp in self.lp]]
        ppl.append([100 * (1 - lp) if lp is not None else None for lp in self.lp])
        for _ in range(1, self.num_epochs):
            ppl.append([value / 2 if value is not None else None for value in ppl[-1]])
        names = schema.scores(self.num_epochs).names
        cluster = self.cluster or [0] * len(self.lp)
        return {
            **{name: [None] * len(self.lp) for name in names},
            "id": [f"{i:032x}" for i in n],
            "row": list(n),
            "source": self.source or ["file"] * len(self.lp),
            "split": [schema.HOLDOUT if i in self.holdout else schema.TRAIN for i in n],
            "cluster": [c if good else None for c, good in zip(cluster, ok, strict=True)],
            "num_response_tokens": [10 + i for i in n],
            "truncated": [False] * len(self.lp),
            **{f"ppl_{i}": values for i, values in enumerate(ppl)},
            **{f"lp_app_{i}": self.lp for i in range(1, self.num_epochs + 1)},
            "flag": [schema.OK if good else self.flag for good in ok],
        }


def write(path: Path, pool: Pool) -> Step:
    """Write the run directory and give the report's step in it."""
    path.mkdir(exist_ok=True)
    run = RunDir(path)
    epochs = [f"{PROXY}/6-finetune/epoch-{e}" for e in range(1, pool.num_epochs + 1)]
    folders = ["1-pool", "3-cluster", f"{PROXY}/4-tokens", *epochs, SCORE, SELECT]
    inputs = {folder: f"made of {folder}" for folder in folders}
    scores = pa.table(pool.columns(), schema=schema.scores(pool.num_epochs))
    turns = [[{"role": r, "content": c} for r, c in pool.turns]] * len(pool.lp)
    texts = pa.table(
        {"row": scores["row"], "turns": pa.array(turns, pa.list_(schema.TURN))},
    )
    for i, start in enumerate(range(0, len(pool.lp), pool.shard_rows)):
        for folder, table in (("1-pool", texts), (SCORE, scores)):
            part = table.slice(start, pool.shard_rows)
            run.commit_table(folder, f"part-{i:05d}.parquet", part, inputs[folder])
    sizes = np.bincount(pool.cluster or [0] * len(pool.lp))
    centroids = pa.table({"cluster": range(len(sizes)), "num_rows": sizes})
    run.commit_table("3-cluster", "centroids.parquet", centroids, inputs["3-cluster"])
    for folder in epochs:
        run.commit_table(folder, "steps.parquet", pa.table({"loss": pool.losses}), inputs[folder])
    (path / SELECT).mkdir()
    selected = scores.take(pa.array(pool.selected, pa.int64()))
    pq.write_table(selected, path / SELECT / "selected.parquet")
    write_records(run, pool, inputs)
    config = Config().override(proxy={"name": "nano"}, finetune={"num_epochs": pool.num_epochs})
    return Step("report", f"{PROXY}/9-report", 0, config, run, {}, inputs, "the report's")


def write_records(run: RunDir, pool: Pool, inputs: dict[str, str]) -> None:
    num_rejected = sum(pool.rejected.values())
    settings = {
        "1-pool": {"fields": None, "files": {"pool.jsonl": "ab" * 32}},
        SELECT: {**SELECTION, **pool.select},
    }
    before = {"2-embed": "e", f"{PROXY}/5-perplexity/epoch-0": "p"}  # inputs of the inputs
    reads = {"3-cluster": ["2-embed"], SCORE: [f"{PROXY}/5-perplexity/epoch-0"]}
    for folder, fingerprint in {**inputs, **before}.items():
        stage = folder.partition("/epoch")[0].rpartition("-")[2]
        record = Record(
            stage=stage,
            fingerprint=fingerprint,
            settings=settings.get(folder, {}),
            inputs={name: before[name] for name in reads.get(folder, [])},
            rows_in=len(pool.lp) + (num_rejected if stage == "pool" else 0),
            rows_out=len(pool.lp),
            flags={},
            rejected=num_rejected if stage == "pool" else 0,
            seconds=61.0,
            peak_memory_bytes=2**30,
            workers=1,
            files=entries(run, folder, run.sizes(folder)),
            details={"rejected": pool.rejected, **pool.details} if stage == "pool" else {},
            versions={"poolscore": "0.1.0"},
            warnings=pool.warnings.get(folder, []),
            commit="0123456789ab",
            finished="2026-02-03T04:05:06+00:00",
        )
        run.commit_record(folder, record)


def make(path: Path, pool: Pool) -> tuple[str, Outcome]:
    """The page and what the stage says of itself."""
    step = write(path, pool)
    outcome = report.run(step, NO_NODES)
    return (path / step.folder / "report.html").read_text(encoding="utf-8"), outcome


class _Text(HTMLParser):
    """Text of a page with one line per element, and a check that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.lines: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.lines.append(data)


def parsed(page: str) -> _Text:
    parser = _Text()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def text(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(parsed(page).lines))


def section(page: str, title: str) -> str:
    """The part of the page under a heading."""
    heading = f"<h2>{title}"
    assert heading in page
    return heading + page.partition(heading)[2].partition("</section>")[0]


def twelve(**changes: Any) -> Pool:
    """Ten scored rows (LP −0.1 … 0.8) and two flagged ones; the hardest is selected."""
    lp: list[float | None] = [round(0.1 * i - 0.1, 1) for i in range(10)]
    return Pool(lp=[*lp, None, None], **{"selected": [0], **changes})


# ── what it says ─────────────────────────────────────────────────────────────────────────────────


def test_warnings_stand_at_the_top_and_beside_the_hardest_rows(tmp_path: Path) -> None:
    told = {
        "1-pool": [f"the key {TAG} plays no part"],
        f"{PROXY}/5-perplexity/epoch-0": ["the proxy is for trying things out"],
        f"{PROXY}/6-finetune/epoch-1": ["only 3 optimizer steps"],
    }
    page, _ = make(tmp_path, twelve(warnings=told))
    assert TAG not in page
    top = text(page.partition("<main>")[2].partition('<dl class="tiles">')[0])
    assert top == (
        f"Before you trust these scores the key {TAG} plays no part ( 1-pool ) "
        "the proxy is for trying things out ( nano/5-perplexity/epoch-0 ) "
        "only 3 optimizer steps ( nano/6-finetune/epoch-1 )"
    )
    hardest = text(section(page, "The 5 hardest rows").partition("<article>")[0])
    assert hardest.endswith("the proxy is for trying things out only 3 optimizer steps")
    assert "only 3 optimizer steps" not in text(section(page, "The 5 easiest rows"))


def test_without_warnings_there_is_no_block_for_them(tmp_path: Path) -> None:
    page, _ = make(tmp_path, twelve())
    assert 'class="warn"' not in page


def test_a_batch_size_that_was_left_open_is_shown_as_chosen(tmp_path: Path) -> None:
    step = write(tmp_path, twelve())
    folder = f"{PROXY}/6-finetune/epoch-1"
    record = step.run.record(folder)
    assert record is not None
    chosen = {"settings": {"batch_size": None, "seed": 1}, "details": {"batch_size": 8}}
    step.run.commit_record(folder, record.model_copy(update=chosen))
    report.run(step, NO_NODES)
    words = text((tmp_path / step.folder / "report.html").read_text(encoding="utf-8"))
    assert "finetune batch_size 8 (chosen) seed 1" in words


def test_headline_numbers(tmp_path: Path) -> None:
    page, outcome = make(tmp_path, twelve())
    words = text(page)
    assert "Rows in the pool 12 " in words
    assert "Scored 10 83% of the rows" in words
    assert "Selected 1 10.0% of 10 candidates" in words
    assert "Median perplexity 100 → 65 before → after one epoch" in words
    assert "Median LP_app(1) 0.350 " in words
    assert "Rows that got harder 1 10.0% of the scored" in words
    assert "the lowest 10% by lp_app_1" in words
    assert (outcome.rows_in, outcome.rows_out) == (12, 12)
    assert outcome.flags == {"ok": 10, "duplicate": 2}


def test_every_line_is_accounted_for(tmp_path: Path) -> None:
    rejected = {schema.INVALID_JSON: 1, schema.NO_TURNS: 4}
    page, _ = make(tmp_path, twelve(rejected=rejected, holdout=[3]))
    words = text(section(page, "Where each row went"))
    assert "17 lines, which gave 12 rows and 5 rejected lines" in words
    assert "scored 10 rows; 2 rows got a flag" in words
    assert "1 scored row took no part in training and selection" in words
    assert "took 1 of 9 candidates" in words
    assert f"duplicate 2 16.7% {schema.FLAGS['duplicate']}" in words
    for reason, num in rejected.items():
        assert f"{reason} {num} {schema.REJECT_REASONS[reason]}" in words
    assert words.index("no_turns") < words.index("invalid_json")  # the most frequent first


def test_keys_that_play_no_part_are_named(tmp_path: Path) -> None:
    keys = {"id": 12, "rejected": 1200, "a<b": 1}
    more = {"unused_keys": keys, "unused_keys_unlisted": 7, "rows_without_source": 1}
    page, _ = make(tmp_path, twelve(details=more))
    words = text(section(page, "Where each row went"))
    assert "Keys that play no part" in words
    assert "rejected 1,200 id 12 a<b 1" in words
    assert "come 7 times more" in words
    assert "1 row lack" not in words
    assert "Rows without the configured source field: 1" in words
    page, _ = make(tmp_path / "none", twelve())
    words = text(section(page, "Where each row went"))
    assert "Keys that play no part" not in words
    assert "source field" not in words


def test_hardest_and_easiest_rows_in_order(tmp_path: Path) -> None:
    page, _ = make(tmp_path, twelve())
    hardest, easiest = section(page, "The 5 hardest rows"), section(page, "The 5 easiest rows")
    assert re.findall(r"<span>row (\d+)", hardest) == ["0", "1", "2", "3", "4"]
    assert re.findall(r"<span>row (\d+)", easiest) == ["9", "8", "7", "6", "5"]
    assert "1 LP_app(1) −0.100 perplexity 100 → 110 10 scored tokens cluster 0 file" in text(
        hardest
    )
    assert hardest.count(">selected<") == 1
    assert easiest.count(">selected<") == 0


def test_ties_go_by_id_and_no_row_is_shown_twice(tmp_path: Path) -> None:
    page, _ = make(tmp_path, Pool(lp=[0.5] * 30))
    assert re.findall(r"<span>row (\d+)", section(page, "The 10 hardest rows")) == [
        str(i) for i in range(10)
    ]
    assert re.findall(r"<span>row (\d+)", section(page, "The 10 easiest rows")) == [
        str(i) for i in range(29, 19, -1)
    ]


def test_sources_are_compared_where_there_are_several(tmp_path: Path) -> None:
    source = ["a"] * 4 + ["b"] * 8
    page, _ = make(tmp_path / "two", twelve(source=source, selected=[0, 9]))
    words = text(section(page, "Sources"))
    assert "b 8 6 1 16.7% 0.550 a 4 4 1 25% 0.050" in words
    page, _ = make(tmp_path / "one", twelve())
    assert "<h2>Sources" not in page


def test_only_the_largest_sources_are_listed(tmp_path: Path) -> None:
    page, _ = make(tmp_path, Pool(lp=[0.1] * 40, source=[f"s{i:02d}" for i in range(40)]))
    assert "The 30 largest sources; 10 more are not listed." in text(page)
    assert "s29" in section(page, "Sources")
    assert "s30" not in section(page, "Sources")


def test_stages_read_through_others_are_in_the_table(tmp_path: Path) -> None:
    page, _ = make(tmp_path, twelve())
    table = section(page, "How it was made")
    stages = re.findall(r"<td><code>([\w/-]*\d-[\w/-]+)</code>", table)
    assert stages == [
        "1-pool",
        "2-embed",
        "3-cluster",
        f"{PROXY}/4-tokens",
        f"{PROXY}/5-perplexity/epoch-0",
        f"{PROXY}/6-finetune/epoch-1",
        SCORE,
        SELECT,
    ]
    assert "1 min 01 s" in table
    assert "8 min 08 s" in table  # of all eight
    assert "pool.jsonl abababababab" in table
    assert "0123456789ab" in table


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ({"percent": "2.5"}, "took the lowest 2.5% by lp_app_1 of the whole pool"),
        ({"rule": "reference"}, "10% by lp_app_1, rounded up as the reference code does, of"),
        ({"percent": None, "rows": 1200, "order": "high"}, "took the highest 1,200 rows by"),
        ({"percent": None, "tokens": 5000, "metric": "ppl_0"}, "5,000 tokens’ worth by ppl_0"),
    ],
)
def test_the_rule_in_words(tmp_path: Path, select: dict[str, Any], words: str) -> None:
    assert words in text(make(tmp_path, twelve(select=select))[0])


def test_figures_say_what_there_is_to_see(tmp_path: Path) -> None:
    cluster = [0] * 7 + [1] * 5
    page, _ = make(tmp_path, twelve(cluster=cluster))
    assert re.findall(r"<figure>\s*<h3>(.*?)</h3>", page) == [
        "Median perplexity fell from 100 to 65",
        "The median row lost 35% of its first perplexity",
        "Selected responses are shorter: 10 tokens in the median, 14.5 in the pool",
        "2 clusters hold 5 to 7 rows, 6 in the median",
        "Training loss fell from 3 to 2 nats per token",
    ]
    assert "n = 10 scored rows, 1 of them selected." in text(page)


# ── what it must not do ──────────────────────────────────────────────────────────────────────────


def test_text_from_the_pool_is_escaped(tmp_path: Path) -> None:
    turns = [("user", f"{TAG} & co"), ("input", TAG), ("assistant", f'"{TAG}')]
    page, _ = make(tmp_path, twelve(turns=turns, source=[f"{TAG}{i % 2}" for i in range(12)]))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in page
    assert f'Instruction {TAG} & co Input {TAG} Response "{TAG}' in text(page)
    assert "script" not in parsed(page).tags


ATTACKS = (
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "'\"></td></table><svg onload=document.title='taken'>",
)


def title_in_a_browser(path: Path, page: str) -> str:
    """The page's title after a real browser has had its way with it."""
    path.write_text(page, encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={path.parent / 'profile'}", "--virtual-time-budget=2000"]
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    return title


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_a_browser_runs_nothing_of_it(tmp_path: Path) -> None:
    turns = [("user", ATTACKS[0]), ("input", ATTACKS[1]), ("assistant", ATTACKS[2])]
    page, _ = make(tmp_path, twelve(turns=turns, source=[f"{ATTACKS[1]}{i}" for i in range(12)]))
    # Escaping has to do: without the policy, too, that forbids every script.
    bare = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    assert bare != page
    assert "taken" not in title_in_a_browser(tmp_path / "report.html", bare)
    for attack in ATTACKS:  # each would work where it is let through
        control = f"<title>mine</title><table><tr><td>{attack}</td></tr></table>"
        assert title_in_a_browser(tmp_path / "control.html", control) == "taken"


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    page, _ = make(tmp_path, twelve())
    assert (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">" in page
    )
    assert not re.search(r"""\b(src|href|style|on\w+)\s*=\s*["']|url\(|@import|https?:""", page)
    assert str(tmp_path) not in page


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    pages = [make(tmp_path / name, twelve())[0] for name in ("a", "b")]
    assert pages[0] == pages[1]
    other, _ = make(tmp_path / "c", twelve(shard_rows=100))
    assert other == pages[0]


def test_long_texts_are_cut_and_white_space_is_kept(tmp_path: Path) -> None:
    turns = [("user", "x" * 400), ("input", "y" * 401), ("assistant", "a\r\n\n  b\x00\x1b")]
    page, _ = make(tmp_path, twelve(turns=turns))
    assert f">{'x' * 400}<" in page
    assert f">{'y' * 400}…<" in page
    assert ">a\n\n  b␀␛<" in page


def test_long_conversations_are_cut(tmp_path: Path) -> None:
    turns = [("user", "q"), ("assistant", "a")] * 4
    page, _ = make(tmp_path, twelve(turns=turns))
    assert section(page, "The 5 hardest rows").count("<dt>") == 5 * 6
    assert "… and 2 more turns." in page


def test_a_stale_input_is_refused(tmp_path: Path) -> None:
    step = write(tmp_path, twelve())
    table = pa.table(twelve().columns(), schema=schema.scores(1))
    step.run.commit_table(SCORE, "part-00000.parquet", table, "another fingerprint")
    with pytest.raises(RunDirError, match="made with other settings"):
        report.run(step, NO_NODES)


# ── edges ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "pool",
    [
        Pool(lp=[0.1]),
        Pool(lp=[0.3, 0.2, 0.1], selected=[2]),
        Pool(lp=[0.5] * 30, selected=[0, 1, 2]),
        Pool(lp=[0.0] * 5, selected=list(range(5))),
        Pool(lp=[None] * 3),
        Pool(lp=[None, 0.2, 0.4], flag=schema.NOT_FINITE),
        Pool(lp=[-1e200, -1e9, 0.1, 0.2], selected=[0]),
        Pool(lp=[0.1] * 3, losses=[float("nan"), float("nan")]),
        Pool(lp=[0.1] * 3, losses=[1.0]),
        Pool(lp=[0.1] * 30, cluster=list(range(30)), selected=[3]),
    ],
    ids=str,
)
def test_odd_pools(tmp_path: Path, pool: Pool) -> None:
    page, outcome = make(tmp_path, pool)
    words = text(page)
    assert outcome.rows_out == len(pool.lp)
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", words)
    assert not re.search(r"\b(nan|inf)\b", " ".join(re.findall(r"<svg.*?</svg>", page, re.S)))


def test_no_row_scored(tmp_path: Path) -> None:
    words = text(make(tmp_path, Pool(lp=[None] * 3))[0])
    assert "Median perplexity – → –" in words
    assert "No row was scored" in words
    assert "hardest row" not in words.partition("Where each row went")[2]


def test_no_row_selected(tmp_path: Path) -> None:
    page, _ = make(tmp_path, twelve(selected=[]))
    assert "No row was selected, so none is marked." in text(page)
    assert "Selected responses" not in page


def test_one_cluster_and_many(tmp_path: Path) -> None:
    one, _ = make(tmp_path / "one", twelve())
    assert "of the whole pool, which is a single cluster." in text(one)
    many, _ = make(tmp_path / "many", Pool(lp=[0.1] * 60, cluster=[i // 2 for i in range(60)]))
    assert "30 clusters hold 2 to 2 rows, 2 in the median" in many
    assert "rows in the cluster" in many


def test_two_epochs_show_both(tmp_path: Path) -> None:
    page, _ = make(tmp_path, twelve(num_epochs=2))
    words = text(page)
    assert "Median perplexity 100 → 65 → 32.5 before → after each epoch" in words
    assert "perplexity 100 → 110 → 55.0" in words
    assert "after 2 epochs" in words
    assert "epoch 2" in words  # where it begins, in the training curve
    assert "n = 6; one point per optimizer step." in words


def test_a_long_training_is_drawn_in_groups(tmp_path: Path) -> None:
    page, _ = make(tmp_path, twelve(losses=np.linspace(5, 1, 1001).tolist()))
    assert "n = 1,001; one point per 6 optimizer steps, their mean." in page
    curve = re.search(r'<polyline class="line" points="([^"]*)"', page)
    assert curve is not None
    assert len(curve[1].split()) == 167
