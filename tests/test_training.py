"""`fit` against its oracle, plain `model.fit`: the same weights, the same history, only faster."""

import inspect
import os
import pickle

import keras
import numpy as np
import pandas as pd
import pytest
from new_process import in_a_new_process

from trainwell import training
from trainwell.models import mlp
from trainwell.runtime import shuffled_blocks
from trainwell.training import DivergedError, History, fit

EPOCHS = 3
BATCH = 32
# The last batch of an epoch has 11 examples: 17 full batches and a part of one.
ROWS = 17 * BATCH + 11

rng = np.random.default_rng(0)
X, Y = rng.random((ROWS, 6, 5), dtype=np.float32), rng.integers(3, size=ROWS)
X_VALID, Y_VALID = rng.random((70, 6, 5), dtype=np.float32), rng.integers(3, size=70)
VALID = (X_VALID, Y_VALID)

# Keras's losses, by the names that they have as metrics. As a metric, the similarity is to be high.
LOSSES = {f.__name__ for f in vars(keras.losses).values() if inspect.isfunction(f)}
LOSSES = sorted(LOSSES - {"get", "serialize", "deserialize", "cosine_similarity"})


def compiled(optimizer="adam", dropout=0.2, units=(16, 8)):
    """A small network with dropout, compiled; seeds everything that follows."""
    keras.utils.set_random_seed(5)
    model = mlp(units, inputs=(6, 5), outputs=3, dropout=dropout)
    # With TensorFlow on a GPU, Keras would compile with XLA, where `fit` does not train in blocks.
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit
    )
    return model


def plain_fit(model, **options):
    options = {"epochs": EPOCHS, "batch_size": BATCH, "verbose": 0, **options}
    return model.fit(X, Y, **options).history


def values(frame, split, metric):
    return frame.query("split == @split and metric == @metric").sort_values("epoch")["value"]


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


