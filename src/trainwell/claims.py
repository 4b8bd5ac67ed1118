"""Checked sentences: a claim stands beside the runs that it speaks of. ::

    claim(
        "Dropout lowers the validation MAE.",
        difference(higher=without, lower=with_dropout, at_least=0.001),
    )

It shows the sentence with its evidence, and raises `ClaimFailed` when the runs no longer bear
it out. There are three kinds of evidence, and no more:

- `fact`: a count, an identity, a number equal to another within a tolerance.
- `difference`: one side is higher, seed by seed, by more than the smallest effect worth a
  sentence. Holds when the 95 % bootstrap interval of the mean paired difference lies above it.
- `equivalence`: the two sides differ by less than a stated margin. Holds when the same
  interval lies inside it. That is how to say 'makes no difference' honestly.

The interval is the percentile bootstrap of Efron, 'Bootstrap methods: another look at the
jackknife' (Annals of Statistics 7(1), 1979), with every possible resample where the seeds
are few. It speaks of other seeds on the same data, and with few seeds it is too narrow: of normal
differences it covers the true mean in 75 % of cases with 3 seeds, 84 % with 5 and 91 % with
10, not in 95 %. Choose `at_least` and `margin` before you look, and leave room.
"""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainwell._display import Data, display, identifier
from trainwell.runtime import profile

MIME_TYPE = "application/vnd.trainwell.claim+json"

MIN_SEEDS = 3
CONFIDENCE = 0.95
# Up to this many seeds every resample is enumerated: 6**6 are 46,656.
EXACT_SEEDS = 6
# An odd count, so that both ends of the interval fall on mirrored resamples.
RESAMPLES = 9_999
# What an addition loses of a number, and more: a difference of runs varies by more than that.
ROUNDING = 1e-12

Array = npt.NDArray[np.float64]
Record = dict[str, Any]


class ClaimError(ValueError):
    """The claim is badly made: its evidence can't decide the sentence, whatever the runs say."""


class ClaimFailed(AssertionError):
    """The claim is well made, and the evidence does not bear it out."""


@dataclass(frozen=True)
class Evidence:
    """What was measured and what is asked of it; made by `fact`, `difference`, `equivalence`.

    Both mappings hold what JSON can hold, so that a claim can be judged again elsewhere.
    """

    kind: Literal["fact", "difference", "equivalence"]
    measured: Mapping[str, Any]
    parameters: Mapping[str, float]


def difference(
    *, higher: "pd.Series[float]", lower: "pd.Series[float]", at_least: float = 0.0
) -> Evidence:
    """Evidence that one side is higher than the other by more than `at_least`.

    Args:
        higher: One number a seed, indexed by seed, of the side said to be higher.
        lower: The same, of the side said to be lower; the same seeds in any order.
        at_least: The smallest mean difference worth a sentence, in the unit of the numbers.

    Raises:
        ClaimError: If the seeds are fewer than 3 (full profile), repeated or not the same on
            both sides, a number is missing or infinite, both sides are the same data, or
            `at_least` is negative.
    """
    values = _paired({"higher": higher, "lower": lower})
    _check_limit("at_least", at_least, at_least >= 0, "0 or more")
    return Evidence("difference", values, {"at_least": float(at_least)})


def equivalence(a: "pd.Series[float]", b: "pd.Series[float]", *, margin: float) -> Evidence:
    """Evidence that two sides differ by less than `margin`, in either direction.

    Args:
        a: One number a seed, indexed by seed.
        b: The same of the other side; the same seeds in any order.
        margin: The largest mean difference that does not matter, in the unit of the numbers.

    Raises:
        ClaimError: As for `difference`, or if `margin` is not positive.
    """
    values = _paired({"a": a, "b": b})
    _check_limit("margin", margin, margin > 0, "more than 0")
    return Evidence("equivalence", values, {"margin": float(margin)})


