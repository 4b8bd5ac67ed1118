"""The NumPy optimizers: step for step Keras's own, and what their papers promise."""

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainwell.from_scratch import (
    NEWTON_SCHULZ,
    SGD,
    AdaGrad,
    Adam,
    AdaMax,
    AdamW,
    Lion,
    Momentum,
    Muon,
    Nadam,
    Nesterov,
    Optimizer,
    RMSProp,
    descend,
    nesterov_look_ahead,
    newton_schulz,
)
from trainwell.surfaces import BOWL, ROSENBROCK

STEPS = 100
# Each optimizer, Keras's class and what else Keras needs to be told. Then hyperparameters to try:
# epsilons that matter among gradients from a millionth to ten, and betas far from the defaults.
KERAS = {
    SGD: (keras.optimizers.SGD, {}),
    Momentum: (keras.optimizers.SGD, {}),
    Nesterov: (keras.optimizers.SGD, {"nesterov": True}),
    AdaGrad: (keras.optimizers.Adagrad, {}),
    RMSProp: (keras.optimizers.RMSprop, {}),
    Adam: (keras.optimizers.Adam, {}),
    AdaMax: (keras.optimizers.Adamax, {}),
    Nadam: (keras.optimizers.Nadam, {}),
    AdamW: (keras.optimizers.AdamW, {}),
    Lion: (keras.optimizers.Lion, {}),
    Muon: (keras.optimizers.Muon, {}),
}
BETAS = {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.8, "epsilon": 1e-3}
HYPERPARAMETERS = {
    SGD: [{"learning_rate": 0.5}],
    Momentum: [{"momentum": 0.9}, {"learning_rate": 0.1, "momentum": 0.5}],
    Nesterov: [{"momentum": 0.9}, {"learning_rate": 0.1, "momentum": 0.5}],
    AdaGrad: [
        {},
        {"learning_rate": 0.1, "initial_accumulator_value": 0.0},
        {"initial_accumulator_value": 0.01, "epsilon": 1e-3},
    ],
    RMSProp: [{}, {"learning_rate": 0.1, "rho": 0.5, "epsilon": 1e-3}],
    Adam: [{}, BETAS],
    AdaMax: [{}, BETAS],
    Nadam: [{}, BETAS],
    AdamW: [{}, {**BETAS, "weight_decay": 0.3}],
    Lion: [{}, {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.8, "weight_decay": 0.3}],
    Muon: [
        {},
        {
            "learning_rate": 0.1,
            "momentum": 0.5,
            "weight_decay": 0.3,
            "rms_rate": 1.0,
            "ns_steps": 2,
        },
    ],
}
CASES = [
    (kind, hyperparameters, shape)
    for kind, tried in HYPERPARAMETERS.items()
    for hyperparameters in tried
    for shape in ([(5, 3), (3, 5)] if kind is Muon else [(5, 3)])
]

examples = settings(max_examples=50, deadline=None, derandomize=True)
points = arrays(np.float64, 3, elements=st.floats(-10, 10))
# Not so near 0 that a square is lost.
nonzero = st.floats(1e-3, 10) | st.floats(-10, -1e-3)
gradients = arrays(np.float64, (20, 3), elements=nonzero)


@pytest.fixture
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def defaults(kind):
    """The arguments that Keras has too, and their defaults."""
    own = {f.name: f.default for f in dataclasses.fields(kind) if f.init}
    own.pop("epsilon_hat", None)
    return own


def path_of(optimizer, w, gradients):
    path = [w]
    for g in gradients:
        path.append(optimizer.step(path[-1], g))
    return np.array(path)


def path_of_keras(optimizer, w, gradients):
    variable = keras.Variable(w, dtype="float64")
    path = [w]
    for g in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g, "float64")], [variable])
        path.append(np.array(variable.numpy()))
    return np.array(path)


def digits_agree(path, other, digits):
    """Whether every weight's way agrees with the other, measured by how far that weight goes."""
    far = np.abs(other - other[0]).max(axis=0)
    assert (far > 0).all()
    return (np.abs(path - other) <= 10.0**-digits * far).all()


