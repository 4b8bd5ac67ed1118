"""Power decay, 1cycle and the range test: their formulas, and what a compiled step uses of them."""

import math

import keras
import numpy as np
import pytest

from trainwell.from_scratch import Momentum, Nesterov
from trainwell.schedules import OneCycle, OneCycleSGD, PowerDecay, lr_range_test

# One weight w, the inputs' mean square 1 and the targets 0: the loss is w^2, its curvature 2.
X = np.tile([1.0, -1.0], 32)[:, np.newaxis].astype("float32")
Y = np.zeros_like(X)
CURVATURE = 2.0


def one_weight(optimizer, **options):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(optimizer, "mse", **options)
    return model


def weight(model):
    return model.get_weights()[0].item()


def values(schedule, steps):
    """The schedule at each step, asked for one at a time as Keras does."""
    return np.array([float(schedule(step)) for step in steps])


# Power decay.


@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
def test_power_decay_is_its_formula(power):
    steps = [0, 1, 10, 10_000, 20_000, 10**6]
    rates = values(PowerDecay(0.01, decay_steps=10_000, power=power), steps)
    np.testing.assert_allclose(rates, [0.01 / (1 + t / 10_000) ** power for t in steps], rtol=1e-5)
    assert rates[3] == pytest.approx(0.01 / 2**power)


def test_power_1_is_keras_inverse_time_decay():
    steps = range(0, 5_000, 250)
    of_keras = keras.optimizers.schedules.InverseTimeDecay(0.01, decay_steps=100, decay_rate=1.0)
    rates = values(PowerDecay(0.01, decay_steps=100), steps)
    np.testing.assert_allclose(rates, values(of_keras, steps), rtol=1e-6)


# 1cycle's learning rate.

# 101 steps: up to step 45, down to step 90, and out at step 100.
CYCLE = OneCycle(0.5, 101)


def test_one_cycle_at_the_ends_of_its_phases():
    rates = values(CYCLE, [0, 45, 90, 100])
    np.testing.assert_allclose(rates, [0.05, 0.5, 0.05, 0.05 / 1000], rtol=1e-5)
    rates = values(OneCycle(0.5, 101, 0.2, 1e-7), [0, 45, 90, 100])
    np.testing.assert_allclose(rates, [0.2, 0.5, 0.2, 1e-7], rtol=1e-5)
    assert values(OneCycle(0.5, 101, final_learning_rate=0.0), [100]) == 0


@pytest.mark.parametrize(("first", "last", "slope"), [(0, 45, 0.01), (45, 90, -0.01)])
def test_one_cycle_is_straight_up_and_straight_down(first, last, slope):
    rates = values(CYCLE, range(first, last + 1))
    np.testing.assert_allclose(np.diff(rates), slope, rtol=1e-4)


def test_one_cycle_ends_in_a_straight_line_and_stays_there():
    rates = values(CYCLE, range(90, 101))
    np.testing.assert_allclose(np.diff(rates), (0.05 / 1000 - 0.05) / 10, rtol=1e-4)
    np.testing.assert_array_equal(values(CYCLE, [101, 1_000, 10**6]), rates[-1])


@pytest.mark.parametrize("total_steps", [4, 5, 10, 17, 1_719])
def test_one_cycle_of_any_length_reaches_its_peak_once_and_its_end(total_steps):
    rates = keras.ops.convert_to_numpy(OneCycle(1.0, total_steps)(np.arange(total_steps)))
    peak = rates.argmax()
    assert rates[0] == pytest.approx(0.1)
    assert rates[peak] == 1
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[-1] == pytest.approx(1e-4)
    # The last phase takes a tenth, and what is left over.
    assert (rates < 0.0999).sum() == total_steps - 1 - 2 * peak <= total_steps / 10 + 2