def fact(value: npt.ArrayLike, expected: npt.ArrayLike, *, tolerance: float = 0.0) -> Evidence:
    """Evidence that `value` equals `expected` within `tolerance`.

    Args:
        value: A number, a boolean, or an array of any shape; of an array, the number judged
            is its largest absolute difference from `expected`.
        expected: The same kind of thing, of the same shape.
        tolerance: The largest absolute difference allowed, in the unit of the numbers.

    Raises:
        ClaimError: If the shapes differ, something is empty, not a number or not finite, both
            are the same array, booleans get a tolerance, or `tolerance` is negative or as large as
            every number expected (where all of these are 0, any may be right).
    """
    left, right = np.asarray(value), np.asarray(expected)
    for name, array in [("value", left), ("expected", right)]:
        if array.dtype.kind not in "biuf" or array.size == 0 or not np.isfinite(array).all():
            raise ClaimError(
                f"{name} must hold finite numbers or booleans, got dtype {array.dtype}, shape "
                f"{array.shape}: {array}. Say in the text what happened to the missing ones, "
                "and claim the rest."
            )
    if left.shape != right.shape:
        raise ClaimError(
            f"value has shape {left.shape}, expected has {right.shape}. Compare like with like."
        )
    _check_limit("tolerance", tolerance, tolerance >= 0, "0 or more")
    if tolerance and left.dtype.kind == right.dtype.kind == "b":
        raise ClaimError(f"booleans are equal or not: leave out tolerance, got {tolerance}.")
    size = np.abs(right.astype(np.float64)).max()
    if 0 < size <= tolerance:
        raise ClaimError(
            f"tolerance {tolerance:g} is as large as every number expected, the largest is "
            f"{size:g}: zeros would pass. Choose one that is small beside the numbers."
        )
    parameters = {"tolerance": float(tolerance)}
    if left.ndim == 0:
        return Evidence("fact", {"value": left.item(), "expected": right.item()}, parameters)
    if value is expected or np.shares_memory(left, right):
        raise ClaimError("value and expected are the same array: this claim can't fail.")
    largest = np.abs(left.astype(np.float64) - right.astype(np.float64)).max()
    values = {"value": float(largest), "expected": 0.0, "numbers": left.size}
    return Evidence("fact", values, parameters)


def claim(sentence: str, evidence: Evidence, *, data: Data | None = None) -> None:
    """Show `sentence` with its evidence; stop when the evidence does not bear it out.

    A claim is shown but not judged in the quick profile, which has too few seeds and too
    short runs, and on stand-in data, which are not the data that the sentence speaks of. A fact
    that names no data needs neither seeds nor runs: it is judged everywhere.

    Args:
        sentence: One sentence, as the text says it.
        evidence: What `difference`, `equivalence` or `fact` returned.
        data: The data set that the evidence comes from, to name its source.

    Raises:
        ClaimError: If the sentence is empty, or the claim can't fail on this evidence: its
            opposite would hold too; one side of a difference is the other moved or multiplied by
            one number; or the margin of an equivalence is larger than every number of its sides.
        ClaimFailed: If the claim is judged and does not hold.
    """
    record = make_record(sentence, evidence, data)
    if record["status"] == "failed":
        raise ClaimFailed(_failure(record))
    display({"text/plain": _plain(record), "text/html": _html(record), MIME_TYPE: record})


def make_record(sentence: str, evidence: Evidence, data: Data | None = None) -> Record:
    """Return everything that is known of a claim, as JSON can hold it, without showing it.

    The keys: id, sentence, kind, status (`held`, `failed` or `not judged`), reason (why it
    is not judged, else None), summary, evidence, parameters and source.

    Raises:
        ClaimError: As for `claim`.
    """
    if not sentence.strip():
        raise ClaimError("sentence is empty. Write what the evidence shows.")
    if not isinstance(evidence, Evidence):
        raise ClaimError(
            "evidence must come from difference(), equivalence() or fact(), got "
            f"{type(evidence).__name__}."
        )
    holds, summary = _judge(evidence)
    if holds and _judge(_opposite(evidence))[0]:
        raise ClaimError(f"{sentence!r} can't fail: its opposite holds on the same evidence.")
    if profile() == "quick" and (evidence.kind != "fact" or data is not None):
        status, reason = "not judged", "quick profile"
    elif data is not None and data.stand_in:
        status, reason = "not judged", "stand-in data"
    else:
        _check_arms(evidence)
        status, reason = "held" if holds else "failed", None
    return {
        "id": identifier("claim", sentence),
        "sentence": sentence.strip(),
        "kind": evidence.kind,
        "status": status,
        "reason": reason,
        "summary": summary,
        "evidence": dict(evidence.measured),
        "parameters": dict(evidence.parameters),
        "source": None if data is None else data.source,
    }