# Keras.


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="Keras on JAX has no float64")
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("kind", "hyperparameters", "shape"), CASES)
def test_the_steps_are_those_of_keras(kind, hyperparameters, shape):
    draw = np.random.default_rng(7)
    w = draw.normal(size=shape)
    sizes = 10 ** draw.uniform(-6, 1, size=shape)
    gradients = draw.normal(size=(STEPS, *shape)) * sizes
    # TensorFlow rounds a beta to float32 before Keras makes a float64 of it, and the 1 - 0.999 in
    # Adam's correction is then off in its fifth digit: give both sides numbers that are float32s.
    same = {
        name: float(np.float32(value)) if isinstance(value, float) else value
        for name, value in {**defaults(kind), **hyperparameters}.items()
    }
    keras_kind, also = KERAS[kind]
    path = path_of(kind(**same), w, gradients)
    expected = path_of_keras(keras_kind(**same, **also), w, gradients)
    # In float64, a weight near 1 that moves by a millionth has ten digits of its way left.
    assert digits_agree(path, expected, digits=6)


@pytest.mark.parametrize("kind", KERAS)
def test_the_defaults_are_those_of_keras(kind):
    config = KERAS[kind][0]().get_config()
    own = defaults(kind)
    if "momentum" in own and kind is not Muon:
        assert own.pop("momentum") == 0.9
        assert config["momentum"] == 0
    expected = {name: config[name] or 0.0 for name in own}
    assert own == pytest.approx(expected, rel=1e-6)


# Where Keras is not the paper.


def test_keras_nesterov_visits_the_places_where_the_paper_looks_ahead():
    rule = Nesterov(learning_rate=0.001, momentum=0.9)
    keras_path = descend(rule, ROSENBROCK.gradient, ROSENBROCK.start, 2_000)
    w, ahead = nesterov_look_ahead(
        ROSENBROCK.gradient, ROSENBROCK.start, 2_000, learning_rate=0.001, momentum=0.9
    )
    np.testing.assert_allclose(keras_path, ahead, rtol=1e-9)
    assert np.abs(w - ahead).max() > 0.05, "the paper's own points are others"
    np.testing.assert_allclose(w[-1], ROSENBROCK.minimum, atol=0.01)


def test_the_paper_evaluates_the_gradient_ahead_of_its_point():
    seen = []

    def gradient(w):
        seen.append(w.copy())
        return BOWL.gradient(w)

    w, ahead = nesterov_look_ahead(gradient, BOWL.start, 3, learning_rate=0.01, momentum=0.5)
    v = np.diff(w, axis=0)
    np.testing.assert_array_equal(seen[0], BOWL.start)
    np.testing.assert_allclose(seen[1:], w[1:-1] + 0.5 * v[:-1])
    np.testing.assert_allclose(v[1:], 0.5 * v[:-1] - 0.01 * BOWL.gradient(ahead[1:-1].T).T)


@pytest.mark.parametrize(("start", "first_step"), [(0.0, 1.0), (0.1, 1e-3 / math.sqrt(0.1))])
def test_adagrad_starts_at_0_in_the_paper_and_at_a_tenth_in_keras(start, first_step):
    g = np.array([1e-3, -1e-3])
    rule = AdaGrad(learning_rate=0.5, initial_accumulator_value=start, epsilon=0.0)
    np.testing.assert_allclose(rule.step(np.zeros(2), g), 0.5 * first_step * -np.sign(g), rtol=1e-5)


@pytest.mark.parametrize("g", [1e-7, 1.0])
def test_adams_epsilon_stands_after_the_correction_in_the_paper_and_before_it_in_keras(g):
    # Of a constant gradient, m_hat is g and v_hat is g^2 at every step.
    gradients = np.full((5, 1), g)
    t = np.arange(1, 6)
    paper = 0.1 * g / (g + 1e-7) * np.ones(5)
    in_keras = 0.1 * g / (g + 1e-7 / np.sqrt(1 - 0.999**t))
    for rule, expected in [
        (Adam(0.1, epsilon_hat=False), paper),
        (Adam(0.1), in_keras),
    ]:
        steps = -np.diff(path_of(rule, np.zeros(1), gradients)[:, 0])
        np.testing.assert_allclose(steps, expected, rtol=1e-9)