class Recorder(keras.callbacks.Callback):
    """Note the logs of each epoch; acts on epochs only."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        assert self.params["steps"] == 18, "as in plain Keras: the batches of an epoch"
        self.logs.append(dict(logs))


@pytest.fixture
def blocks_of_fits(monkeypatch):
    """How many blocks each fit in blocks took an epoch, and whether it kept a copy of them."""
    counts = []

    def counted(*args, **options):
        blocks = shuffled_blocks(*args, **options)
        counts.append((sum(1 for _ in blocks), isinstance(blocks, list)))
        return blocks

    monkeypatch.setattr(training, "shuffled_blocks", counted)
    return counts


# All 18 batches of an epoch in one block; 7, 7 and the 4 that remain; 9 and 9; one by one.
@pytest.mark.parametrize(("batches_a_block", "blocks"), [(200, 1), (7, 3), (9, 2), (0, 18)])
@pytest.mark.parametrize("copied", [True, False])
def test_the_weights_and_the_history_of_plain_keras(
    batches_a_block, blocks, copied, monkeypatch, blocks_of_fits
):
    monkeypatch.setattr(training, "BLOCK_BYTES", batches_a_block * X[:BATCH].nbytes)
    monkeypatch.setattr(training, "COPY_BLOCKS", 100 if copied else 0)
    plain, recorder = compiled(), Recorder()
    before = plain_fit(plain, validation_data=VALID)
    fast = compiled()
    history = fit(
        fast, X, Y, epochs=EPOCHS, batch_size=BATCH, validation_data=VALID, callbacks=[recorder]
    )
    assert blocks_of_fits == [(blocks, copied)]
    assert_same_weights(plain, fast)
    assert plain.optimizer.iterations == fast.optimizer.iterations == 18 * EPOCHS
    assert len(history.frame) == 4 * EPOCHS
    for name, expected in before.items():
        split, metric = ("valid", name[4:]) if name.startswith("val_") else ("train", name)
        np.testing.assert_allclose(values(history.frame, split, metric), expected, rtol=1e-5)
        np.testing.assert_allclose([logs[name] for logs in recorder.logs], expected, rtol=1e-5)
    assert not np.allclose(*[model.get_weights()[0] for model in (fast, compiled())])


class LastTarget(keras.metrics.Metric):
    """The last target of an epoch: it tells one order of the examples from another."""

    def __init__(self):
        super().__init__(name="last")
        self.last = self.add_weight(shape=(), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.last.assign(y_true[-1, 0])

    def result(self):
        return self.last + 0.0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's")
@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("fast", [True, False])
def test_with_a_seed_one_order_in_all_epochs_else_a_new_one_in_each(seed, fast):
    """As the book says of its runs: a Keras that shuffles anew would make it untrue."""
    import tensorflow as tf

    x = np.arange(100_000.0, dtype=np.float32)[:, None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[LastTarget()])
    tf.random.set_seed(seed)
    if fast:
        fit(model, x, x, epochs=3, batch_size=10_000)
    else:
        model.fit(x, x, epochs=3, batch_size=10_000, verbose=0)
    last = model.history.history["last"]
    assert len(set(map(float, last))) == (3 if seed is None else 1)
    assert last[0] != x[-1]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X.reshape(ROWS, 30).astype(np.float64), Y.astype(np.int8)),
        (pd.DataFrame(X.reshape(ROWS, 30)), pd.Series(Y)),
        (keras.ops.convert_to_tensor(X.reshape(ROWS, 30)), keras.ops.convert_to_tensor(Y)),
    ],
    ids=["64 bits", "pandas", "tensors"],
)
def test_data_of_other_kinds(x, y):
    """Twice from one seed, for `fit` remembers the order of the first time."""
    models = []
    for how in ["plain", "fast", "fast"]:
        keras.utils.set_random_seed(5)
        model = mlp((16, 8), inputs=(30,), outputs=3)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        if how == "plain":
            model.fit(x, y, epochs=2, batch_size=BATCH, verbose=0)
        else:
            fit(model, x, y, epochs=2, batch_size=BATCH)
        models.append(model)
    plain, first, again = models
    assert_same_weights(plain, first)
    assert_same_weights(plain, again)


def test_the_history_is_tidy():
    history = fit(compiled(), X, Y, epochs=EPOCHS, validation_data=VALID)
    frame = history.frame
    assert list(frame.columns) == ["epoch", "split", "metric", "value"]
    assert not frame.duplicated(["epoch", "split", "metric"]).any()
    assert sorted(frame["epoch"].unique()) == [1, 2, 3]
    assert set(frame["split"]) == {"train", "valid"}
    assert set(frame["metric"]) == {"loss", "accuracy"}
    assert 0 < history.seconds < 60


def test_last_and_best():
    history = fit(compiled(), X, Y, epochs=5, validation_data=VALID)
    losses, accuracies = [values(history.frame, "valid", m) for m in ("loss", "accuracy")]
    assert history.last("loss") == losses.iloc[-1]
    assert history.last("loss", split="train") == values(history.frame, "train", "loss").iloc[-1]
    assert history.best("loss") == losses.min() < losses.max()
    assert history.best("accuracy") == accuracies.max() > accuracies.min()
    with pytest.raises(KeyError, match=r"no metric 'mae' of the split 'valid'; there are .*'loss'"):
        history.best("mae")


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        *[(name, 1.0) for name in LOSSES],
        *[(name, 1.0) for name in ("mape", "bce", "false_positives", "false_negatives_1")],
        *[(name, 2.0) for name in ("auc", "accuracy", "dice_coefficient", "cosine_similarity")],
    ],
)
def test_the_best_of_a_loss_is_the_lowest(metric: str, best: float) -> None:
    rows = [(epoch, "valid", metric, 3.0 - epoch) for epoch in (1, 2)]
    frame = pd.DataFrame(rows, columns=["epoch", "split", "metric", "value"])
    assert History(frame, 1.0).best(metric) == best


def test_a_split_that_would_be_mixed_with_the_logged_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="a split 'train', which is the name of"):
        fit(compiled(), X, Y, epochs=1, validation_data={"train": (X, Y)})


@pytest.mark.parametrize("at_once", [10**9, 0], ids=["as one batch", "in batches"])
def test_named_splits_are_evaluated_with_dropout_off(at_once, monkeypatch):
    monkeypatch.setattr(training, "EVALUATE_AT_ONCE", at_once)
    monkeypatch.setattr(training, "EVALUATION_BATCH", 50)
    splits = {"valid": VALID, "train, dropout off": (X, Y)}
    model = compiled(dropout=0.5)
    history = fit(model, X, Y, epochs=2, validation_data=splits)
    assert list(history.frame["split"].unique()) == ["train", *splits]
    for name, (x, y) in splits.items():
        expected = model.evaluate(x, y, verbose=0, return_dict=True)
        assert {m: history.last(m, name) for m in expected} == pytest.approx(expected, rel=1e-5)
    off = history.last("loss", "train, dropout off")
    assert off < history.last("loss", "train") - 0.01, "dropout must raise the logged loss"


def test_the_model_is_left_as_it_was_found():
    plain, fast = compiled(), compiled()
    for model, train in [(plain, plain_fit), (fast, lambda m: fit(m, X, Y, epochs=EPOCHS))]:
        keras.utils.set_random_seed(1)
        train(model)
    assert fast.train_step.__func__ is keras.Model.train_step
    batches = []
    for model in (plain, fast):
        keras.utils.set_random_seed(2)
        count = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: batches.append(batch)
        )
        # Batches of another size: a step that still divided them into `fit`'s would show.
        plain_fit(model, batch_size=64, callbacks=[count])
    assert batches == list(range(9)) * EPOCHS * 2
    assert_same_weights(plain, fast)
    assert fast.evaluate(X, Y, verbose=0) == pytest.approx(plain.evaluate(X, Y, verbose=0))
    np.testing.assert_allclose(fast.predict(X, verbose=0), plain.predict(X, verbose=0), atol=1e-6)


def test_several_steps_at_a_time_miss_no_block(monkeypatch):
    monkeypatch.setattr(training, "BLOCK_BYTES", 2 * X[:BATCH].nbytes)
    plain, fast = [compiled(), compiled()]
    for model, train in [(plain, plain_fit), (fast, lambda m: fit(m, X, Y, epochs=EPOCHS))]:
        model.compile("adam", model.loss, jit_compile=False, steps_per_execution=4)
        keras.utils.set_random_seed(1)
        train(model)
    assert plain.optimizer.iterations == fast.optimizer.iterations == 18 * EPOCHS
    assert_same_weights(plain, fast)
    assert fast.steps_per_execution == 4


class CountsCalls(keras.layers.Layer):
    """A layer that runs Python in every step, if the model runs eagerly."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


