import itertools
import json
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainwell.claims import (
    MIME_TYPE,
    ClaimError,
    ClaimFailed,
    bootstrap_interval,
    claim,
    difference,
    equivalence,
    fact,
    main_sabotage,
    make_record,
    sabotage,
    with_interval,
)


@dataclass(frozen=True)
class Songs:
    source: str = "Spotify"
    stand_in: bool = False


HIGH = pd.Series([5.1, 5.4, 5.2, 5.6, 5.3])
LOW = pd.Series([4.1, 4.6, 4.1, 4.4, 4.5])

numbers = st.floats(-1e6, 1e6)
arms = st.integers(3, 8).flatmap(
    lambda n: st.tuples(*[st.lists(numbers, min_size=n, max_size=n)] * 2)
)
few_examples = settings(max_examples=60, deadline=None, derandomize=True)


def made_from_one_another(a, b):
    moved = np.ptp(a - b) <= 1e-6 * max(a.abs().max(), b.abs().max())
    scaled = [arm / (arm.abs().max() or 1.0) for arm in (a, b)]
    return moved or np.allclose(*scaled, rtol=0, atol=1e-6)


@pytest.fixture(autouse=True)
def _full_profile(monkeypatch):
    monkeypatch.delenv("TRAINWELL_PROFILE", raising=False)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setenv("TRAINWELL_PROFILE", "quick")


def status(evidence, data=None):
    return make_record("A sentence.", evidence, data)["status"]


# The interval.


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_few_seeds_give_the_exact_interval(n):
    gaps = np.random.default_rng(n).integers(-50, 100, size=n)
    resamples = itertools.product([Fraction(int(gap)) for gap in gaps], repeat=n)
    means = sorted(sum(resample) / n for resample in resamples)
    # The smallest mean that at least 2.5 %, then 97.5 %, of all resamples do not exceed.
    low, high = (means[math.ceil(share * len(means)) - 1] for share in (0.025, 0.975))
    assert bootstrap_interval(gaps.astype(float)) == pytest.approx((float(low), float(high)))


def test_three_seeds_give_the_whole_range():
    # The lowest mean has a chance of 1 in 27, 3.7 %: more than the 2.5 % left outside.
    assert bootstrap_interval(np.array([3.0, -1.0, 7.0])) == (-1.0, 7.0)
    assert with_interval(pd.Series([3, -1, 7]), "+.2f") == "+3.00 [-1.00, +7.00]"


def test_the_interval_of_a_plain_list_and_of_a_run_that_failed():
    assert bootstrap_interval([3, -1, 7]) == (-1.0, 7.0)
    assert with_interval([0.5, np.nan]) == "nan [nan, nan]"


@pytest.mark.parametrize("values", [[], [[1.0, 2.0], [3.0, 4.0]], 1.0])
def test_an_interval_takes_one_row_of_numbers(values):
    shape = re.escape(str(np.shape(values)))
    for function in (bootstrap_interval, with_interval):
        with pytest.raises(ValueError, match=f"one number a seed, .* got the shape {shape}"):
            function(values)


def test_many_seeds_agree_with_scipy():
    gaps = np.random.default_rng(1).normal(0.3, 1.0, size=12)
    theirs = scipy.stats.bootstrap(
        (gaps,), np.mean, method="percentile", n_resamples=50_000, rng=2
    ).confidence_interval
    assert bootstrap_interval(gaps) == pytest.approx(tuple(theirs), abs=0.02)
    assert bootstrap_interval(gaps) == bootstrap_interval(gaps.copy())


def test_coverage_is_what_the_docstring_says():
    rng = np.random.default_rng(3)
    for seeds, said in [(3, 0.75), (5, 0.84)]:
        ends = np.array([bootstrap_interval(rng.standard_normal(seeds)) for _ in range(2_000)])
        covered = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
        assert covered == pytest.approx(said, abs=0.03)


# What holds.


def test_difference_holds_above_at_least_only():
    low, _ = bootstrap_interval((HIGH - LOW).to_numpy())
    assert status(difference(higher=HIGH, lower=LOW)) == "held"
    assert status(difference(higher=HIGH, lower=LOW, at_least=low - 1e-6)) == "held"
    assert status(difference(higher=HIGH, lower=LOW, at_least=low)) == "failed"
    assert status(difference(higher=LOW, lower=HIGH)) == "failed"


