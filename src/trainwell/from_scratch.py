"""Eleven optimizers in NumPy: every rule in a few lines, in the notation of its paper.

    path = descend(Adam(learning_rate=0.1), ROSENBROCK.gradient, ROSENBROCK.start, steps=200)

Each takes the steps of Keras's optimizer of that name. Where Keras differs from the paper, the
docstring says how. In all of them `w` is the array of weights, of any shape, and `g` the gradient
of the loss with respect to it, of the same shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from trainwell._checks import check_whole

Array = npt.NDArray[np.float64]
# A state starts as one number, and has the shape of the weights from the first step on.
State = Array | float

# The polynomial of Muon's Newton-Schulz iteration, a x + b x^3 + c x^5 (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@dataclass
class Optimizer:
    """What the optimizers share: a learning rate, checked arguments and a method `step`.

    The arguments have Keras's names and, where nothing else is said, Keras's defaults. A class
    has those of the following that its rule needs.

    Args:
        learning_rate: The factor of every step, 0 or more.
        momentum: The share of the last step (Muon: of the sum of gradients) that is kept.
        rho: The share of the average of squared gradients that is kept.
        beta_1: The share of the average of gradients that is kept.
        beta_2: The share of the average of squared gradients that is kept (AdaMax: of the largest
            gradient; Lion: of the average of gradients, for the steps to come).
        epsilon: What keeps a divisor from being 0, 0 or more.
        weight_decay: The strength of the decay, 0 or more: a step takes the share
            learning_rate weight_decay of each weight.

    Raises:
        ValueError: If a momentum, `rho` or a beta is not in [0, 1), or another number is negative
            or not finite.
    """

    learning_rate: float = 0.001

    def __post_init__(self) -> None:
        """Check the arguments."""
        for argument in fields(self):
            if argument.init:
                _check(argument.name, getattr(self, argument.name))

    def step(self, w: Array, g: Array) -> Array:
        """Return the weights after one step from `w` with the gradient `g` at `w`."""
        raise NotImplementedError


@dataclass
class SGD(Optimizer):
    """Gradient descent: w <- w - learning_rate g. Stochastic when `g` comes from a batch.

    Robbins and Monro, Annals of Mathematical Statistics 22(3), 1951.
    """

    learning_rate: float = 0.01

    def step(self, w: Array, g: Array) -> Array:
        """w <- w - learning_rate g."""
        return w - self.learning_rate * g


@dataclass
class Momentum(Optimizer):
    """Momentum: the steps add up, and each fades by the factor `momentum` a step.

    With a constant gradient, a step grows to learning_rate g / (1 - momentum).
    Polyak, USSR Computational Mathematics and Mathematical Physics 4(5), 1964.
    It is Keras's `SGD(momentum=...)`, whose default is 0 and not the usual 0.9 of this class.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    v: State = field(default=0.0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """v <- momentum v - learning_rate g; w <- w + v."""
        self.v = self.momentum * self.v - self.learning_rate * g
        return w + self.v


