"""Training, schedules and Monte Carlo dropout on JAX: the tests that other files hold, once more.

All in one new process, for JAX and Keras take seconds to start.
"""

from pathlib import Path

import keras
import pytest
from new_process import in_a_new_process

from trainwell.layers import MCAlphaDropout, MCDropout

JAX = """
import keras
import numpy as np
import os
import pathlib
import tempfile
import test_schedules
import test_training
import test_uncertainty

assert keras.backend.backend() == "jax"

t = test_training
plain = t.compiled("sgd", units=(8,))
expected = t.plain_fit(plain, validation_data=t.VALID)
fast, recorder = t.compiled("sgd", units=(8,)), t.Recorder()
history = t.fit(fast, t.X, t.Y, epochs=t.EPOCHS, validation_data=t.VALID, callbacks=[recorder])
t.assert_same_weights(plain, fast)
losses = t.values(history.frame, "valid", "loss")
t.np.testing.assert_allclose(losses, expected["val_loss"], rtol=1e-5)
assert len(recorder.logs) == t.EPOCHS
assert not t.training._can_train_in_blocks(fast), "blocks bring JAX nothing"

t = test_schedules
t.test_a_compiled_step_uses_the_momentum_of_its_step(nesterov=True, steps_per_execution=1)
with tempfile.TemporaryDirectory() as folder:
    make = lambda: t.OneCycleSGD(t.OneCycle(0.1, 32), nesterov=True)
    t.test_a_saved_model_trains_on_where_it_stopped(make, pathlib.Path(folder))
t.test_power_decay_is_its_formula(0.5)
t.test_the_model_is_left_as_it_was_found(True)

t = test_uncertainty
t.test_batch_by_batch()
t.test_the_model_is_left_as_it_was_found(t.noisy)

saved = keras.models.load_model(os.environ["SAVED"])
assert not np.array_equal(saved(np.ones((400, 50))), saved(np.ones((400, 50)))), "it is always on"

print("same on", keras.backend.backend())
"""


def test_on_jax(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    path = tmp_path / "saved.keras"
    keras.Sequential([keras.Input((50,)), MCDropout(0.2), MCAlphaDropout(0.2)]).save(path)
    assert (
        in_a_new_process(JAX, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", SAVED=str(path))
        == "same on jax"
    )