def test_equivalence_holds_inside_the_margin_only():
    low, high = bootstrap_interval((HIGH - LOW).to_numpy())
    assert abs(low) < high
    assert status(equivalence(HIGH, LOW, margin=high + 1e-6)) == "held"
    assert status(equivalence(LOW, HIGH, margin=high + 1e-6)) == "held"
    assert status(equivalence(HIGH, LOW, margin=high)) == "failed"
    assert status(equivalence(LOW, HIGH, margin=high)) == "failed"


def test_sides_are_paired_by_seed_not_by_place():
    # By place the differences are 4, 0 and -4; by seed they are all 1.
    higher = pd.Series([5.0, 3.0, 1.0], index=[2, 1, 0])
    lower = pd.Series([0.0, 2.0, 4.0], index=[0, 1, 2])
    record = make_record("S.", difference(higher=higher, lower=lower, at_least=0.99))
    assert record["status"] == "held"
    assert record["evidence"] == {
        "seed": [0, 1, 2],
        "higher": [1.0, 3.0, 5.0],
        "lower": [0.0, 2.0, 4.0],
    }


@given(arms, st.floats(0, 1e6))
@few_examples
def test_a_difference_and_its_opposite_never_both_hold(both, at_least):
    a, b = map(pd.Series, both)
    assume(not made_from_one_another(a, b))
    forward = status(difference(higher=a, lower=b, at_least=at_least))
    backward = status(difference(higher=b, lower=a, at_least=at_least))
    assert "failed" in {forward, backward}


@given(arms, st.randoms(use_true_random=False), st.floats(1e-3, 1e6))
@few_examples
def test_the_order_of_the_seeds_does_not_matter(both, random, margin):
    a, b = map(pd.Series, both)
    assume(not made_from_one_another(a, b))
    assume(margin < max(a.max(), b.max()))
    mixed = list(a.index)
    random.shuffle(mixed)
    for kind in [
        lambda a, b: difference(higher=a, lower=b),
        lambda a, b: equivalence(a, b, margin=margin),
    ]:
        assert make_record("S.", kind(a, b)) == make_record("S.", kind(a[mixed], b))


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "holds"),
    [
        (32_768, 2**15, 0, True),
        (32_767, 2**15, 0, False),
        (0.75, 0.5, 0.25, True),
        (0.25, 0.5, 0.25, True),
        (0.76, 0.5, 0.25, False),
        (1 + 1e-12, 1.0, 0, False),
        (True, True, 0, True),
        (np.True_, False, 0, False),
        (np.float32(0.5), 0.5, 0, True),
        ([1.0, 2.0], [1.0, 2.25], 0.25, True),
        ([1.0, 2.0], [1.0, 2.26], 0.25, False),
        # Unsigned bytes wrap around when subtracted as they are.
        (np.uint8([0, 5]), np.uint8([1, 5]), 1, True),
        (pd.Series([1, 2]), np.array([1, 2]), 0, True),
    ],
)
def test_fact(value, expected, tolerance, holds):
    assert status(fact(value, expected, tolerance=tolerance)) == ("held" if holds else "failed")


# Errors in the claim.


def series(*values, index=None):
    return pd.Series(values, index=index, dtype=float)


@pytest.mark.parametrize(
    "kind",
    [lambda a, b: difference(higher=a, lower=b), lambda a, b: equivalence(a, b, margin=1)],
    ids=["difference", "equivalence"],
)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (series(1, 2), series(0, 1), "2 seeds"),
        (series(), series(), "0 seeds"),
        (series(1, 2, 3, index=[0, 1, 1]), series(0, 1, 2), r"repeats a seed: \[1\]"),
        (series(1, 2, 3), series(0, 1, 2, index=[0, 1, 3]), "share every seed"),
        (series(1, 2, 3, 4), series(0, 1, 2), "share every seed"),
        (series(1, np.nan, 3), series(0, 1, 2), r"not finite for the seeds \[1\]"),
        (series(1, 2, 3), series(0, 1, np.inf), r"not finite for the seeds \[2\]"),
        ([1, 2, 3], series(0, 1, 2), "must be a pandas Series"),
        (np.array([1, 2, 3]), series(0, 1, 2), "must be a pandas Series"),
        (pd.Series(["1", "2", "3"]), series(0, 1, 2), "must be a pandas Series"),
    ],
)
def test_evidence_that_cannot_decide(kind, a, b, message):
    with pytest.raises(ClaimError, match=message):
        kind(a, b)