@dataclass
class Nesterov(Optimizer):
    """Nesterov's accelerated gradient in Keras's form, `SGD(nesterov=True)`.

    Nesterov (Soviet Mathematics Doklady 27, 1983; in this notation Sutskever et al., ICML 2013)
    takes the gradient where the momentum leads, at w + momentum v: see `nesterov_look_ahead`.
    Keras stores that place as its weights (Bengio et al., arXiv:1212.0901), so that the gradient
    it gets is already the right one. Its weights are the paper's w + momentum v, not the paper's w.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    v: State = field(default=0.0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """v <- momentum v - learning_rate g; w <- w + momentum v - learning_rate g."""
        self.v = self.momentum * self.v - self.learning_rate * g
        return w + self.momentum * self.v - self.learning_rate * g


@dataclass
class AdaGrad(Optimizer):
    """AdaGrad: each weight's step is divided by the root of the sum of its squared gradients.

    Duchi, Hazan and Singer, JMLR 12, 2011. In the paper s starts at 0, so that the first step
    is `learning_rate` whatever the gradient: pass `initial_accumulator_value=0` for that. Keras's
    0.1 makes it shorter, the more so the smaller the gradient. The paper adds epsilon
    outside the root.

    Args:
        learning_rate: As in `Optimizer`, and so is `epsilon`.
        initial_accumulator_value: What the sum starts at, 0 or more.
    """

    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7
    s: State = field(init=False)

    def __post_init__(self) -> None:
        """Check the arguments, and start the sum."""
        super().__post_init__()
        self.s = self.initial_accumulator_value

    def step(self, w: Array, g: Array) -> Array:
        """s <- s + g^2; w <- w - learning_rate g / sqrt(s + epsilon)."""
        self.s = self.s + g**2
        return w - self.learning_rate * g / np.sqrt(self.s + self.epsilon)


@dataclass
class RMSProp(Optimizer):
    """RMSProp: AdaGrad with a moving average in place of the sum, so that it does not stall.

    Tieleman and Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012, which has no
    epsilon. Keras (`RMSprop`) adds it inside the root: 1e-7 there acts on gradients up to
    sqrt(1e-7), 3e-4. Others add it outside.
    """

    rho: float = 0.9
    epsilon: float = 1e-7
    s: State = field(default=0.0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """s <- rho s + (1 - rho) g^2; w <- w - learning_rate g / sqrt(s + epsilon)."""
        self.s = self.rho * self.s + (1 - self.rho) * g**2
        return w - self.learning_rate * g / np.sqrt(self.s + self.epsilon)


@dataclass
class Adam(Optimizer):
    """Adam: moving averages of the gradient and of its square, corrected for their start at 0.

    Kingma and Ba, arXiv:1412.6980. Keras adds epsilon to sqrt(v), before the correction, and so
    divides by sqrt(v_hat) + epsilon / sqrt(1 - beta_2^t): the paper's 'epsilon hat'. The paper's
    Algorithm 1 adds it to sqrt(v_hat). Its epsilon is 1e-8.

    Args:
        learning_rate: As in `Optimizer`, and so are `beta_1`, `beta_2` and `epsilon`.
        epsilon_hat: Whether epsilon stands where Keras has it; False for Algorithm 1.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    epsilon_hat: bool = True
    m: State = field(default=0.0, init=False)
    v: State = field(default=0.0, init=False)
    t: int = field(default=0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """w <- w - learning_rate m_hat / (sqrt(v_hat) + epsilon)."""
        self.t += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * g
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * g**2
        m_hat = self.m / (1 - self.beta_1**self.t)
        v_hat = self.v / (1 - self.beta_2**self.t)
        # Keras's epsilon stands beside sqrt(v), and is corrected together with it.
        correction = math.sqrt(1 - self.beta_2**self.t) if self.epsilon_hat else 1
        return w - self.learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon / correction)


