"""What the checks of lab 1 find, and that its model answer is true."""

import numpy as np
import pytest
from test_labs_build import lab_and_names

from trainwell.labs import build as building

NAME = "lab_1_fit"
# What students get wrong: the exercise, the right words and theirs.
MISTAKES = [
    (1, "np.unique(groups), size", "groups, size"),
    (1, "draw.choice(np.unique(groups), size=count, replace=False)", "np.unique(groups)[:count]"),
    (1, ", replace=False", ""),
    (1, "draw.choice", "np.random.choice"),
    (1, "np.flatnonzero(~inside), np.flatnonzero(inside)", "~inside, inside"),
    (
        1,
        "return np.flatnonzero(~inside), np.flatnonzero(inside)",
        "return np.nonzero(inside)[0], np.nonzero(~inside)[0]",
    ),
    (2, "np.sqrt(strength)", "strength"),
    (2, "np.sqrt(strength)", "np.sqrt(len(x) * strength)"),
    (2, "x.std(axis=0)", "x.std(axis=0, ddof=1)"),
    (2, "x.mean(axis=0), x.std(axis=0)", "x.mean(axis=0), np.ones(x.shape[1])"),
    (2, "x.mean(axis=0), x.std(axis=0)", "x.mean(), x.std()"),
    (2, "(new - mean) / std @ w", "(new - new.mean(axis=0)) / new.std(axis=0) @ w"),
    (2, "lambda new: y.mean() + ", "lambda new: "),
    (3, "x[~out], y[~out]", "x, y"),
    (3, "fit(x[~out], y[~out])", "fit(x[out], y[out])"),
    (3, "(predict(x[out]) - y[out])", "(predict(x[~out]) - y[~out])"),
    (3, "np.unique(fold)", "dict.fromkeys(fold.tolist())"),
    (3, "(predict(x[out]) - y[out]) ** 2", "abs(predict(x[out]) - y[out])"),
    (3, "np.array(on_folds)", "np.mean(on_folds)"),
    (4, "np.mean((middle - truth) ** 2)", "np.mean(middle - truth) ** 2"),
    (4, "np.mean((middle - truth) ** 2)", "np.mean((predictions - truth) ** 2)"),
    (4, "predictions.var(axis=0)", "predictions.var(axis=0, ddof=1)"),
    (4, "predictions.var(axis=0)", "predictions.std(axis=0)"),
    (4, "predictions.var(axis=0)", "predictions.var(axis=1)"),
    (5, "valid[:, :m].argmin(axis=1)", "test[:, :m].argmin(axis=1)"),
    (5, "valid[:, :m].argmin(axis=1)", "valid[:, :m].mean(axis=0).argmin()"),
    (5, "valid[:, :m].argmin(axis=1)", "valid[:, : m + 1].argmin(axis=1)"),
    (
        5,
        "test[every, chosen] - valid[every, chosen]",
        "test[:, :m].min(axis=1) - valid[:, :m].min(axis=1)",
    ),
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
    sample, fit_degree = names["sample"], names["fit_degree"]
    errors = {}
    for n in (30, 1_000):
        for degree in (1, 3, 12):
            pairs = []
            for seed in range(40):
                x, y = sample(n, seed)
                new_x, new_y = sample(1_000, 10_000 + seed)
                model = fit_degree(x, y, degree)
                pairs.append((np.mean((model(x) - y) ** 2), np.mean((model(new_x) - new_y) ** 2)))
            errors[n, degree] = np.mean(pairs, axis=0)
    training, new = errors[30, 1]
    assert training > 3 * 0.09
    assert new - training < 0.2 * training
    assert errors[1_000, 1][1] > 0.9 * new
    assert errors[30, 12][0] < 0.09 < 0.6 * errors[30, 12][1]
    for n, best in [(30, 3), (1_000, 12)]:
        assert min((1, 3, 12), key=lambda degree, n=n: float(errors[n, degree][1])) == best
    gains = {degree: errors[30, degree][1] - errors[1_000, degree][1] for degree in (1, 3, 12)}
    assert gains[12] > 3 * max(gains[1], gains[3])
    assert errors[1_000, 12][1] < 0.096
    assert errors[1_000, 3][1] > 0.11