@pytest.mark.parametrize("schedule", [CYCLE, PowerDecay(0.1, 10)])
def test_arrays_of_steps_are_to_be_plotted(schedule):
    steps = np.arange(120)
    at_once = keras.ops.convert_to_numpy(schedule(steps))
    np.testing.assert_allclose(at_once, values(schedule, steps), rtol=1e-6)


# 1cycle's momentum.


def test_the_momentum_falls_while_the_rate_rises():
    optimizer = OneCycleSGD(CYCLE)
    steps = range(101)
    momentum, rate = values(optimizer.momentum_at, steps), values(CYCLE, steps)
    np.testing.assert_allclose(momentum[[0, 45, 90, 100]], [0.95, 0.85, 0.95, 0.95], rtol=1e-6)
    rising, falling = slice(0, 46), slice(45, 91)
    assert (np.diff(momentum[rising]) < 0).all()
    assert (np.diff(rate[rising]) > 0).all()
    assert (np.diff(momentum[falling]) > 0).all()
    assert (np.diff(rate[falling]) < 0).all()
    np.testing.assert_allclose(momentum[90:], 0.95, rtol=1e-6)
    assert float(optimizer.momentum_at(10**6)) == pytest.approx(0.95)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("steps_per_execution", [1, 5])
def test_a_compiled_step_uses_the_momentum_of_its_step(nesterov, steps_per_execution):
    cycle = OneCycle(0.1, 20)
    model = one_weight(
        OneCycleSGD(cycle, momentum=0.9, momentum_at_peak=0.3, nesterov=nesterov),
        steps_per_execution=steps_per_execution,
    )
    rule = (Nesterov if nesterov else Momentum)()
    w = np.ones(())
    for step in range(20):
        # By hand: step 8 of 20 is the peak, the last phase begins at step 16.
        rule.learning_rate = np.interp(step, [0, 8, 16, 19], [0.01, 0.1, 0.01, 1e-5])
        rule.momentum = np.interp(step, [0, 8, 16], [0.9, 0.3, 0.9])
        w = rule.step(w, CURVATURE * w)
        if step % 5 == 4:
            model.fit(X[:40], Y[:40], batch_size=8, shuffle=False, verbose=0)  # 5 steps
            assert weight(model) == pytest.approx(w, rel=1e-4, abs=1e-6)


def test_momentum_set_on_keras_sgd_has_no_effect_once_the_step_is_compiled():
    """Why there is OneCycleSGD. When this fails, a callback would do."""
    model = one_weight(keras.optimizers.SGD(0.01, momentum=0.5))
    model.train_on_batch(X, Y)
    model.optimizer.momentum = 0.0
    model.train_on_batch(X, Y)
    v = -0.01 * CURVATURE
    w = 1 + v
    assert weight(model) == pytest.approx(w + 0.5 * v - 0.01 * CURVATURE * w)


def test_one_cycle_with_a_constant_momentum_is_keras_sgd():
    def trained(optimizer):
        model = one_weight(optimizer)
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return weight(model)

    own = trained(OneCycleSGD(OneCycle(0.3, 16), 0.9, 0.9, weight_decay=0.1, clipnorm=0.5))
    of_keras = keras.optimizers.SGD(OneCycle(0.3, 16), momentum=0.9, weight_decay=0.1, clipnorm=0.5)
    assert own == pytest.approx(trained(of_keras), rel=1e-5)
    assert own != pytest.approx(trained(OneCycleSGD(OneCycle(0.3, 16), 0.9, 0.8)), rel=1e-3)


# Saving.