def test_a_model_that_runs_eagerly_does_so():
    model = keras.Sequential([keras.layers.Flatten(), CountsCalls(), keras.layers.Dense(3)])
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, X, np.eye(3)[Y], epochs=EPOCHS, batch_size=BATCH)
    assert model.layers[1].calls >= 18 * EPOCHS


def test_validation_begins_with_fresh_metrics():
    """In Keras 3.13, which Colab has, `test_on_batch` goes on from the training's."""

    def test_on_batch(x, y, return_dict):
        model.make_test_function()
        return model.test_function(iter([(x, y)]))

    model = compiled()
    model.compile("sgd", model.loss, metrics=["accuracy"], run_eagerly=True)
    model.test_on_batch = test_on_batch
    history = fit(model, X, Y, epochs=1, validation_data=VALID)
    loss, accuracy = model.evaluate(*VALID, verbose=0)
    assert history.last("loss") == pytest.approx(loss, rel=1e-5)
    assert history.last("accuracy") == pytest.approx(accuracy)


def test_a_model_that_has_been_used_trains_and_evaluates_on_all_the_data():
    def used():
        model = compiled()
        model.fit(X, Y, verbose=0)
        model.evaluate(X_VALID, Y_VALID, batch_size=10, verbose=0)
        model.predict(X_VALID, verbose=0)
        keras.utils.set_random_seed(6)
        return model

    plain, fast = used(), used()
    expected = plain_fit(plain, validation_data=VALID)
    keras.utils.set_random_seed(6)
    history = fit(fast, X, Y, epochs=EPOCHS, batch_size=BATCH, validation_data=VALID)
    assert_same_weights(plain, fast)
    np.testing.assert_allclose(
        values(history.frame, "valid", "loss"), expected["val_loss"], rtol=1e-5
    )


class EveryBatch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)


class EveryBatchByItsOldName(EveryBatch):
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end

    def on_batch_end(self, batch, logs=None):
        self.batches.append(batch)


def lambda_callback():
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: callback.batches.append(batch)
    )
    callback.batches = []
    return callback


@pytest.mark.parametrize("make", [EveryBatch, EveryBatchByItsOldName, lambda_callback])
def test_a_callback_that_acts_on_batches_sees_every_batch(make):
    callback = make()
    fit(compiled(), X, Y, epochs=2, batch_size=BATCH, callbacks=[callback])
    assert callback.batches == list(range(18)) * 2


