"""NLL of scored tokens: by hand, and against the model's own full logits, one row at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from engine.maths import loss
from engine.maths.loss import TokenNLL
from engine.maths.ragged import Ragged
from engine.scoring import Way, training_way

VOCABULARY = 97
LONGEST = 40


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices: more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────

# The next token's probabilities after token 0, 1 and 2.
NEXT = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.2, 0.3, 0.5]])


class Bigram(nn.Module):
    """A language model of three tokens: one-hot hidden states, log-probabilities as its head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = nn.Parameter(NEXT.log().T.contiguous())
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=3))

    def base_model(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=nn.functional.one_hot(input_ids, 3).float())

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=NEXT.log()[input_ids])


@pytest.mark.parametrize("full_logits", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_nll_of_three_tokens_by_hand(full_logits: bool, grad: bool) -> None:
    input_ids = torch.tensor([[0, 1, 1, 2], [2, 2, 0, 0]])
    rows, positions = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 3, 1, 2])
    with torch.set_grad_enabled(grad):
        found = TokenNLL(Bigram(), full_logits)(input_ids, rows, positions)
    # 0→1, 1→2, 2→2, 2→0
    expected = [-math.log(p) for p in (0.25, 0.125, 0.5, 0.2)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


# ── real architectures, random weights ───────────────────────────────────────────────────────────


def opt(**changes: object) -> OPTForCausalLM:
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "dropout": 0.0,
        "init_std": 0.3,
    }
    return OPTForCausalLM(OPTConfig(**{**shape, **changes}))


SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
SPLITTABLE: dict[str, Callable[[], PreTrainedModel]] = {
    "OPT tied": opt,
    "OPT untied": lambda: opt(tie_word_embeddings=False),
    "OPT projected": lambda: opt(word_embed_proj_dim=16, do_layer_norm_before=False),  # as 350m
    "OPT dropout": lambda: opt(dropout=0.1),
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
}
CAPPED = "Gemma 2 capped"


@cache
@torch.inference_mode(False)  # weights made in inference mode could not be trained
def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if name == CAPPED:
        config = Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=2.0)
        return Gemma2ForCausalLM(config).eval()
    return SPLITTABLE[name]().eval()


every_splittable = pytest.mark.parametrize("name", SPLITTABLE)


def one_by_one(model: PreTrainedModel, rows: list[list[int]], scored: list[list[int]]) -> Tensor:
    """The plain loop: each row alone and unpadded, the model's own logits at every position."""
    found = []
    for ids, places in zip(rows, scored, strict=True):
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
        for place in places:
            found.append(-torch.log_softmax(logits[place - 1], dim=0)[ids[place]])
    return torch.stack(found)