def test_both_sides_the_same_data():
    frame = pd.DataFrame({"valid_mae": [1.0, 2.0, 3.0]})
    for again in [frame["valid_mae"], frame.valid_mae, frame["valid_mae"][:]]:
        with pytest.raises(ClaimError, match="same data"):
            equivalence(frame["valid_mae"], again, margin=1)
    with pytest.raises(ClaimError, match="same data"):
        difference(higher=HIGH, lower=HIGH)
    nullable = HIGH.astype("Float64")
    with pytest.raises(ClaimError, match="same data"):
        difference(higher=nullable, lower=nullable)
    # Two columns of one frame are two sides, although one array may hold them.
    columns = pd.DataFrame(np.arange(6.0).reshape(3, 2), columns=["a", "b"])
    assert status(difference(higher=columns["b"], lower=columns["a"])) == "held"


@pytest.mark.parametrize("at_least", [-0.1, math.nan, math.inf])
def test_at_least_out_of_range(at_least):
    with pytest.raises(ClaimError, match="at_least"):
        difference(higher=HIGH, lower=LOW, at_least=at_least)


@pytest.mark.parametrize("margin", [0, -0.1, math.nan, math.inf])
def test_margin_out_of_range(margin):
    with pytest.raises(ClaimError, match="margin"):
        equivalence(HIGH, LOW, margin=margin)


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "message"),
    [
        (1.0, 1.0, -0.1, "tolerance"),
        (1.0, 1.0, math.nan, "tolerance"),
        (1.0, 1.0, math.inf, "tolerance"),
        (True, True, 1, "leave out tolerance"),
        (math.nan, 1.0, 0, "value must hold finite"),
        (1.0, math.inf, 0, "expected must hold finite"),
        ([1.0, math.nan], [1.0, 2.0], 0, "value must hold finite"),
        ([], [], 0, "value must hold finite"),
        ("1", "1", 0, "value must hold finite"),
        (None, None, 0, "value must hold finite"),
        ([1, 2], [[1, 2]], 0, "shape"),
        ([1, 1], 1, 0, "shape"),
    ],
)
def test_fact_that_cannot_decide(value, expected, tolerance, message):
    with pytest.raises(ClaimError, match=message):
        fact(value, expected, tolerance=tolerance)


def test_value_and_expected_the_same_array():
    array, listed = np.arange(3), [1, 2]
    for value, expected in [(array, array), (array, array[:]), (listed, listed)]:
        with pytest.raises(ClaimError, match="same array"):
            fact(value, expected)
    assert status(fact(array, array.copy())) == "held"


def test_claim_whose_opposite_would_hold_too():
    # 1e17 + 1 is 1e17 in floating point: shifted by 1, it would still be 'equal'.
    with pytest.raises(ClaimError, match="can't fail"):
        claim("Large numbers are equal.", fact(1e17, 1e17))
    a = series(1e17, 1e17, 1e17)
    with pytest.raises(ClaimError, match="can't fail"):
        claim("Large numbers are equal.", equivalence(a, a.copy(), margin=1))


@pytest.mark.parametrize("moved", [0.1, -0.25])
def test_a_side_that_is_the_other_moved_by_a_number(moved, capsys):
    made = HIGH + moved
    for higher, lower in [(HIGH, made), (made, HIGH)]:
        evidence = difference(higher=higher, lower=lower)
        with pytest.raises(ClaimError, match=r"differ by -?0\.\d+ for every seed.*Run both"):
            claim("One is higher.", evidence)
        claim("Not judged.", evidence, data=Songs(stand_in=True))
    # Counts may well differ by the same number, and one seed of five tells the sides apart.
    assert status(difference(higher=series(5, 7, 6), lower=series(2, 4, 3))) == "held"
    made[4] += 1e-6
    lower, higher = sorted([HIGH, made], key=sum)
    assert status(difference(higher=higher, lower=lower)) == "held"


@pytest.mark.parametrize("factor", [1.1, 0.3])
def test_a_side_that_is_the_other_times_a_number(factor, capsys):
    made = HIGH * factor
    lower, higher = sorted([HIGH, made], key=sum)
    evidence = difference(higher=higher, lower=lower)
    with pytest.raises(ClaimError, match=r"have the ratio \d\.\d+ for every seed.*Run both"):
        claim("One is higher.", evidence)
    claim("Not judged.", evidence, data=Songs(stand_in=True))
    # Counts may well have one ratio, and a side of zeros is a line that the other is above.
    assert status(difference(higher=series(4, 8, 6), lower=series(2, 4, 3))) == "held"
    assert status(difference(higher=HIGH, lower=HIGH * 0)) == "held"
    made[4] += 1e-6
    lower, higher = sorted([HIGH, made], key=sum)
    assert status(difference(higher=higher, lower=lower)) == "held"


def test_sides_that_are_equal_to_the_last_digit_are_equivalent():
    assert status(equivalence(HIGH, HIGH.copy(), margin=0.1)) == "held"


