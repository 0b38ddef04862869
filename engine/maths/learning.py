"""Learning percentages from mean NLLs (Mekala, Nguyen, Shang 2024).

With ``P_i = exp(nll_i)`` the perplexity of the response given the prompt after epoch i. Everything
stays in log space: published perplexities reach 1e8, where differences of P lose their digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def lp_app(nll_0: Floats, nll_i: Floats) -> Floats:
    """``LP_app(i) = (P_0 - P_i) / P_0``: what a row's perplexity lost, relative to its start.

    Args:
        nll_0: float64[n], mean NLL per scored token before training, nats.
        nll_i: float64[n], the same after epoch i.

    Returns:
        float64[n], at most 1; low = hard, negative = unlearnt. ``-expm1(nll_i - nll_0)`` neither
        overflows with P nor cancels when the two are close.
    """
    with np.errstate(over="ignore"):
        return -np.expm1(nll_i - nll_0)


def lp(nlls: Sequence[Floats], i: int) -> Floats:
    """``LP(i) = (P_{i-1} - P_i) / (P_0 - P_n)``: epoch i's part of all that was learnt.

    Args:
        nlls: n + 1 arrays float64[rows]: mean NLL before training and after each of n epochs.
        i: the epoch, 1 … n.

    Returns:
        float64[rows]; NaN or infinite where nothing changed over all epochs (P_0 = P_n).
    """
    if not 1 <= i < len(nlls):
        raise ValueError(f"epoch {i} is not among 1 … {len(nlls) - 1}")
    before, after, start, end = nlls[i - 1], nlls[i], nlls[0], nlls[-1]
    # divided through by P_0: e^(b-s) - e^(a-s) over 1 - e^(e-s)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return (np.expm1(before - start) - np.expm1(after - start)) / -np.expm1(end - start)


def perplexity(nll: Floats) -> Floats:
    """``exp(nll)``; infinite where that overflows float64 (NLL above 709 nats)."""
    with np.errstate(over="ignore"):
        return np.exp(nll)