@pytest.mark.parametrize(
    "schedule",
    [PowerDecay(0.02, 300, power=0.5), OneCycle(0.3, 40, 0.02, 1e-5), OneCycle(0.3, 40)],
)
def test_a_schedule_comes_back_from_its_config(schedule):
    config = keras.saving.serialize_keras_object(schedule)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(schedule)
    assert copy.get_config() == schedule.get_config()
    np.testing.assert_array_equal(values(copy, range(45)), values(schedule, range(45)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(PowerDecay(0.05, 10)),
        lambda: keras.optimizers.SGD(OneCycle(0.1, 32), momentum=0.9),
        lambda: OneCycleSGD(OneCycle(0.1, 32), momentum=0.8, momentum_at_peak=0.4, nesterov=True),
    ],
    ids=["PowerDecay", "OneCycle", "OneCycleSGD"],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
def test_a_saved_model_trains_on_where_it_stopped(make, tmp_path):
    def train(model):
        model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)

    model = one_weight(make())
    train(model)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    assert copy.optimizer.get_config() == model.optimizer.get_config()
    assert int(copy.optimizer.iterations) == 16
    before = weight(copy)
    train(model)
    train(copy)
    assert weight(copy) == pytest.approx(weight(model), rel=1e-6)
    assert weight(copy) != pytest.approx(before, rel=1e-3)


# The range test.


def test_the_loss_falls_until_the_rate_is_two_over_the_curvature():
    frame = lr_range_test(
        one_weight(keras.optimizers.SGD(0.5)),
        X,
        Y,
        min_learning_rate=0.1,
        max_learning_rate=10.0,
        steps=41,
    )
    assert list(frame.columns) == ["step", "learning_rate", "loss"]
    np.testing.assert_array_equal(frame["step"], np.arange(1, len(frame) + 1))
    ratios = frame["learning_rate"].to_numpy()[1:] / frame["learning_rate"].to_numpy()[:-1]
    np.testing.assert_allclose(ratios, 100 ** (1 / 40))
    # By hand: a step multiplies the weight by 1 - rate * curvature; a row's loss is that before it.
    factors = 1 - CURVATURE * frame["learning_rate"]
    expected = np.cumprod([1, *factors[:-1]]) ** 2
    np.testing.assert_allclose(frame["loss"], expected, rtol=1e-3)
    turn = frame.loc[frame["loss"].idxmin(), "learning_rate"]
    assert 2 / CURVATURE <= turn <= 2 / CURVATURE * ratios[0] * 1.001


def test_it_stops_when_the_loss_explodes():
    frame = lr_range_test(one_weight("sgd"), X, Y, min_learning_rate=1.0, max_learning_rate=100)
    windows = np.lib.stride_tricks.sliding_window_view(frame["loss"], 5)
    exploded = np.median(windows, axis=1) > 4 * np.median(windows[0])
    assert len(frame) < 200
    assert exploded[-1]
    assert not exploded[:-1].any()


def test_one_unlucky_batch_does_not_stop_it():
    x = np.ones((64, 1))
    x[0] = 100.0  # a batch that draws it has a loss a hundred times the others'
    options = {"batch_size": 8, "steps": 30, "max_learning_rate": 1e-4}
    frame = lr_range_test(one_weight("sgd"), x, Y, **options)
    assert len(frame) == 30
    assert frame["loss"].max() > 100 * frame["loss"].median()


def test_it_stops_when_the_loss_is_no_number():
    x = np.where(np.arange(64) < 63, 1.0, 1e30)[:, np.newaxis]  # its square is too large
    frame = lr_range_test(one_weight("sgd"), x, Y, batch_size=64)
    assert len(frame) == 1
    assert math.isinf(frame["loss"].iloc[0])


def test_it_takes_all_its_steps_when_nothing_explodes():
    frame = lr_range_test(one_weight("sgd"), X, Y, max_learning_rate=0.01, steps=7)
    assert len(frame) == 7
    assert frame["learning_rate"].iloc[[0, -1]].tolist() == pytest.approx([1e-5, 0.01])