def test_the_first_step_of_a_tiny_gradient_shows_adams_two_epsilons():
    g = np.array([1e-7])
    steps = [-Adam(1.0, epsilon_hat=hat).step(np.zeros(1), g)[0] for hat in (False, True)]
    assert steps == pytest.approx([0.5, 1 / (1 + 1 / math.sqrt(0.001))])
    assert steps[0] > 15 * steps[1]


def test_rmsprops_epsilon_inside_the_root_acts_on_gradients_below_its_root():
    tiny, large = np.full((500, 1), 1e-5), np.full((500, 1), 1e-1)
    step = {
        g[0, 0]: -np.diff(path_of(RMSProp(1.0), np.zeros(1), g)[-2:, 0])[0] for g in (tiny, large)
    }
    assert step[0.1] == pytest.approx(1, rel=1e-4)
    assert step[1e-5] == pytest.approx(1e-5 / math.sqrt(1e-10 + 1e-7), rel=1e-4)


def test_nadams_momentum_warms_up_from_about_a_half():
    # The first step of a constant gradient of 1, by hand: mu_1 = .9 * .52, mu_2 = .9 * .5392.
    mu, mu_next = 0.9 * (1 - 0.5 * 0.96), 0.9 * (1 - 0.5 * 0.96**2)
    expected = mu_next * 0.1 / (1 - mu * mu_next) + 1
    step = -Nadam(1.0, epsilon=0.0).step(np.zeros(1), np.ones(1))[0]
    assert step == pytest.approx(expected)


def test_nadams_paper_warms_up_250_times_as_slowly_and_fades_m_by_mu():
    """Dozat's algorithm, line by line, beside Keras's."""

    def paper(gradients, mu, beta_2=0.999):
        w = m = v = 0.0
        path, product = [], 1.0
        for t, g in enumerate(gradients, start=1):
            product *= mu(t)
            m = mu(t) * m + (1 - mu(t)) * g
            v = beta_2 * v + (1 - beta_2) * g**2
            m_hat = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
            w = w - m_hat / (np.sqrt(v / (1 - beta_2**t)) + 1e-7)
            path.append(w)
        return np.array(path)

    gradients = np.random.default_rng(0).normal(size=STEPS)
    keras_optimizer = keras.optimizers.Nadam(1.0)
    by_keras = path_of_keras(keras_optimizer, np.zeros(1), gradients[:, None])[1:, 0]
    by_paper = paper(gradients, lambda t: 0.9 * (1 - 0.5 * 0.96 ** (t / 250)))
    with_keras_mu = paper(gradients, lambda t: 0.9 * (1 - 0.5 * 0.96**t))
    assert np.abs(by_paper - by_keras).max() > 1, "another warm-up"
    assert np.abs(with_keras_mu - by_keras).max() > 0.1, "and another m"


# What the papers promise.


@examples
@given(points)
def test_without_a_gradient_nothing_moves(w):
    for rule in (SGD(), Momentum(), Nesterov(), AdaGrad(), RMSProp(), Adam(), AdaMax(), Nadam()):
        np.testing.assert_array_equal(path_of(rule, w, np.zeros((3, 3)))[-1], w)
    np.testing.assert_array_equal(Lion().step(w, np.zeros(3)), w)


@pytest.mark.parametrize("kind", [Momentum, Nesterov])
@pytest.mark.parametrize(("beta", "times"), [(0.9, 10), (0.5, 2), (0.0, 1)])
def test_momentums_terminal_step(kind, beta, times):
    path = path_of(kind(learning_rate=0.01, momentum=beta), np.zeros(1), np.full((300, 1), 3.0))
    steps = -np.diff(path[:, 0])
    assert steps[0] == pytest.approx(0.03 * (1 + beta if kind is Nesterov else 1))
    assert steps[-1] == pytest.approx(times * 0.03)


