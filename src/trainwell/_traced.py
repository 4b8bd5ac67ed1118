"""One traced step for all models of the same make.

TensorFlow traces a step anew for every model, which takes longer than training a small network for
a few epochs. The models of a comparison mostly differ in nothing but their weights, their seeds
and their learning rate. Those are variables, and a traced step takes its variables as inputs: so
the variables of the next model go into the step that is there.
"""

import json
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import keras

from trainwell.runtime import traced

# So many traced steps stay, the last used. Each holds the variables of its first model.
KEPT = 50
_kept: OrderedDict[str, tuple[Any, list[int]]] = OrderedDict()
_lock = threading.Lock()
# The classes and functions from here are told apart by their settings. A reader's own may not be.
KNOWN = re.compile(r"(keras|trainwell)(\.|$)")
# What has a class in a configuration and is no object: where a layer's input comes from.
NO_OBJECT = {"__keras_tensor__"}


class Step:
    """A step of a compiled model on TensorFlow, traced once for all models of its make.

    Args:
        model: A compiled model. Its variables are there, its optimizer's and its metrics' too.
        name: What the step does: steps of the same name do the same with models of the same make.
        function: The step. Takes tensors with one example a row, and returns tensors.
        trains: Whether the step uses the optimizer. One that doesn't is the same with any.
    """

    def __init__(
        self, model: Any, name: str, function: Callable[..., Any], *, trains: bool
    ) -> None:
        self.model = model
        self.name = name
        self.function = function
        self.trains = trains
        self.traced: dict[str, tuple[Any, list[Any]]] = {}

    def __call__(self, *tensors: Any) -> Any:
        kinds = str([(tensor.shape[1:], tensor.dtype) for tensor in tensors])
        if kinds not in self.traced:
            self.traced[kinds] = self._trace(kinds, tensors)
        step, inputs = self.traced[kinds]
        with _lock:
            step.set_external_captures(inputs)  # another model may have used it meanwhile
            return step(*tensors)

    def _trace(self, kinds: str, tensors: tuple[Any, ...]) -> tuple[Any, list[Any]]:
        """Return the traced step, and what it takes besides its arguments: this model's variables.

        Where the make is unknown, or the step takes anything else, it is this model's alone.
        """
        make = make_of(self.model, self.trains)
        key = f"{self.name} {kinds} {make}"
        handles = [variable.handle for variable in _variables(self.model, self.trains)]
        if key in _kept:
            _kept.move_to_end(key)
            step, numbers = _kept[key]
            return step, [handles[number] for number in numbers]
        step = traced(self.function, *tensors)
        inputs = step.captured_inputs
        number_of = {id(handle): number for number, handle in enumerate(handles)}
        if make is not None and all(id(each) in number_of for each in inputs):
            _kept[key] = step, [number_of[id(each)] for each in inputs]
            if len(_kept) > KEPT:
                _kept.popitem(last=False)
        return step, inputs


def _variables(model: Any, trains: bool) -> list[Any]:
    of_optimizer = model.optimizer.variables if trains else []
    return [*model.variables, *model.metrics_variables, *of_optimizer]


def make_of(model: Any, trains: bool) -> str | None:
    """Return all that decides a compiled model's steps but the values of its variables.

    None if that can't be told: a layer, a loss or an optimizer of the reader's own may do what
    its settings don't say.
    """
    parts = [*model._flatten_layers(), *([model.optimizer] if trains else [])]
    # A reader's function may have the name of Keras's, or stand in the place of a method.
    found = [value for part in parts for value in vars(part).values() if callable(value)]
    if not all(KNOWN.match(getattr(value, "__module__", None) or "") for value in found):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what can't be saved: it is not to be saved
            config = keras.saving.serialize_keras_object(model)
            # As it is now: it may have changed since it was compiled.
            config["compile_config"]["optimizer"] = _optimizer_of(model) if trains else None
    except (KeyError, NotImplementedError, TypeError, ValueError):
        return None
    if not _is_known(config):
        return None
    variables = [(str(v.shape), v.dtype, v.trainable) for v in _variables(model, trains)]
    keras_settings = [keras.config.epsilon(), keras.config.image_data_format()]
    make = json.dumps([config, variables, keras_settings])
    # Keras numbers the names it gives: `dense_7` in one model is `dense_12` in the next.
    for number, layer in enumerate(model._flatten_layers()):
        name = re.sub(r"_\d+$", "", layer.name)
        make = make.replace(f'"{layer.name}"', f'"{name}#{number}"')
    return make


def _optimizer_of(model: Any) -> dict[str, Any]:
    optimizer = keras.saving.serialize_keras_object(model.optimizer)
    del optimizer["config"]["name"]
    if not isinstance(optimizer["config"]["learning_rate"], dict):  # a number is a variable
        del optimizer["config"]["learning_rate"]
    decays = [model.optimizer._use_weight_decay(weight) for weight in model.trainable_variables]
    return {**optimizer, "decays": decays}


def _is_known(config: Any) -> bool:
    """Return whether every object in a configuration is of a class of Keras or of the package."""
    if isinstance(config, dict):
        known = KNOWN.match(config.get("module") or "") or config.get("class_name") in NO_OBJECT
        if "class_name" in config and not known:
            return False
        return all(map(_is_known, config.values()))
    return not isinstance(config, list | tuple) or all(map(_is_known, config))
