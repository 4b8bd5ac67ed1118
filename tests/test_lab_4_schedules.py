"""What the checks of lab 4 find, and that its model answer is true."""

import numpy as np
import pytest
from test_labs_build import lab_and_names

from trainwell.labs import build as building

NAME = "lab_4_schedules"
# What students get wrong: the exercise, the right words and theirs.
MISTAKES = [
    (1, "(t + 1) / rise", "t / rise"),
    (1, "t - (total - fall) + 1, 0) / (fall + 1)", "t - (total - fall), 0) / fall"),
    (1, "/ (fall + 1)", "/ fall"),
    (1, "np.sqrt(fallen)", "fallen"),
    (1, "t - (total - fall) + 1", "t - (total - fall) + 2"),
    (2, "math.ceil(examples / batch_size) * epochs", "examples // batch_size * epochs"),
    (2, "math.ceil(examples / batch_size) * epochs", "math.ceil(examples * epochs / batch_size)"),
    (2, "round(boundary * now / before)", "int(boundary * now / before)"),
    (2, "round(boundary * now / before)", "boundary"),
    (2, "boundary >= before", "boundary > before"),
    (2, "boundary >= before", "False"),
    (3, "[0, k, last], [0, 1, 2]", "[0, k, total], [0, 1, 2]"),
    (3, "(1 - np.cos(np.pi * place)) / 2", "1 - abs(1 - place)"),
    (3, "0.95 - 0.1 * height", "0.85 + 0.1 * height"),
    (3, "peak / 250_000", "peak / 10_000"),
    (3, "round(0.3 *", "round(0.45 *"),
    (4, "rates[1:] / rates[:-1]", "rates[:-1] / rates[1:]"),
    (4, "rates[1:] / rates[:-1]", "rates[1:] / rates[0]"),
    (4, "result[1:] *= rates[1:] / rates[:-1]", "pass"),
    (4, "np.array(momenta, dtype=float)", "momenta"),
    (5, "~np.isfinite(losses)", "np.isnan(losses)"),
    (5, "bad = np.flatnonzero(~np.isfinite(losses))", "bad = []"),
    (5, "np.median(losses[max(0, i - 2) : i + 3])", "losses[i]"),
    (5, "np.median(", "np.mean("),
    (5, "rates[lowest] / 10", "rates[lowest]"),
    (5, "lowest == len(smooth) - 1", "False"),
    (6, "best - min_delta", "best"),
    (6, "waited == patience", "waited > patience"),
    (6, "rate, waited = rate * factor, 0", "rate, waited, best = rate * factor, 0, loss"),
    (6, "rate, waited = rate * factor, 0", "rate = rate * factor"),
]


@pytest.mark.parametrize(("exercise", "right", "wrong"), MISTAKES)
def test_both_checks_find_a_mistake(exercise: int, right: str, wrong: str) -> None:
    lab, names = lab_and_names(NAME)
    answer, check, held_back = (
        next(c for c in lab.cells if c.kind == kind and c.exercise == exercise)
        for kind in ("answer", "check", "held-back")
    )
    assert right in answer.solved()
    mine = dict(names)
    exec(answer.solved().replace(right, wrong), mine)
    checks = [check.source, *(building.seeded(held_back, seed) or "" for seed in range(3))]
    for text in checks:
        with pytest.raises(AssertionError), np.errstate(all="ignore"):
            exec(text, dict(mine))


def test_what_the_model_answer_says_is_true() -> None:
    _, names = lab_and_names(NAME)
    walk, plain = names["walk"], np.full(400, 0.9)

    def race(peak: float, seed: int) -> dict[str, np.ndarray]:
        rates = names["rise_stay_fall"](np.arange(400), 400, peak, 20, 80)
        return {
            "constant": walk(np.full(400, peak), plain, seed=seed),
            "fall": walk(rates, plain, seed=seed),
            "1cycle": walk(*names["one_cycle"](400, peak), seed=seed),
        }

    for seed in range(3):
        large, small = race(0.02, seed), race(0.005, seed)
        assert large["1cycle"][200] < 0.9 * large["constant"][200]
        assert large["fall"][200] == pytest.approx(large["constant"][200], rel=0.02)
        end = {name: distance[-1] for name, distance in large.items()}
        assert max(end["fall"], end["1cycle"]) < 0.6 * end["constant"]
        assert end["fall"] == pytest.approx(end["1cycle"], rel=0.15)
        for name, distance in small.items():
            assert distance[-1] < 0.75 * end[name]
        assert small["constant"][-1] == pytest.approx(end["fall"], rel=0.06)