@examples
@given(points, gradients)
def test_lions_step_has_one_size(w, g):
    path = path_of(Lion(learning_rate=0.25), w, g)
    np.testing.assert_allclose(np.abs(np.diff(path, axis=0)), 0.25, rtol=1e-9)


@examples
@given(points, gradients)
def test_adamw_without_decay_is_adam(w, g):
    np.testing.assert_array_equal(path_of(AdamW(weight_decay=0.0), w, g), path_of(Adam(), w, g))


def test_adamws_decay_does_not_depend_on_the_gradients():
    w, g = np.array([2.0, 2.0]), np.array([1e-3, 1e3])
    decay = AdamW(0.1, weight_decay=0.5).step(w, g) - Adam(0.1).step(w, g)
    np.testing.assert_allclose(decay, -0.1 * 0.5 * w)


@examples
@given(gradients, st.floats(1e-3, 1e3))
def test_adam_does_not_mind_rescaled_gradients(g, factor):
    path = path_of(Adam(epsilon=0.0), np.zeros(3), g)
    rescaled = path_of(Adam(epsilon=0.0), np.zeros(3), factor * g)
    np.testing.assert_allclose(rescaled, path, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("in_m", "in_w"), list(itertools.product([1, -1], repeat=2)))
def test_adams_minus_may_stand_in_m_or_in_the_step_but_not_in_both(in_m, in_w):
    w, m, v = np.array(BOWL.start), np.zeros(2), np.zeros(2)
    for t in range(1, 51):
        g = BOWL.gradient(w)
        m = 0.9 * m + in_m * 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w + in_w * 0.1 * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
    adam = descend(Adam(0.1, epsilon=0.0), BOWL.gradient, BOWL.start, 50)[-1]
    if in_m != in_w:
        np.testing.assert_allclose(w, adam)
        assert BOWL.value(w) < BOWL.value(np.array(BOWL.start))
    else:
        assert BOWL.value(w) > 2 * BOWL.value(np.array(BOWL.start)), "it climbs"