# Keras 3.15 reads the learning rate in a way that NumPy 2 has deprecated.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning:keras")
def test_callbacks_on_epochs_keep_the_speed_and_act_as_ever(blocks_of_fits):
    lowest_loss = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=10.0)
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    recorder, model = Recorder(), compiled(keras.optimizers.SGD(0.4))
    history = fit(
        model,
        X,
        Y,
        epochs=9,
        batch_size=BATCH,
        validation_data=VALID,
        callbacks=[lowest_loss, halve, recorder],
    )
    assert blocks_of_fits == [(1, True)]
    assert history.frame["epoch"].max() == 2, "no epoch improves by 10, so the second is the last"
    assert values(history.frame, "train", "learning_rate").to_list() == pytest.approx([0.2, 0.1])


def test_an_average_of_the_weights_takes_their_place_in_the_end(blocks_of_fits):
    averaging = [keras.optimizers.SGD(0.4, use_ema=True) for _ in range(2)]
    plain, fast = map(compiled, averaging)
    keras.utils.set_random_seed(1)
    plain_fit(plain)
    keras.utils.set_random_seed(1)
    fit(fast, X, Y, epochs=EPOCHS, batch_size=BATCH)
    assert blocks_of_fits == [(1, True)]
    assert_same_weights(plain, fast)


@pytest.mark.filterwarnings("ignore:Limiting ")  # Keras says so
@pytest.mark.parametrize("limit", ["epochs", "steps_per_epoch"])
def test_a_limit_of_keras_for_trying_things_out_holds_here_too(limit):
    set_limit = getattr(keras.config, f"set_max_{limit}")
    try:
        set_limit(2)
        plain = compiled()
        expected = plain_fit(plain)
        fast = compiled()
        history = fit(fast, X, Y, epochs=EPOCHS, batch_size=BATCH)
    finally:
        set_limit(None)
    assert values(history.frame, "train", "loss").tolist() == expected["loss"]
    assert_same_weights(plain, fast)


def test_one_callback_alone_and_none_as_keras_takes_them():
    recorder = Recorder()
    fit(compiled(), X, Y, epochs=1, callbacks=recorder)
    assert len(recorder.logs) == 1
    fit(compiled(), X, Y, epochs=1, callbacks=None)


class TwoSteps(keras.Sequential):
    """A model with a training step of its own: two steps on every batch."""

    def train_step(self, data):
        super().train_step(data)
        return super().train_step(data)