def test_the_seed_decides_what_is_drawn():
    x = np.random.default_rng(0).normal(size=(64, 1))

    def losses(seed):
        options = {"max_learning_rate": 0.1, "steps": 5, "batch_size": 4, "seed": seed}
        return lr_range_test(one_weight("sgd"), x, Y, **options)["loss"].tolist()

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_no_two_examples_of_a_batch_are_the_same():
    x = np.arange(8.0)[:, np.newaxis]
    frame = lr_range_test(one_weight("sgd"), x, x * 0, batch_size=100, max_learning_rate=1e-4)
    assert frame["loss"].iloc[0] == pytest.approx((x**2).mean())


def noisy_model():
    """A network with every kind of state: batch norm's, dropout's, Adam's."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(8),
            layers.BatchNormalization(),
            layers.Dropout(0.5, seed=1),
        ]
    )
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize("trained", [False, True])
def test_the_model_is_left_as_it_was_found(trained):
    def fit(model):
        return model.fit(X, Y + X, batch_size=8, shuffle=False, verbose=0).history["loss"]

    tested, other = noisy_model(), noisy_model()
    for model in (tested, other):
        if trained:
            fit(model)
    before = tested.get_weights()
    frame = lr_range_test(tested, X, Y + X, batch_size=8, steps=30)
    assert len(frame) > 10, "the model did train in the test"
    for a, b in zip(tested.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(tested.optimizer.learning_rate) == pytest.approx(0.01)
    assert int(tested.optimizer.iterations) == (8 if trained else 0)
    # The same batches, dropout and moments from here on, so the same losses.
    assert fit(tested) == pytest.approx(fit(other), rel=1e-5)
    for a, b in zip(tested.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_model_is_restored_after_an_interrupt(monkeypatch):
    model = one_weight(keras.optimizers.SGD(0.25, momentum=0.9))
    train, calls = model.train_on_batch, []

    def interrupted(*batch, **options):
        calls.append(batch)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(*batch, **options)

    monkeypatch.setattr(model, "train_on_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lr_range_test(model, X, Y, min_learning_rate=0.1)
    assert weight(model) == 1
    assert float(model.optimizer.learning_rate) == 0.25
    assert not np.any(model.optimizer.momentums[0].numpy())


def test_a_loss_may_be_negative():
    model = one_weight("sgd")
    model.compile("sgd", "cosine_similarity")  # -1 from the first step on
    assert len(lr_range_test(model, X, X, steps=10)) == 10


def test_many_steps_at_once_do_not_change_the_range_test():
    frames = [
        lr_range_test(one_weight("sgd", steps_per_execution=n), X, Y, min_learning_rate=0.01)
        for n in (1, 7)
    ]
    np.testing.assert_allclose(*[frame["loss"] for frame in frames], rtol=1e-6)


def test_a_bar_only_where_progress_is_shown(monkeypatch, capsys):
    for shown in ("0", "1"):
        monkeypatch.setenv("TRAINWELL_PROGRESS", shown)
        lr_range_test(one_weight("sgd"), X, Y, steps=3)
        assert ("3/3" in capsys.readouterr().err) == (shown == "1")


# Bad arguments.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PowerDecay(-0.1, 10),
            "initial_learning_rate must be .* above 0, got -0.1",
        ),
        (lambda: PowerDecay(True, 10), "initial_learning_rate must be a finite .*, got True"),
        (lambda: PowerDecay(np.True_, 10), "initial_learning_rate must be a finite .*, got .*True"),
        (lambda: OneCycle(0.5, 100, True), "initial_learning_rate must be a number, got True"),
        (lambda: PowerDecay("0.1", 10), "initial_learning_rate must be a finite .*, got '0.1'"),
        (lambda: OneCycle("0.5", 100), "peak_learning_rate must be a finite number .*, got '0.5'"),
        (lambda: OneCycle(0.5, 100, "0.1"), "initial_learning_rate must be a number, got '0.1'"),
        (lambda: OneCycle(0.5, 100, 0.1, "0"), "final_learning_rate must be a number, got '0'"),
        (lambda: OneCycle(0.5, 10.5), "total_steps must be a whole number, .*, got 10.5"),
        (lambda: PowerDecay(0.1, 0), "decay_steps must be a finite number above 0, got 0"),
        (lambda: PowerDecay(0.1, 10, power=0.0), "power must be a finite number .*, got 0.0"),
        (lambda: PowerDecay(math.nan, 10), "initial_learning_rate must be .*, got nan"),
        (lambda: PowerDecay(0.1, math.inf), "decay_steps must be .*, got inf"),
        (lambda: OneCycle(-0.5, 100), "peak_learning_rate must be .* above 0, got -0.5"),
        (lambda: OneCycle(math.inf, 100), "peak_learning_rate must be .* above 0, got inf"),
        (lambda: OneCycle(0.5, 100, 0.6), "got 0.0006, 0.6 and 0.5"),
        (lambda: OneCycle(0.5, 100, 0.5), "got 0.0005, 0.5 and 0.5"),
        (
            lambda: OneCycle(0.5, 100, 0.1, 0.1),
            "0 <= final_.*, got 0.1, 0.1 and 0.5",
        ),
        (lambda: OneCycle(0.5, 100, 0.1, -0.1), "got -0.1, 0.1 and 0.5"),
        (
            lambda: OneCycle(0.5, 0),
            "total_steps must be a whole number, at least 4, got 0. It is the num",
        ),
        (lambda: OneCycle(0.5, 3), "total_steps must be a whole number, at least 4, got 3"),
        (
            lambda: OneCycleSGD(0.5),
            "learning_rate must be a OneCycle, got 0.5. .*SGD",
        ),
        (lambda: OneCycleSGD(CYCLE, "0.9"), "momentum must be a number, got '0.9'"),
        (lambda: OneCycleSGD(CYCLE, 0.9, "0"), "momentum_at_peak must be a number, got '0'"),
        (lambda: OneCycleSGD(CYCLE, 0.0), "momentum must be more than 0 and less than 1, got 0.0"),
        (lambda: OneCycleSGD(CYCLE, 1.0), "momentum must be more than 0 and less than 1, got 1.0"),
        (lambda: OneCycleSGD(CYCLE, 0.9, 0.95), "at most momentum, 0.9, got 0.95"),
        (lambda: OneCycleSGD(CYCLE, 0.9, -0.1), "at most momentum, 0.9, got -0.1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"y": Y[:-1]}, "x and y must have equally many rows, one or more, got 64 and 63"),
        ({"x": X[:0], "y": Y[:0]}, "one or more, got 0 and 0"),
        ({"x": X * np.nan}, "x must be finite, got nan in row 0; .* in 64 of 64 rows"),
        ({"y": np.full(64, np.inf)}, "y must be finite, got inf in row 0"),
        ({"min_learning_rate": 0.0}, "min_learning_rate must be a finite number .*, got 0.0"),
        ({"max_learning_rate": 1e-6}, "less than max_learning_rate, got 1e-05 and 1e-06"),
        ({"max_learning_rate": math.inf}, "max_learning_rate must be a finite .* got inf"),
        ({"steps": 2.5}, "steps must be a whole number, at least 2, got 2.5"),
        ({"steps": 1}, "steps must be a whole number, at least 2, got 1"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
    ],
)
def test_bad_arguments_of_the_range_test(wrong, message):
    with pytest.raises(ValueError, match=message):
        lr_range_test(**{"model": one_weight("sgd"), "x": X, "y": Y, **wrong})


def test_models_that_cannot_be_tested():
    loose = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="is not compiled: call"):
        lr_range_test(loose, X, Y)
    loose.compile("sgd", "mse")
    with pytest.raises(ValueError, match="has no weights yet: give it"):
        lr_range_test(loose, X, Y)
    with pytest.raises(ValueError, match="has a learning rate schedule: compile it with a number"):
        lr_range_test(one_weight(keras.optimizers.SGD(CYCLE)), X, Y)


# JAX.