@pytest.mark.parametrize("shape", [(6, 6), (30, 4), (4, 30)])
def test_newton_schulz_keeps_the_singular_vectors(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    a, b, c = NEWTON_SCHULZ
    values /= np.linalg.norm(values)
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    np.testing.assert_allclose(newton_schulz(matrix), u * values @ v, atol=1e-5)


def test_newton_schulz_is_for_matrices():
    with pytest.raises(ValueError, match=r"matrix must have two axes, got the shape \(3,\)"):
        newton_schulz(np.ones(3))
    for steps in (-1, 2.5):
        with pytest.raises(ValueError, match=f"steps must be a whole .* 0, got {steps}"):
            newton_schulz(np.eye(2), steps)


def test_newton_schulz_brings_singular_values_near_1():
    values = np.sqrt(np.linspace(0.05**2, 1, 400))
    for value in values:  # a matrix of norm 1 with this value and another
        others = math.sqrt(1 - value**2 + 1e-12)
        after = np.diag(newton_schulz(np.diag([value, others])))
        assert 0.68 < after[0] < 1.14
    unchanged = np.linalg.svd(newton_schulz(np.diag([1.0, 1e-4])), compute_uv=False)
    assert unchanged[1] < 0.1, "a tiny one stays small"


@pytest.mark.parametrize("shape", [(20, 20), (100, 10), (10, 100)])
@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_muons_step_has_one_size_whatever_the_shape_and_the_gradient(shape, size):
    g = size * np.random.default_rng(1).normal(size=shape)
    step = Muon(learning_rate=0.1, weight_decay=0.0).step(np.zeros(shape), g)
    assert 0.75 < np.sqrt((step**2).mean()) / (0.1 * 0.2) < 1.1


# Descending.


@pytest.mark.parametrize("kind", [kind for kind in KERAS if kind is not Muon])
def test_every_optimizer_goes_down_the_bowl(kind):
    path = descend(kind(learning_rate=0.02), BOWL.gradient, BOWL.start, 100)
    values = BOWL.value(path.T)
    assert path.shape == (101, 2)
    np.testing.assert_array_equal(path[0], BOWL.start)
    assert values[-1] < values[0]


def test_a_path_is_its_steps():
    path = descend(SGD(learning_rate=0.25), lambda w: 2 * w, [8.0, 4.0], 3)
    np.testing.assert_array_equal(path, [[8, 4], [4, 2], [2, 1], [1, 0.5]])


@pytest.mark.parametrize("kind", [kind for kind in KERAS if kind is not Muon])
def test_every_descent_starts_afresh_and_leaves_the_optimizer_alone(kind):
    rule = kind(learning_rate=0.02)
    first = descend(rule, BOWL.gradient, BOWL.start, 20)
    assert rule == kind(learning_rate=0.02)
    rule.step(np.ones(2), np.ones(2))
    np.testing.assert_array_equal(descend(rule, BOWL.gradient, BOWL.start, 20), first)


@pytest.mark.parametrize("kind", KERAS)
def test_a_step_changes_neither_the_weights_nor_the_gradient_given(kind):
    w, g = np.ones((2, 2)), np.full((2, 2), 3.0)
    rule = kind()
    for _ in range(2):
        assert rule.step(w, g) is not w
    np.testing.assert_array_equal(w, 1)
    np.testing.assert_array_equal(g, 3)


def test_matrices_descend_too():
    path = descend(Muon(learning_rate=0.1), lambda w: w, np.eye(3), 10)
    assert path.shape == (11, 3, 3)
    assert np.linalg.norm(path[-1]) < np.linalg.norm(path[0])


def test_a_descent_that_diverges_says_so_in_its_path():
    path = descend(SGD(learning_rate=1.0), ROSENBROCK.gradient, ROSENBROCK.start, 50)
    assert np.isfinite(path[:3]).all()
    assert not np.isfinite(path[-1]).any()


# Bad arguments.


@pytest.mark.parametrize("kind", KERAS)
def test_a_bad_hyperparameter_is_named(kind):
    for name in defaults(kind):
        fraction = name in ("momentum", "rho", "beta_1", "beta_2")
        wanted = "at least 0 and less than 1" if fraction else "a finite number of 0 or more"
        for wrong in [-0.1, math.nan, math.inf, *([1.0] if fraction else [])]:
            with pytest.raises(ValueError, match=f"{name} must be {wanted}, got {wrong}"):
                kind(**{name: wrong})
        with pytest.raises(ValueError, match=f"{name} must be a number, got '0.1'"):
            kind(**{name: "0.1"})
        kind(**{name: 0})


def test_bad_arguments_of_a_descent():
    with pytest.raises(ValueError, match="steps must be a whole number, at least 1, got 0"):
        descend(SGD(), BOWL.gradient, BOWL.start, 0)
    with pytest.raises(ValueError, match=r"steps must be a whole number, at least 1, got 2\.5"):
        descend(SGD(), BOWL.gradient, BOWL.start, 2.5)
    with pytest.raises(ValueError, match=r"its point's shape \(2,\), got \(2, 1\)"):
        descend(SGD(), lambda w: w[:, np.newaxis], BOWL.start, 5)
    with pytest.raises(ValueError, match="steps must be a whole number, at least 1, got 0"):
        nesterov_look_ahead(BOWL.gradient, BOWL.start, 0)
    with pytest.raises(ValueError, match=r"its point's shape \(2,\), got \(\)"):
        nesterov_look_ahead(lambda w: 1.0, BOWL.start, 5)
    with pytest.raises(ValueError, match="momentum must be at least 0 and less than 1, got 1"):
        nesterov_look_ahead(BOWL.gradient, BOWL.start, 5, momentum=1.0)
    with pytest.raises(ValueError, match=r"learning_rate must be a finite .*, got -1"):
        nesterov_look_ahead(BOWL.gradient, BOWL.start, 5, learning_rate=-1)


def test_muon_is_for_matrices():
    with pytest.raises(ValueError, match=r"w must be a matrix, got the shape \(2,\). Use AdamW"):
        descend(Muon(), BOWL.gradient, BOWL.start, 5)


def test_an_optimizer_must_have_a_step():
    with pytest.raises(NotImplementedError):
        Optimizer().step(np.ones(2), np.ones(2))