def test_a_model_with_its_own_training_step_keeps_it():
    keras.utils.set_random_seed(0)
    model = TwoSteps([keras.Input((6, 5)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    fit(model, X, keras.utils.to_categorical(Y), epochs=2, batch_size=BATCH)
    assert model.optimizer.iterations == 2 * 2 * 18


class NoLoss(keras.Sequential):
    """A model that logs losses of other names, as a generative adversarial network does."""

    def train_step(self, data):
        return {"d_loss": super().train_step(data)["loss"]}


def test_a_model_may_log_no_loss():
    model = NoLoss([keras.Input((6, 5)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    history = fit(model, X, keras.utils.to_categorical(Y), epochs=2, batch_size=BATCH)
    assert history.frame["metric"].to_list() == ["d_loss", "d_loss"]


def test_a_model_that_is_built_by_its_first_batch():
    def unbuilt():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    plain, fast = unbuilt(), unbuilt()
    plain_fit(plain)
    fit(fast, X, Y, epochs=EPOCHS, batch_size=BATCH)
    assert_same_weights(plain, fast)


@pytest.mark.parametrize("in_blocks", [True, False])
def test_a_loss_that_is_not_finite_ends_the_training_with_an_error(in_blocks):
    epochs_begun = []
    callback = keras.callbacks.LambdaCallback(lambda epoch, logs: epochs_begun.append(epoch))
    if not in_blocks:  # then Keras's own loop trains
        callback.on_batch_end = lambda batch, logs: None
    model = compiled(keras.optimizers.SGD(1e30))
    message = r"loss became (nan|inf) in epoch 1 of 3\. Lower the learning rate, which is 1e\+30,"
    with pytest.raises(DivergedError, match=message) as raised:
        fit(model, X, Y, epochs=3, validation_data=VALID, callbacks=callback)
    assert epochs_begun == [0]
    history = raised.value.history
    assert not np.isfinite(history.last("loss", "train"))
    assert history.last("accuracy") == model.evaluate(*VALID, verbose=0)[1]
    assert isinstance(pickle.loads(pickle.dumps(raised.value)).history, History)


@pytest.mark.parametrize("number", [np.nan, -np.inf])
@pytest.mark.parametrize("name", ["x and y", "valid"])
@pytest.mark.parametrize("in_x", [True, False])
def test_data_that_are_not_finite_are_refused(number, name, in_x):
    # Fused with Dense, TensorFlow's ReLU makes a 0 of nan: the loss alone would not tell.
    x, y = X.copy(), Y.astype(np.float32)
    (x if in_x else y)[[17, 40]] = number
    data = {"x and y": (X, Y), "valid": VALID, name: (x, y)}
    message = rf"{name} must be finite, got {number} in row 17; .* in 2 of {ROWS} rows"
    with pytest.raises(ValueError, match=message):
        fit(compiled(), *data["x and y"], epochs=1, validation_data=data["valid"])


def test_the_error_names_the_rate_that_a_schedule_has_come_to():
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([18], [0.01, 1e30])
    with pytest.raises(DivergedError, match=r"epoch 2 of 3\. .* which is 1e\+30"):
        fit(compiled(keras.optimizers.SGD(rate)), X, Y, epochs=3)


def test_an_interrupted_model_is_usable():
    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        fit(
            model,
            X,
            Y,
            epochs=3,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=interrupt)],
        )
    assert model.optimizer.iterations == 18
    assert np.isfinite(fit(model, X, Y, epochs=1, validation_data=VALID).last("loss"))
    plain_fit(model)
    assert model.optimizer.iterations == (2 + EPOCHS) * 18


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"y": Y[:-1]}, f"x and y must have equally many rows, got {ROWS} and {ROWS - 1}"),
        ({"x": X[:0], "y": Y[:0]}, "x and y must have at least one row, got none"),
        ({"x": [X, X]}, "must be arrays with .* got list of length 2.* model.fit takes"),
        ({"epochs": 0}, "epochs must be a whole number, at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"batch_size": None}, "batch_size must be a whole number, at least 1, got None"),
        ({"validation_data": (X, Y, Y)}, r"must be a pair \(x, y\).* got tuple of length 3"),
        ({"validation_data": X}, r"must be a pair \(x, y\).* got ndarray of length 555"),
        ({"validation_data": {"a": (X,)}}, r"must be a pair.* got tuple of length 1 for 'a'"),
        ({"validation_data": (X, Y[:5])}, "valid must have equally many rows, got 555 and 5"),
    ],
)
def test_bad_arguments(wrong, message):
    model = compiled()
    with pytest.raises(ValueError, match=message):
        fit(model, **{"x": X, "y": Y, "epochs": 1, **wrong})
    assert model.optimizer.iterations == 0


def test_a_model_that_is_not_compiled():
    with pytest.raises(ValueError, match=r"model '.+' is not compiled: call model.compile"):
        fit(mlp(), X, Y, epochs=1)


@pytest.mark.parametrize("shown", ["0", "1"])
def test_progress(shown, monkeypatch, capfd):
    monkeypatch.setenv("TRAINWELL_PROGRESS", shown)
    fit(compiled(), X, Y, epochs=2, validation_data=VALID)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("2/2" in err and "epoch" in err and "val_loss=" in err) == (shown == "1")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's CPU affinity")
def test_one_thread_on_a_small_machine_unless_the_reader_says_otherwise():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "os.environ.pop('TF_NUM_INTRAOP_THREADS', None); "
        "os.environ.update({kept}); import trainwell.runtime; "
        "print(trainwell.runtime.cores(), os.environ['TF_NUM_INTRAOP_THREADS'])"
    )
    assert in_a_new_process(code.replace("{kept}", "{}")) == "1 1"
    assert in_a_new_process(code.replace("{kept}", "TF_NUM_INTRAOP_THREADS='3'")) == "1 3"


def test_tensorflow_rewrites_graphs_again_after_fit():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's")
    import tensorflow as tf

    def rewriting():
        return not tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer")

    seen = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(rewriting()))
    fit(compiled(), X, Y, epochs=1, callbacks=[note])
    assert seen == [False]
    assert rewriting()