def bootstrap_interval(differences: npt.ArrayLike) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `differences`, shape (n,).

    Up to 6 numbers it is exact: all n**n resamples are equally likely, and the ends are the
    quantiles of their means. Beyond that, 9,999 resamples are drawn with a fixed seed.
    A run that failed may be among them: a nan makes both ends nan.

    Raises:
        ValueError: If `differences` is not one row of numbers, one or more.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or differences.size == 0:
        raise ValueError(
            "an interval takes one number a seed, shape (n,), for one seed or more, got the shape "
            f"{differences.shape}."
        )
    n = len(differences)
    if n <= EXACT_SEEDS:
        drawn = np.indices((n,) * n).reshape(n, -1).T
    else:
        drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    means = differences[drawn].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    # The plain inverse of the distribution: interpolating would narrow a coarse one.
    low, high = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def with_interval(values: npt.ArrayLike, form: str = ".1f") -> str:
    """Return the mean of `values` and its `bootstrap_interval` as text: `0.4 [0.1, 0.7]`.

    Args:
        values: One number a seed, shape (n,).
        form: How Python is to write the three numbers: `"+.1f"` for a difference, say.

    Raises:
        ValueError: As for `bootstrap_interval`.
    """
    values = np.asarray(values, dtype=np.float64)
    low, high = bootstrap_interval(values)
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


def sabotage(records: list[Record]) -> list[str]:
    """Return the sentences of the held claims that still hold when their evidence is spoilt.

    Every difference has its arms swapped, every equivalence one arm moved by three margins,
    every fact its value moved by three tolerances (by 1 where there is none).
    """
    survivors = []
    for record in records:
        evidence = Evidence(record["kind"], record["evidence"], record["parameters"])
        if record["status"] == "held" and _judge(_opposite(evidence))[0]:
            survivors.append(str(record["sentence"]))
    return survivors


def main_sabotage(path: str | Path) -> int:
    """Sabotage the claims collected in the JSON file `path`; print the result.

    Returns:
        The exit status: 0 if every sabotaged claim fails, 1 if one holds or none was judged.
    """
    path = Path(path)
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    held = sum(record["status"] == "held" for record in records)
    if not held:
        print(f"No judged claim in {path}. Build the book in the full profile first.")
        return 1
    survivors = sabotage(records)
    if survivors:
        print(f"{len(survivors)} of {held} claims hold although their evidence was spoilt:")
        print("\n".join(f"  {sentence}" for sentence in survivors))
        return 1
    print(f"{held} claims: every sabotaged one fails. {len(records) - held} were not judged.")
    return 0


def _paired(arms: dict[str, "pd.Series[float]"]) -> dict[str, list[Any]]:
    """Check two arms; return their seeds, sorted, and the numbers of each arm in that order."""
    for name, arm in arms.items():
        _check_arm(name, arm)
    (first_name, first), (second_name, second) = arms.items()
    if set(first.index) != set(second.index):
        raise ClaimError(
            f"{first_name} has the seeds {sorted(first.index)}, {second_name} has "
            f"{sorted(second.index)}. Both sides share every seed."
        )
    if np.shares_memory(first.to_numpy(), second.to_numpy()):
        raise ClaimError(f"{first_name} and {second_name} are the same data, not two sides.")
    seeds = first.index.sort_values()
    values = {name: arm.loc[seeds].astype(np.float64).tolist() for name, arm in arms.items()}
    return {"seed": seeds.tolist(), **values}