@pytest.mark.parametrize(
    ("value", "expected", "tolerance"),
    [([1.0, 2.0], [5.0, 9.0], 1e9), (1.0, -2.0, 2), (np.uint8([0, 5]), np.uint8([1, 0]), 5)],
)
def test_a_tolerance_that_zeros_would_pass(value, expected, tolerance):
    with pytest.raises(ClaimError, match=r"tolerance .* is as large .* largest is \d.*small"):
        fact(value, expected, tolerance=tolerance)
    nothing = np.zeros_like(expected)
    assert status(fact(nothing, nothing.copy(), tolerance=tolerance)) == "held"


def test_a_margin_that_no_side_can_leave():
    losses = HIGH / 100
    with pytest.raises(ClaimError, match=r"margin 0\.06 is larger.*largest is 0\.056.*small"):
        claim("Both lose as much.", equivalence(losses, LOW / 100, margin=0.06))
    assert status(equivalence(losses, LOW / 100, margin=0.05)) == "held"
    # Of logarithms, a 0 is no nothing: it says 'as large as'.
    ratios = series(-0.1, 0.2, -0.3)
    assert status(equivalence(ratios, 0 * ratios, margin=1)) == "held"


@pytest.mark.parametrize("sentence", ["", "  \n"])
def test_empty_sentence(sentence):
    with pytest.raises(ClaimError, match="sentence is empty"):
        claim(sentence, fact(1, 1))


def test_evidence_of_no_kind():
    with pytest.raises(ClaimError, match=r"must come from difference\(\).*got bool"):
        claim("It is so.", True)


# What is not judged.


def test_quick_profile_is_not_judged(quick, capsys):
    claim("One seed.", difference(higher=HIGH[:1], lower=LOW[:1]))
    claim("A short run.", equivalence(LOW / 100, HIGH / 100, margin=1))
    assert capsys.readouterr().out.count("Not judged (quick profile)") == 2
    claim("Two seeds.", difference(higher=LOW[:2], lower=HIGH[:2]))
    assert "Not judged (quick profile): Two seeds. 0 of 2 seeds" in capsys.readouterr().out
    assert make_record("Of data.", fact(1, 2), Songs())["reason"] == "quick profile"


def test_a_fact_that_names_no_data_is_judged_in_the_quick_profile(quick):
    assert make_record("A fact.", fact(1, 1))["status"] == "held"
    with pytest.raises(ClaimFailed, match="This does not hold"):
        claim("A fact.", fact(1, 2))


def test_quick_profile_still_finds_errors_in_the_claim(quick):
    for arm in [HIGH[:0], series(1, np.nan), series(1, 2, index=[0, 0])]:
        with pytest.raises(ClaimError):
            difference(higher=arm, lower=LOW[: len(arm)])


def test_stand_in_data_are_not_judged(capsys):
    simulated = Songs("a simulation of Spotify", stand_in=True)
    claim("Reversed.", difference(higher=LOW, lower=HIGH), data=simulated)
    shown = capsys.readouterr().out
    assert "Not judged (stand-in data): Reversed." in shown
    assert "Data: a simulation of Spotify." in shown
    with pytest.raises(ClaimFailed):
        claim("Reversed.", difference(higher=LOW, lower=HIGH), data=Songs())


# What is shown.


def test_plain_text(capsys):
    claim("Fast is slow.", difference(higher=HIGH, lower=LOW, at_least=0.5), data=Songs())
    low, high = bootstrap_interval((HIGH - LOW).to_numpy())
    assert capsys.readouterr().out == (
        f"✓ Fast is slow. 5 of 5 seeds agree; mean difference 0.98 [{low:.3g}, {high:.3g}], "
        "more than 0.5. Data: Spotify.\n"
    )


@pytest.mark.parametrize(
    ("evidence", "summary"),
    [
        (fact(32_768, 2**15), "Found 32,768, expected 32,768."),
        (fact(True, True), "Found true, expected true."),
        (fact(-0.2501, -0.25, tolerance=0.01), "Found −0.2501, expected −0.25 ± 0.01."),
        (
            fact(np.ones((60, 50)), np.full((60, 50), 1.25), tolerance=0.5),
            "Largest of 3,000 differences: 0.25, at most 0.5.",
        ),
        (
            equivalence(series(1, 2, 3), series(1, 2, 4), margin=1.5),
            "3 of 3 seeds agree; mean difference −0.333 [−1, 0], inside ±1.5.",
        ),
    ],
)
def test_summary(evidence, summary):
    assert make_record("S.", evidence)["summary"] == summary


