"""The networks that the chapters share, and the default recipes of 11.5 as data.

A `Recipe` says how to build and train a network of dense layers; `build` does what it says:

    model = build(DEFAULT_DNN, (100, 100, 100), learning_rate=0.1, steps=320)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import keras
from keras import layers

from trainwell._checks import check_number, check_whole
from trainwell.schedules import OneCycle

# From so many hidden layers on, a recipe takes a network for deep.
DEEP = 5
# The momentum of `momentum` and `nesterov`: the sources' value.
MOMENTUM = 0.9
# The share of the steps in which `warm-up, cosine` rises.
WARM_UP = 0.1
# How much of the old average a step keeps. With Keras's 0.99, a fifth of the first averages, which
# know nothing of the data, would be left after 160 steps.
BATCH_NORM_MOMENTUM = 0.9
# How tables write what Keras writes in other words.
IN_WORDS = {
    "he_normal": "He",
    "lecun_normal": "LeCun",
    "glorot_uniform": "Glorot",
    "elu": "ELU",
    "selu": "SELU",
    "relu": "ReLU",
    "silu": "Swish",
    "sgd": "SGD",
    "nesterov": "Nesterov",
    "adam": "Adam",
    "adamw": "AdamW",
}

Normalization = Literal["none", "batch norm", "batch norm if deep", "batch norm and skips if deep"]
IfNeeded = Literal["nothing", "l2", "weight decay", "alpha dropout"]
Optimizer = Literal["sgd", "momentum", "nesterov", "adam", "adamw"]
Schedule = Literal["constant", "1cycle", "warm-up, cosine"]
CHOICES = {
    "normalization": get_args(Normalization),
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "if_needed": get_args(IfNeeded),
}


@dataclass(frozen=True)
class Recipe:
    """How to build and train a network of dense layers, when nothing says otherwise.

    Attributes:
        name: What tables call it.
        kernel_initializer: The hidden layers' initializer, by Keras's name.
        activation: The hidden layers' activation, by Keras's name.
        normalization: What stands between a hidden layer's sums and its activation. With `skips`,
            a layer's input is added to its output where both are equally wide.
        optimizer: `sgd` has no momentum; `momentum` and `nesterov` have one of 0.9.
        schedule: How the learning rate moves.
        early_stopping: Whether to stop when the validation loss no longer falls, and to go back
            to its lowest point. That is a callback; it is for whoever trains to use it.
        if_needed: How to regularize besides, should the network overfit.
        strength: How strongly: the factor of the l2 penalty, the optimizer's weight decay, or the
            rate of alpha dropout; 0 for not at all.
        deep_activation: The activation of a deep network where it is another one, or None.
        alternatives: What the recipe's authors would take as well, in words, by row of the table.

    Raises:
        ValueError: If a field is none of its choices, or `strength` can't be.
    """

    name: str
    kernel_initializer: str
    activation: str
    normalization: Normalization
    optimizer: Optimizer
    schedule: Schedule
    early_stopping: bool = True
    if_needed: IfNeeded = "nothing"
    strength: float = 0.0
    deep_activation: str | None = None
    alternatives: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what would silently be taken for something else."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength must be at least 0 and finite, got {self.strength}.")
        if self.if_needed == "alpha dropout" and self.strength >= 1:
            raise ValueError(
                f"alpha dropout takes a strength from 0 to less than 1, got {self.strength}."
            )

    def table(self) -> dict[str, str]:
        """Return the recipe in words: the rows of the table that a book prints."""
        activation = _in_words(self.activation)
        if self.deep_activation:
            activation += f" if shallow, {_in_words(self.deep_activation)} if deep"
        regularization = ["early stopping"] if self.early_stopping else []
        if self.strength:
            regularization.append(f"{self.if_needed} of {self.strength:g}")
        elif self.if_needed != "nothing":
            regularization.append(f"{self.if_needed} if needed")
        rows = {
            "kernel initializer": _in_words(self.kernel_initializer),
            "activation": activation,
            "normalization": self.normalization,
            "regularization": ", ".join(regularization) or "none",
            "optimizer": _in_words(self.optimizer),
            "learning rate": self.schedule,
        }
        also = {row: f" (or {words})" for row, words in self.alternatives.items()}
        return {row: words + also.get(row, "") for row, words in rows.items()}

    def network(
        self,
        units: Sequence[int],
        *,
        inputs: Sequence[int] = (28, 28),
        outputs: int = 10,
        output_activation: str | None = "softmax",
    ) -> Any:
        """Build the network, not compiled. The arguments are those of `mlp`.

        Raises:
            ValueError: If a layer has less than one unit, or `units` or `inputs` is no sequence.
        """
        _check_sizes(units, inputs, outputs)
        rate = self.strength if self.if_needed == "alpha dropout" else 0.0
        deep = len(units) >= DEEP
        activation = (self.deep_activation if deep else None) or self.activation
        batch_norm = self.normalization == "batch norm" or (deep and self.normalization != "none")
        skips = deep and "skips" in self.normalization
        price = keras.regularizers.L2(self.strength) if self._has("l2") else None

        start = x = keras.Input(shape=tuple(inputs))
        if len(inputs) > 1:
            x = layers.Flatten()(x)
        for number, count in enumerate(units):
            into = x
            if rate and number:
                x = layers.AlphaDropout(rate)(x)
            x = layers.Dense(
                count,
                use_bias=not batch_norm,  # batch norm has a bias of its own
                kernel_initializer=self.kernel_initializer,
                kernel_regularizer=price,
            )(x)
            if batch_norm:
                x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)
            x = layers.Activation(activation)(x)
            if skips and number and into.shape == x.shape:
                x = layers.Add()([into, x])
        if rate:
            x = layers.AlphaDropout(rate)(x)
        x = layers.Dense(outputs, activation=output_activation, kernel_regularizer=price)(x)
        return keras.Model(start, x)

    def learning_rate(self, peak: float, steps: int) -> Any:
        """Return what an optimizer takes as `learning_rate`: a number, or a Keras schedule.

        Args:
            peak: The highest rate.
            steps: The number of steps (batches) of the whole training.

        Raises:
            ValueError: If `peak` is not positive, or `steps` too few for the schedule.
        """
        if not peak > 0:
            raise ValueError(f"peak must be more than 0, got {peak}.")
        if self.schedule == "constant":
            return peak
        if self.schedule == "1cycle":
            return OneCycle(peak, steps)
        rising = max(1, round(WARM_UP * steps))
        if steps <= rising:
            raise ValueError(f"steps must be at least 2, got {steps}.")
        return keras.optimizers.schedules.CosineDecay(
            0.0, steps - rising, warmup_target=peak, warmup_steps=rising
        )

    def make_optimizer(self, learning_rate: Any) -> keras.optimizers.Optimizer:
        """Return the optimizer, with a number or a Keras schedule as its learning rate.

        Weight decay is for kernels: biases and batch norm's scales and shifts are left out.
        """
        decay = self.strength if self._has("weight decay") else None
        if self.optimizer == "adam":
            optimizer = keras.optimizers.Adam(learning_rate, weight_decay=decay)
        elif self.optimizer == "adamw":
            optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=decay or 0.0)
        else:
            optimizer = keras.optimizers.SGD(
                learning_rate,
                momentum=0.0 if self.optimizer == "sgd" else MOMENTUM,
                nesterov=self.optimizer == "nesterov",
                weight_decay=decay,
            )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer

    def _has(self, kind: IfNeeded) -> bool:
        return self.if_needed == kind and self.strength > 0


# Hands-On Machine Learning, 2nd edition (2019), the tables of 11.5; this is what the sources teach.
DEFAULT_DNN = Recipe(
    name="default",
    kernel_initializer="he_normal",
    activation="elu",
    normalization="batch norm if deep",
    optimizer="momentum",
    schedule="1cycle",
    if_needed="l2",
    alternatives={"optimizer": "RMSProp or Nadam"},
)
SELF_NORMALIZING_DNN = Recipe(
    name="self-normalizing",
    kernel_initializer="lecun_normal",
    activation="selu",
    normalization="none",
    optimizer="momentum",
    schedule="1cycle",
    early_stopping=False,
    if_needed="alpha dropout",
    alternatives={"optimizer": "RMSProp or Nadam"},
)
# The same book's 3rd edition (2022), tables 11-3 and 11-4.
THIRD_EDITION_DNN = Recipe(
    name="third edition",
    kernel_initializer="he_normal",
    activation="relu",
    deep_activation="silu",
    normalization="batch norm if deep",
    optimizer="nesterov",
    schedule="1cycle",
    if_needed="weight decay",
    alternatives={"optimizer": "AdamW", "learning rate": "performance scheduling"},
)
THIRD_EDITION_SELF_NORMALIZING_DNN = Recipe(
    name="third edition, self-normalizing",
    kernel_initializer="lecun_normal",
    activation="selu",
    normalization="none",
    optimizer="nesterov",
    schedule="1cycle",
    early_stopping=False,
    if_needed="alpha dropout",
    alternatives={"learning rate": "performance scheduling"},
)
# The course's own.
RECIPE_2026 = Recipe(
    name="ours, 2026",
    kernel_initializer="he_normal",
    activation="silu",
    normalization="batch norm and skips if deep",
    optimizer="adamw",
    schedule="warm-up, cosine",
    early_stopping=False,
    if_needed="weight decay",
    strength=0.1,
)


def build(
    recipe: Recipe,
    units: Sequence[int] = (100, 100, 100),
    *,
    learning_rate: float,
    steps: int,
    inputs: Sequence[int] = (28, 28),
    outputs: int = 10,
    output_activation: str | None = "softmax",
    loss: Any = "sparse_categorical_crossentropy",
    metrics: Sequence[Any] = (),
) -> Any:
    """Build the network that a recipe describes, and compile it.

    Args:
        recipe: What to build.
        units: The number of units of each hidden layer; `DEEP` layers or more are a deep network.
        learning_rate: The highest learning rate: the one row that you tune yourself.
        steps: The number of steps (batches) of the whole training, for the schedule.
        inputs: The shape of one example. Images are flattened.
        outputs: The number of units of the output layer.
        output_activation: `softmax` for classes, None for a number.
        loss: What `model.compile` takes.
        metrics: What `model.compile` takes.

    Returns:
        A compiled Keras model. Standardise what you feed it, and mind `recipe.early_stopping`.

    Raises:
        ValueError: If an argument can't be.
    """
    model = recipe.network(
        units, inputs=inputs, outputs=outputs, output_activation=output_activation
    )
    optimizer = recipe.make_optimizer(recipe.learning_rate(learning_rate, steps))
    model.compile(optimizer, loss=loss, metrics=list(metrics))
    return model


def mlp(
    units: Sequence[int] = (300, 100),
    *,
    inputs: Sequence[int] = (28, 28),
    outputs: int = 10,
    activation: str = "relu",
    output_activation: str | None = "softmax",
    kernel_initializer: str = "he_normal",
    dropout: float = 0.0,
    dropout_on_inputs: bool = True,
    alpha: bool = False,
) -> Any:
    """Build a multilayer perceptron; by default the course's classifier of Fashion-MNIST images.

    Args:
        units: The number of units of each hidden layer, first to last.
        inputs: The shape of one example. Images are flattened.
        outputs: The number of units of the output layer: one a class, or 1.
        activation: The hidden layers' activation.
        output_activation: `softmax` for classes, `sigmoid` for two, None for a number.
        kernel_initializer: The hidden layers' initializer. The output layer has Keras's own
            default, `glorot_uniform`.
        dropout: The rate of the dropout before every dense layer; 0 for none.
        dropout_on_inputs: Whether there is dropout before the first layer too (Srivastava et al.,
            JMLR 15, 2014, appendix A.4), or only between layers.
        alpha: Whether that is alpha dropout, for `activation="selu"` and `"lecun_normal"`
            (Klambauer et al., arXiv:1706.02515).

    Returns:
        A `keras.Sequential`, not compiled: `(n, *inputs)` in, `(n, outputs)` out. After
        `keras.utils.set_random_seed`, the initial weights are the same whatever the dropout.

    Raises:
        ValueError: If `dropout` is not in [0, 1), a layer has less than one unit, or `units` or
            `inputs` is no sequence.
    """
    check_number("dropout", dropout)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}.")
    _check_sizes(units, inputs, outputs)
    # A layer draws its seed when it is made: make the dense layers first, so that their initial
    # weights do not depend on how many dropout layers stand between them.
    dense = [
        layers.Dense(count, activation=activation, kernel_initializer=kernel_initializer)
        for count in units
    ]
    dense.append(layers.Dense(outputs, activation=output_activation))
    kind = layers.AlphaDropout if alpha else layers.Dropout
    stack: list[Any] = [keras.Input(shape=tuple(inputs))]
    if len(inputs) > 1:
        stack.append(layers.Flatten())
    for number, layer in enumerate(dense):
        if dropout and (number or dropout_on_inputs):
            stack.append(kind(dropout))
        stack.append(layer)
    # All at once: a Sequential to which layers are added builds itself anew for each.
    return keras.Sequential(stack)


def _in_words(name: str) -> str:
    return IN_WORDS.get(name, name)


def _check_sizes(units: Sequence[int], inputs: Sequence[int], outputs: int) -> None:
    for name, sizes in [("units", units), ("inputs", inputs)]:
        if not isinstance(sizes, Iterable):
            raise ValueError(f"{name} must be a sequence, such as ({sizes!r},), got {sizes!r}.")
    if any(count < 1 for count in units):
        raise ValueError(f"units must be 1 or more in every layer, got {tuple(units)}.")
    check_whole("outputs", outputs, 1)