@dataclass
class AdaMax(Optimizer):
    """AdaMax: Adam with a fading maximum of `|g|` in place of the root mean square.

    Kingma and Ba, arXiv:1412.6980, section 7.1, which has no epsilon, and a learning rate of 0.002.
    Keras writes it `Adamax`.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    m: State = field(default=0.0, init=False)
    u: State = field(default=0.0, init=False)
    t: int = field(default=0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """w <- w - learning_rate m_hat / (u + epsilon), where `u <- max(beta_2 u, |g|)`."""
        self.t += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * g
        self.u = np.maximum(self.beta_2 * self.u, np.abs(g))
        m_hat = self.m / (1 - self.beta_1**self.t)
        return w - self.learning_rate * m_hat / (self.u + self.epsilon)


@dataclass
class Nadam(Optimizer):
    """Nadam: Adam with Nesterov's momentum, and a momentum mu_t that warms up.

    Dozat, ICLR workshop, 2016. There mu_t = beta_1 (1 - 0.96^(t / 250) / 2); Keras leaves out the
    250, and its mu_t is near beta_1 after 100 steps. The paper's m fades by mu_t too, Keras's by
    beta_1. Keras adds epsilon after the correction here, unlike in its Adam.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    m: State = field(default=0.0, init=False)
    v: State = field(default=0.0, init=False)
    mu_product: float = field(default=1.0, init=False)
    t: int = field(default=0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """w <- w - learning_rate m_hat / (sqrt(v_hat) + epsilon), where m_hat looks ahead."""
        self.t += 1
        mu = self.beta_1 * (1 - 0.5 * 0.96**self.t)
        mu_next = self.beta_1 * (1 - 0.5 * 0.96 ** (self.t + 1))
        self.mu_product *= mu
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * g
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * g**2
        past = mu_next * self.m / (1 - self.mu_product * mu_next)
        present = (1 - mu) * g / (1 - self.mu_product)
        v_hat = self.v / (1 - self.beta_2**self.t)
        return w - self.learning_rate * (past + present) / (np.sqrt(v_hat) + self.epsilon)


@dataclass
class AdamW(Adam):
    """AdamW: Adam, and beside it the weights shrink by learning_rate weight_decay w.

    Loshchilov and Hutter, arXiv:1711.05101. The decay does not pass through m and v, as the
    gradient of an l2 penalty would. In the paper it is multiplied by the schedule only, here by
    the learning rate too.
    """

    weight_decay: float = 0.004

    def step(self, w: Array, g: Array) -> Array:
        """w <- w - learning_rate weight_decay w, then Adam's step."""
        return super().step(w - self.learning_rate * self.weight_decay * w, g)


@dataclass
class Lion(Optimizer):
    """Lion: every weight moves by exactly `learning_rate`; only the sign is learned.

    Chen et al., arXiv:2302.06675. The paper advises a learning rate 3 to 10 times smaller than
    AdamW's, and a weight decay as many times larger.
    """

    beta_1: float = 0.9
    beta_2: float = 0.99
    weight_decay: float = 0.0
    m: State = field(default=0.0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """w <- w - learning_rate (sign(beta_1 m + (1 - beta_1) g) + weight_decay w)."""
        c = self.beta_1 * self.m + (1 - self.beta_1) * g
        self.m = self.beta_2 * self.m + (1 - self.beta_2) * g
        return w - self.learning_rate * (np.sign(c) + self.weight_decay * w)


@dataclass
class Muon(Optimizer):
    """Muon: the momentum of a weight matrix, made nearly orthogonal, is the step.

    Jordan et al., 'Muon: An optimizer for hidden layers in neural networks', 2024, with the
    weight decay and the scale of Liu et al., arXiv:2502.16982, as in Keras: a step's entries have
    a root mean square of about `rms_rate`, as Adam's have, whatever the matrix's shape. It is for
    hidden layers; Keras's class updates everything that is not a matrix by AdamW, whose decay is an
    argument of its own, `adam_weight_decay`, also 0.004.

    Args:
        learning_rate: As in `Optimizer`, and so are `momentum` and `weight_decay`.
        rms_rate: The root mean square that the entries of a step have at a learning rate of 1.
        ns_steps: How many steps of `newton_schulz` a step takes.
    """

    momentum: float = 0.95
    weight_decay: float = 0.004
    rms_rate: float = 0.2
    ns_steps: int = 5
    v: State = field(default=0.0, init=False)

    def step(self, w: Array, g: Array) -> Array:
        """w <- w - learning_rate (rms_rate sqrt(max(w.shape)) O + weight_decay w).

        O is the nearly orthogonal form of g + momentum v, Nesterov's momentum.

        Raises:
            ValueError: If `w` is not a matrix.
        """
        if np.ndim(w) != 2:
            raise ValueError(f"w must be a matrix, got the shape {np.shape(w)}. Use AdamW for it.")
        self.v = self.momentum * self.v + g
        orthogonal = newton_schulz(g + self.momentum * self.v, self.ns_steps)
        scale = self.rms_rate * math.sqrt(max(w.shape))
        return w - self.learning_rate * (scale * orthogonal + self.weight_decay * w)


def newton_schulz(matrix: Array, steps: int = 5) -> Array:
    """Return a matrix with the singular vectors of `matrix`, and singular values near 1.

    X <- a X + (b A + c A^2) X, where A = X X^T, maps each singular value s to a s + b s^3 + c s^5.
    Muon's a, b and c make small ones grow fast, and do not converge: after 5 steps, those above a
    twentieth of the matrix's norm lie between 0.68 and 1.14. It takes products of matrices only.

    Args:
        matrix: Of shape (n, k).
        steps: How often the polynomial is applied; with 0, `matrix` is divided by its norm.

    Returns:
        The nearly orthogonal matrix, of shape (n, k).

    Raises:
        ValueError: If `matrix` has another number of axes than two, or `steps` can't be.
    """
    if np.ndim(matrix) != 2:
        raise ValueError(f"matrix must have two axes, got the shape {np.shape(matrix)}.")
    check_whole("steps", steps, 0)
    a, b, c = NEWTON_SCHULZ
    x = matrix / (np.linalg.norm(matrix) + 1e-7)  # now no singular value is above 1
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def descend(
    optimizer: Optimizer, gradient: Callable[[Array], Array], start: npt.ArrayLike, steps: int
) -> Array:
    """Return the points that an optimizer visits on its way down.

    Args:
        optimizer: It starts afresh, whatever steps it has taken before, and is left as it was.
        gradient: Takes a point, returns the gradient there.
        start: The first point, of any shape; (2,) on a surface.
        steps: The number of steps.

    Returns:
        The points, shape `(steps + 1, *start.shape)`. A descent that diverges ends in inf or nan.

    Raises:
        ValueError: If `steps` is less than 1, or the gradient has another shape than its point.
    """
    fresh = replace(optimizer)
    points = _first_point(start, steps)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            points.append(fresh.step(points[-1], _gradient_at(points[-1], gradient)))
    return np.stack(points)


def nesterov_look_ahead(
    gradient: Callable[[Array], Array],
    start: npt.ArrayLike,
    steps: int,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
) -> tuple[Array, Array]:
    """Return the points of Nesterov's method as its paper has it, and where it looked ahead.

    v <- momentum v - learning_rate g(w + momentum v); w <- w + v, in the notation of Sutskever et
    al., ICML 2013. `Nesterov` visits the points w + momentum v.

    Returns:
        The points w and the points w + momentum v, each of shape `(steps + 1, *start.shape)`.

    Raises:
        ValueError: As for `descend` and `Nesterov`.
    """
    _check("learning_rate", learning_rate)
    _check("momentum", momentum)
    points = _first_point(start, steps)
    ahead = list(points)
    v: State = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            v = momentum * v - learning_rate * _gradient_at(ahead[-1], gradient)
            points.append(points[-1] + v)
            ahead.append(points[-1] + momentum * v)
    return np.stack(points), np.stack(ahead)


def _first_point(start: npt.ArrayLike, steps: int) -> list[Array]:
    check_whole("steps", steps, 1)
    return [np.array(start, dtype=np.float64)]


def _gradient_at(point: Array, gradient: Callable[[Array], Array]) -> Array:
    g = np.asarray(gradient(point), dtype=np.float64)
    if g.shape != point.shape:
        raise ValueError(
            f"gradient must return an array of its point's shape {point.shape}, got {g.shape}."
        )
    return g


def _check(name: str, value: Any) -> None:
    if not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, got {value!r}.")
    if name in ("momentum", "rho", "beta_1", "beta_2"):
        if not 0 <= float(value) < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {value}.")
    elif not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number of 0 or more, got {value}.")