def test_failure_says_what_was_found_and_what_to_do():
    with pytest.raises(ClaimFailed) as error:
        claim("Slow is fast.", difference(higher=LOW, lower=HIGH), data=Songs())
    message = str(error.value)
    assert message.startswith("This does not hold: Slow is fast.\n0 of 5 seeds agree;")
    rows = [line.split() for line in message.splitlines()]
    assert ["seed", "higher", "lower", "difference"] in rows
    assert ["3", "4.4", "5.6", "−1.2"] in rows
    assert "Data: Spotify." in message
    assert "change the sentence" in message
    assert isinstance(error.value, AssertionError)
    with pytest.raises(ClaimFailed, match=r"Found 3, expected 4\."):
        claim("Three is four.", fact(3, 4))


class Elements(HTMLParser):
    """Collect every start tag with its attributes, and the text; check that tags are paired."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr("trainwell.claims.display", bundles.append)
    return bundles


def test_box(shown):
    claim("x <b> y & z.", difference(higher=HIGH, lower=LOW))
    claim("x <b> y & z.", difference(higher=HIGH, lower=LOW), data=Songs("<none>", stand_in=True))
    for bundle, said in zip(shown, ["✓ Held", "○ Not judged: stand-in data"], strict=True):
        page = Elements()
        page.feed(bundle["text/html"])
        assert not page.open
        tag, box = page.elements[0]
        assert (tag, box["class"], box["role"]) == ("div", "tw-claim", "note")
        assert box["data-status"] == bundle[MIME_TYPE]["status"]
        assert box["id"] == bundle[MIME_TYPE]["id"]
        # The state is said in words, not by colour alone.
        assert page.text.startswith(f"{said} x <b> y & z.")
        assert [tag for tag, _ in page.elements].count("td") == 5 * 4
    assert "Data: <none>." in page.text


def test_record_survives_json_and_names_are_stable(shown):
    sentence = "Dropout lowers the validation MAE on Spotify, by much."
    claim(sentence, difference(higher=HIGH, lower=LOW, at_least=0.5), data=Songs())
    record = shown[0][MIME_TYPE]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert list(record) == [
        "id",
        "sentence",
        "kind",
        "status",
        "reason",
        "summary",
        "evidence",
        "parameters",
        "source",
    ]
    assert record["id"].startswith("claim-dropout-lowers-the-validation-mae-on-")
    assert record["id"] == make_record(sentence, fact(1, 1))["id"]
    # Sentences that differ in a sign, or late, have places of their own.
    others = ["a > b", "a < b", sentence + " Not."]
    assert len({make_record(s, fact(1, 1))["id"] for s in [sentence, *others]}) == 4


# Sabotage.


def collected():
    wide = HIGH + pd.Series([0.01, -0.02, 0.02, 0.0, -0.01])
    return json.loads(
        json.dumps(
            [
                make_record("A difference.", difference(higher=HIGH, lower=LOW, at_least=0.5)),
                make_record("An equivalence.", equivalence(HIGH, wide, margin=0.05)),
                make_record("A count.", fact(3, 3)),
                make_record("A number.", fact(3.01, 3, tolerance=0.02)),
                make_record("A low number.", fact(2.99, 3, tolerance=0.02)),
                make_record("A truth.", fact(True, True)),
                make_record("An array.", fact([1.0, 2.0], [1.0, 2.1], tolerance=0.2)),
                make_record("Not judged.", fact(1, 2), Songs(stand_in=True)),
            ]
        )
    )


def test_every_sabotaged_claim_fails(tmp_path, capsys):
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(collected()), encoding="utf-8")
    assert sabotage(collected()) == []
    assert main_sabotage(path) == 0
    assert capsys.readouterr().out == ("7 claims: every sabotaged one fails. 1 were not judged.\n")


def test_sabotage_finds_a_claim_that_cannot_fail(tmp_path, capsys):
    records = collected()
    # Such records can't be made by claim(); a looser judge would let them through.
    records[0]["parameters"]["at_least"] = -10.0
    records[2]["evidence"] = {"value": 1e17, "expected": 1e17}
    assert sabotage(records) == ["A difference.", "A count."]
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    assert main_sabotage(path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 of 7 claims hold although their evidence was spoilt:",
        "  A difference.",
        "  A count.",
    ]


def test_sabotage_of_nothing_is_no_success(tmp_path, capsys):
    path = tmp_path / "claims.json"
    assert main_sabotage(path) == 1
    path.write_text("[]", encoding="utf-8")
    assert main_sabotage(path) == 1
    assert "No judged claim" in capsys.readouterr().out