def _check_arm(name: str, arm: "pd.Series[float]") -> None:
    if not isinstance(arm, pd.Series) or not pd.api.types.is_numeric_dtype(arm):
        raise ClaimError(
            f"{name} must be a pandas Series of one number a seed, indexed by seed, got {arm!r}."
        )
    if arm.index.has_duplicates:
        raise ClaimError(
            f"{name} repeats a seed: {arm.index[arm.index.duplicated()].tolist()}. "
            "Give one number a seed."
        )
    if len(arm) < (MIN_SEEDS if profile() == "full" else 1):
        raise ClaimError(f"{name} has {len(arm)} seeds. A claim takes {MIN_SEEDS} or more.")
    finite = np.isfinite(arm.to_numpy(dtype=np.float64, na_value=np.nan))
    if not finite.all():
        raise ClaimError(
            f"{name} is not finite for the seeds {arm.index[~finite].tolist()}. Say in the "
            "text that these runs failed, and claim something that covers them."
        )


def _check_limit(name: str, limit: float, in_range: bool, wanted: str) -> None:
    if not np.isfinite(limit) or not in_range:
        raise ClaimError(f"{name} must be finite and {wanted}, got {limit}.")


def _judge(evidence: Evidence) -> tuple[bool, str]:
    """Return whether the evidence bears the claim out, and the evidence in one sentence."""
    if evidence.kind == "fact":
        return _judge_fact(evidence)
    gaps = _differences(evidence.measured)
    low, high = bootstrap_interval(gaps)
    mean = f"mean difference {_number(gaps.mean())} [{_number(low)}, {_number(high)}]"
    seeds = f"of {len(gaps)} seeds"
    if evidence.kind == "difference":
        at_least = evidence.parameters["at_least"]
        holds = low > at_least
        limit = f"{'more' if holds else 'not more'} than {_number(at_least)}"
        return holds, f"{(gaps > 0).sum()} {seeds} agree; {mean}, {limit}."
    margin = evidence.parameters["margin"]
    holds = -margin < low and high < margin
    limit = f"{'inside' if holds else 'not inside'} ±{_number(margin)}"
    return holds, f"{(np.abs(gaps) < margin).sum()} {seeds} agree; {mean}, {limit}."


def _judge_fact(evidence: Evidence) -> tuple[bool, str]:
    value, expected = evidence.measured["value"], evidence.measured["expected"]
    tolerance = evidence.parameters["tolerance"]
    holds = bool(abs(value - expected) <= tolerance)
    if "numbers" in evidence.measured:
        limit = f"{'at most' if holds else 'more than'} {_number(tolerance)}"
        numbers = _number(evidence.measured["numbers"])
        return holds, f"Largest of {numbers} differences: {_number(value)}, {limit}."
    allowed = f" ± {_number(tolerance)}" if tolerance else ""
    return holds, f"Found {_number(value, 6)}, expected {_number(expected, 6)}{allowed}."


def _opposite(evidence: Evidence) -> Evidence:
    """Return evidence spoilt so that a sound claim fails on it; see `sabotage`."""
    values, parameters = dict(evidence.measured), evidence.parameters
    if evidence.kind == "difference":
        values["higher"], values["lower"] = values["lower"], values["higher"]
    elif evidence.kind == "equivalence":
        values["a"] = [number + 3 * parameters["margin"] for number in values["a"]]
    else:
        values["value"] += 3 * parameters["tolerance"] or 1
    return Evidence(evidence.kind, values, parameters)