def batch_of(
    rows: list[list[int]], scored: list[list[int]], fill: Callable[[], int] = lambda: 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Padded ids, and row and position of every scored token."""
    longest = max(map(len, rows))
    padded = [row + [fill() for _ in range(longest - len(row))] for row in rows]
    places = [(row, place) for row, of_row in enumerate(scored) for place in of_row]
    index, position = torch.tensor(places).T
    return torch.tensor(padded), index, position


def example(seed: int = 0, num_rows: int = 5) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of random lengths, the last third of each scored."""
    generator = torch.Generator().manual_seed(seed)
    rows, scored = [], []
    for _ in range(num_rows):
        length = int(torch.randint(3, LONGEST, (), generator=generator))
        rows.append(torch.randint(0, VOCABULARY, (length,), generator=generator).tolist())
        scored.append(list(range(length - length // 3, length)))
    return rows, scored


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    token = st.integers(0, VOCABULARY - 1)
    rows = draw(st.lists(st.lists(token, min_size=2, max_size=LONGEST), min_size=1, max_size=6))
    scored = [
        sorted(draw(st.sets(st.integers(1, len(row) - 1), min_size=1, max_size=8))) for row in rows
    ]
    return rows, scored


@every_splittable
@settings(max_examples=15, deadline=None)
@given(batch=batches())
def test_any_padded_batch_scores_as_its_rows_alone(
    name: str, batch: tuple[list[list[int]], list[list[int]]]
) -> None:
    with torch.inference_mode():
        found = TokenNLL(model_of(name))(*batch_of(*batch))
        expected = one_by_one(model_of(name), *batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_the_examples_are_worth_comparing() -> None:
    """The NLLs differ between tokens and models, and are far from those of an even guess."""
    rows, scored = example()
    with torch.inference_mode():
        found = {name: one_by_one(model_of(name), rows, scored) for name in SPLITTABLE}
    for name, nll in found.items():
        assert nll.std() > 0.3, name
    means = [float(nll.mean()) for nll in found.values()]
    del means[3]  # the same weights as "OPT tied": its dropout is off
    assert min(abs(a - b) for i, a in enumerate(means) for b in means[:i]) > 1e-3


@every_splittable
@pytest.mark.parametrize("full_logits", [False, True])
def test_poisoned_padding_changes_nothing(name: str, full_logits: bool) -> None:
    rows, scored = example()
    generator = torch.Generator().manual_seed(9)

    def poison() -> int:
        return int(torch.randint(0, VOCABULARY, (), generator=generator))

    nll = TokenNLL(model_of(name), full_logits)
    with torch.inference_mode():
        clean = nll(*batch_of(rows, scored))
        ids, index, position = batch_of(rows, scored, poison)
        poisoned = nll(ids, index, position)
    assert (ids != batch_of(rows, scored)[0]).any()
    torch.testing.assert_close(poisoned, clean, rtol=0, atol=1e-6)


def test_dropout_stays_out_of_scores_and_would_show() -> None:
    rows, scored = example()
    model = model_of("OPT dropout")
    with torch.inference_mode():
        expected = one_by_one(model_of("OPT tied"), rows, scored)  # the same seed and weights
        found = TokenNLL(model)(*batch_of(rows, scored))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
        try:
            dropped = TokenNLL(model.train())(*batch_of(rows, scored))
        finally:
            model.eval()
    assert (dropped - found).abs().max() > 1e-2


# ── chunks ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunks_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, scored = example()
    num_scored = sum(map(len, scored))
    assert num_scored % 3 != 0  # a short last chunk
    model = model_of("OPT tied")
    nll, batch = TokenNLL(model), batch_of(rows, scored)
    seen: list[int] = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _module, inputs, _output: seen.append(len(inputs[0]))
    )
    with torch.inference_mode():
        whole = nll(*batch)
        monkeypatch.setattr(loss, "MIN_CHUNK_ROWS", 1)
        monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", size * VOCABULARY)
        chunked = nll(*batch)
    hook.remove()
    parts = [min(size, num_scored - i) for i in range(0, num_scored, size)]
    assert seen == [num_scored, *parts]
    torch.testing.assert_close(chunked, whole, rtol=0, atol=1e-6)


def test_a_vocabulary_larger_than_a_chunk_goes_token_by_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, scored = example()
    nll = TokenNLL(model_of("OPT tied"))
    with torch.inference_mode():
        whole = nll(*batch_of(rows, scored))
        monkeypatch.setattr(loss, "MIN_CHUNK_ROWS", 1)
        monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", VOCABULARY - 1)
        torch.testing.assert_close(nll(*batch_of(rows, scored)), whole, rtol=0, atol=1e-6)


# ── training ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kept_logits", [loss.KEPT_LOGITS, 3 * VOCABULARY])
@every_splittable
def test_loss_and_gradients_in_training_are_those_of_the_plain_loop(
    name: str, kept_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "KEPT_LOGITS", kept_logits)  # the small one makes chunks of 3 tokens
    monkeypatch.setattr(loss, "MIN_CHUNK_ROWS", 1)
    rows, scored = example()
    model = model_of(name)
    with torch.no_grad():
        without = TokenNLL(model)(*batch_of(rows, scored))

    def gradients(nll: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        nll.sum().backward()
        return {
            key: parameter.grad.clone()
            for key, parameter in model.named_parameters()
            if parameter.grad is not None
        }

    with torch.enable_grad():
        nll = TokenNLL(model)(*batch_of(rows, scored))
        torch.testing.assert_close(nll.detach(), without, rtol=0, atol=1e-6)
        found = gradients(nll)
        expected = gradients(one_by_one(model, rows, scored))
    model.zero_grad()
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for key, gradient in expected.items():
        scale = max(float(gradient.abs().max()), 1.0)
        torch.testing.assert_close(found[key], gradient, rtol=0, atol=1e-5 * scale, msg=key)


# ── models that do more between hidden states and logits ─────────────────────────────────────────


@every_splittable
def test_decoder_and_head_are_the_whole_model(name: str) -> None:
    batch = batch_of(*example())
    with torch.inference_mode():
        split, full = (TokenNLL(model_of(name), own)(*batch) for own in (False, True))
    assert (split - full).abs().max() < 1e-5


def test_a_soft_capped_model_is_found_out_and_scored_by_its_own_logits() -> None:
    model = model_of(CAPPED)
    rows, scored = example()
    with torch.inference_mode():
        expected = one_by_one(model, rows, scored)
        split = TokenNLL(model)(*batch_of(rows, scored)).double()
        full = TokenNLL(model, full_logits=True)(*batch_of(rows, scored)).double()
    torch.testing.assert_close(full, expected, rtol=0, atol=1e-5)
    assert (split - expected).abs().max() > 0.1  # so the split path must not be used …
    assert training_way(model, Ragged.of(rows), "float32") == Way(full_logits=True)  # … and is not