def _check_arms(evidence: Evidence) -> None:
    """Refuse two sides that can't decide a claim, whatever the runs were.

    Raises:
        ClaimError: If the sides of a difference differ by the same number or the same factor for
            every seed, or no number that a side has is as large as the margin.
    """
    if evidence.kind == "fact":
        return
    numbers = np.array([values for arm, values in evidence.measured.items() if arm != "seed"])
    gaps = _differences(evidence.measured)
    # Counts, such as the epochs to a goal, may well differ by the same whole number. The sides of
    # an equivalence may even be equal: what is said to change nothing may do so to the last digit.
    counts = (numbers == np.round(numbers)).all()
    if evidence.kind == "difference" and gaps.any() and not counts:
        sizes = np.abs(numbers).max(axis=1, keepdims=True)
        made = ""
        if np.ptp(gaps) <= ROUNDING * sizes.max():
            made = f"differ by {gaps[0]:g}"
        # A side of zeros is a line that the other is compared with.
        elif sizes.all() and np.ptp(numbers / sizes, axis=0).max() <= ROUNDING:
            made = f"have the ratio {sizes[0, 0] / sizes[1, 0]:g}"
        if made:
            raise ClaimError(
                f"the sides {made} for every seed, to the last digit: one was made from the "
                "other, not measured. Run both, or state what always holds with fact()."
            )
    # Where numbers may be negative, as logarithms and gaps are, zero is a value like any other.
    margin = evidence.parameters.get("margin", 0.0)
    if (numbers >= 0).all() and margin > numbers.max():
        raise ClaimError(
            f"margin {margin:g} is larger than every number of both sides, the largest is "
            f"{numbers.max():g}: a side of zeros would pass. Choose a margin that is small "
            "beside the numbers."
        )


def _differences(values: Mapping[str, Any]) -> Array:
    """Return the first arm minus the second, seed by seed, shape (seeds,)."""
    first, second = (numbers for name, numbers in values.items() if name != "seed")
    gaps: Array = np.subtract(first, second)
    return gaps


def _number(number: float, digits: int = 3) -> str:
    """Write a number for readers: `digits` significant ones, thousands grouped, a real minus."""
    if isinstance(number, bool):
        return str(number).lower()
    whole = isinstance(number, int) or abs(number) >= 10**digits
    return format(number, ",.0f" if whole else f".{digits}g").replace("-", "−")


def _table(record: Record) -> tuple[list[str], list[list[str]]]:
    """Return the evidence per seed: the columns' names, and a row of texts for each seed."""
    values = record["evidence"]
    names = [*values, "difference"]
    rows = zip(*values.values(), _differences(values), strict=True)
    return names, [[str(seed), *(_number(x, 5) for x in numbers)] for seed, *numbers in rows]


def _plain(record: Record) -> str:
    status = "✓" if record["status"] == "held" else f"○ Not judged ({record['reason']}):"
    source = f" Data: {record['source']}." if record["source"] else ""
    return f"{status} {record['sentence']} {record['summary']}{source}"


def _failure(record: Record) -> str:
    lines = [f"This does not hold: {record['sentence']}", record["summary"]]
    if record["kind"] != "fact":
        names, rows = _table(record)
        lines += ["".join(f"{text:>12}" for text in row) for row in [names, *rows]]
    if record["source"]:
        lines.append(f"Data: {record['source']}.")
    lines.append(
        "Look at the runs first. If they are right, change the sentence to what they show; "
        "if they are not, mend the code. Don't bend the limit to fit."
    )
    return "\n".join(lines)


def _html(record: Record) -> str:
    """Return the claim as a box that says its state in words, with the seeds folded away.

    The style written here is what the box needs where the course's style sheet is absent.
    """
    held = record["status"] == "held"
    status = "✓ Held" if held else f"○ Not judged: {record['reason']}"
    source = f" Data: {record['source']}." if record["source"] else ""
    summary = html.escape(record["summary"] + source)
    if record["kind"] == "fact":
        evidence = f"<p>{summary}</p>"
    else:
        names, rows = _table(record)
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        evidence = (
            f"<details><summary>{summary}</summary><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></details>"
        )
    return (
        f'<div class="tw-claim" id="{record["id"]}" data-status="{record["status"]}" role="note" '
        'aria-label="Checked claim" style="border-left: 0.25em '
        f"{'solid' if held else 'dashed'} var(--tw-claim-colour, currentColor); "
        'padding: 0.25em 1em; margin: 1em 0"><p><strong class="tw-claim-status">'
        f"{status}</strong> {html.escape(record['sentence'])}</p>{evidence}</div>"
    )
