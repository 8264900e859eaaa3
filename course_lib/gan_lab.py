"""A GAN in the plane whose every knob can be turned while it trains. No widget.

`course_lib.gan_lab_widget.GANLab` is a thin shell over it; `gan_lab_picture` draws it.
Steps and losses are those of lessons 03 and 04.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from course_lib import gans, wasserstein
from course_lib.autoencoders import fit_pca
from course_lib.runtime import one_thread
from course_lib.training import EMA

HALF = 1.6  # what is shown of the plane: from -HALF to HALF both ways
SIGMA = 0.05  # of each mode
BATCH, SHOWN, COMPARED = 128, 500, 200  # points of a step, of a picture, of W1
LAMBDA_GP = 0.1  # Gulrajani et al. 2017 take 0.1 for points, 10 for images
CLIPPED, PENALTY, SPECTRAL = (
    "Wasserstein, clipped",
    "Wasserstein, penalty",
    "hinge, spectral norm",
)
LOSSES = {  # name -> the library's kind; None: a Wasserstein critic
    "non-saturating": "non-saturating",
    "saturating": "saturating",
    "least squares": "least-squares",
    "hinge": "hinge",
    SPECTRAL: "hinge",
    CLIPPED: None,
    PENALTY: None,
}
PLAYERS = ("both", "D alone", "G alone")

Draw = Callable[[int, torch.Generator], Tensor]


# --- data ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """Points to learn. `batch(n, generator)` -> (n, 2) is what the networks see.

    `fresh` draws what they are measured against; `centres` (modes, 2) where there are
    modes; `seen` (n, 2) where the networks see the same few points again and again.
    """

    batch: Draw
    fresh: Draw
    centres: Tensor | None = None
    seen: Tensor | None = None


def _grid_of_gaussians(n: int, generator: torch.Generator) -> Tensor:
    where = torch.randint(9, (n,), generator=generator)
    return GRID[where] + SIGMA * torch.randn(n, 2, generator=generator)


def _ring(n: int, generator: torch.Generator) -> Tensor:
    return gans.ring_of_gaussians(n, generator, sigma=SIGMA)


def _line(n: int, generator: torch.Generator) -> Tensor:
    """A sine wave: one piece, no modes to lose."""
    x = 2.4 * torch.rand(n, generator=generator) - 1.2
    noise = SIGMA / 2 * torch.randn(n, generator=generator)
    return torch.stack([x, 0.8 * torch.sin(2.6 * x) + noise], dim=1)


GRID = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 2)
MADE: dict[str, tuple[Draw, Tensor | None]] = {
    "ring": (_ring, gans.ring_centres()),
    "grid": (_grid_of_gaussians, GRID),
    "line": (_line, None),
}


def made_data(name: str, few: int | None = None, seed: int = 0) -> Data:
    """ "ring", "grid" or "line"; with `few`, the networks see so many points only."""
    if name not in MADE:
        raise ValueError(f"data {name!r}: choose from {', '.join(MADE)}")
    draw, centres = MADE[name]
    if few is None:
        return Data(draw, draw, centres)
    seen = draw(few, torch.Generator().manual_seed(seed))
    return Data(_from(seen), draw, centres, seen)


def drawn_data(points: Any) -> Data:
    """Points put by hand, (n, 2), each with a little noise. ValueError for none."""
    points = torch.as_tensor(points, dtype=torch.float32).reshape(-1, 2)
    if len(points) == 0:
        raise ValueError("there is nothing to learn yet: draw some points")
    draw = _from(points, noise=SIGMA / 2)
    return Data(draw, draw)


def feature_data(features: Tensor) -> Data:
    """Features of images (N, D) in the plane of their two principal components.

    The first half trains, the second is what is measured against. Scaled so that 98 %
    of the points lie within 1.3 of the middle. Raises ValueError below 4 images.
    """
    if features.ndim != 2 or len(features) < 4:
        raise ValueError(f"expected features (N >= 4, D), got {tuple(features.shape)}")
    plane = fit_pca(features.float(), 2).encode(features.float())
    plane = plane - plane.mean(dim=0)
    plane = 1.3 * plane / plane.norm(dim=1).quantile(0.98).clamp(min=1e-9)
    half = len(plane) // 2
    return Data(_from(plane[:half]), _from(plane[half:]))


def _from(points: Tensor, noise: float = 0.0) -> Draw:
    def draw(n: int, generator: torch.Generator) -> Tensor:
        chosen = points[torch.randint(len(points), (n,), generator=generator)]
        return chosen + noise * torch.randn(n, 2, generator=generator)

    return draw


# --- the game ------------------------------------------------------------------------


class Game:
    """G and D on points. `advance` trains, `look` measures; knobs are attributes.

    `rate_g`, `rate_d`, `k` (steps of D for one of G), `r1` (gamma, not for Wasserstein
    losses), `clip` and `ema` may change between any two steps, the data by `use`;
    another `loss` or `seed` is another game. The random numbers are its own: the same
    seed gives the same game whatever runs beside it, and it changes nothing there.
    """

    def __init__(
        self,
        data: Data,
        *,
        loss: str = "non-saturating",
        rate_g: float = 2e-3,
        rate_d: float = 2e-3,
        k: int = 1,
        r1: float = 0.0,
        clip: float = 0.01,
        ema: bool = True,
        seed: int = 0,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss {loss!r}: choose from {', '.join(LOSSES)}")
        self.loss, self.kind = loss, LOSSES[loss]
        self.rate_g, self.rate_d, self.k = rate_g, rate_d, k
        self.r1, self.clip, self.ema = r1, clip, ema
        self.steps = 0
        self.history: list[dict[str, float]] = []
        self._points = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.g, self.d = gans.PointNet(2, 2), gans.PointNet(2, 1)
            self.z = torch.randn(SHOWN, 2)  # the same at each look: points that move
            self._random = torch.get_rng_state()
        if loss == SPECTRAL:
            for layer in self.d.modules():
                if isinstance(layer, nn.Linear):
                    spectral_norm(layer)
        # momentum as in lesson 03; a D that is bounded takes none, as in lesson 04
        bounded = loss in (SPECTRAL, CLIPPED, PENALTY)
        beta1, beta2 = (0.0, 0.9) if bounded else (0.5, 0.999)
        self.opt_g, self.opt_d = (
            torch.optim.Adam(net.parameters(), betas=(beta1, beta2), fused=True)
            for net in (self.g, self.d)
        )
        self.mean = EMA(self.g, decay=0.99)
        self._ruler = torch.Generator().manual_seed(1000 + seed)
        self.use(data)

    def use(self, data: Data) -> None:
        """Learn these points from now on: the networks stay as they are."""
        self.data = data
        self.real = data.fresh(SHOWN, self._ruler)
        again = data.fresh(COMPARED, self._ruler)
        self.floor = exact_w1(self.real[:COMPARED], again)

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            yield
            self._random = torch.get_rng_state()

    def advance(self, steps: int = 1, who: str = "both") -> None:
        """Train for `steps` steps: k of D, one of G; or one player, the other waits.

        Raises FloatingPointError when the weights are no longer numbers.
        """
        if who not in PLAYERS:
            raise ValueError(f"who {who!r}: choose from {', '.join(PLAYERS)}")
        self.opt_g.param_groups[0]["lr"] = self.rate_g
        self.opt_d.param_groups[0]["lr"] = self.rate_d
        with self._own_random(), one_thread():
            for _ in range(steps):
                if who != "G alone":
                    for _ in range(self.k):
                        self._step_d(self.data.batch(BATCH, self._points))
                if who != "D alone":
                    self._step_g()
                    self.mean.update()
                self.steps += 1
        if not all(
            p.isfinite().all() for n in (self.g, self.d) for p in n.parameters()
        ):
            raise FloatingPointError(
                f"the weights are no longer numbers at step {self.steps}: "
                "lower the learning rates and start over"
            )

    def _step_d(self, real: Tensor) -> None:
        if self.kind is None:
            bound = 0.0 if self.loss == CLIPPED else LAMBDA_GP
            wasserstein.critic_step(self.g, self.d, self.opt_d, real, lambda_gp=bound)
            if self.loss == CLIPPED:
                wasserstein.clip_weights(self.d, self.clip)
            return
        with torch.no_grad():
            fake = self.g(torch.randn(len(real), 2))
        gans.update_discriminator(
            self.d, self.opt_d, real, fake, kind=self.kind, r1=self.r1
        )

    def _step_g(self) -> None:
        if self.kind is None:
            wasserstein.generator_step(self.g, self.d, self.opt_g, BATCH)
            return
        fake = self.g(torch.randn(BATCH, 2))
        gans.update_generator(self.d, self.opt_g, fake, kind=self.kind)

    def loss_of_g(self, fake: Tensor) -> Tensor:
        """What G minimises, for points (N, 2) -> ()."""
        scores = self.d(fake)
        if self.kind is None:
            return wasserstein.generator_loss(scores)
        return gans.generator_loss(scores, self.kind)

    def verdict(self, scores: Tensor) -> Tensor:
        """D's scores on a scale from -1 (generated) to 1 (real), for a picture.

        A Wasserstein score has no zero and no unit: shown is its share of the range.
        """
        if self.kind is None:
            middle = (scores.max() + scores.min()) / 2
            return (scores - middle) / (scores.max() - middle).clamp(min=1e-9)
        if self.kind == "least-squares":
            scores = 2 * scores - 1  # its labels are 0 and 1
        elif self.kind != "hinge":
            scores = 2 * scores.sigmoid() - 1
        return scores.clamp(-1, 1)

    def look(self, heat: int = 48, arrows: int = 13) -> Look:
        """What there is to see now; its numbers are added to `history`."""
        with one_thread():
            with torch.no_grad():
                generator = self.mean.module if self.ema else self.g
                samples = generator(self.z)
                grid = mesh(heat)
                map_ = self.verdict(self.d(grid)).reshape(heat, heat)
            places = mesh(arrows).requires_grad_()
            (pull,) = torch.autograd.grad(self.loss_of_g(places), places)
            numbers = self._measure(samples)
        if self.history and self.history[-1]["step"] == self.steps:
            self.history.pop()  # the same moment, seen again
        self.history.append(numbers)
        seen = self.data.seen
        return Look(
            samples.numpy(),
            self.real.numpy(),
            map_.numpy(),
            places.detach().numpy(),
            -len(places) * pull.numpy(),
            numbers,
            None if seen is None else seen.numpy(),
        )

    def _measure(self, samples: Tensor) -> dict[str, float]:
        on_real, on_fake = self.d(self.real).detach(), self.d(samples).detach()
        if self.kind in ("saturating", "non-saturating"):
            on_real, on_fake = on_real.sigmoid(), on_fake.sigmoid()
        weights = list(self.g.parameters())
        gradient = torch.autograd.grad(self.loss_of_g(self.g(self.z)), weights)
        slope = wasserstein.gradient_norm(self.d, samples).detach().mean()
        numbers = {
            "step": float(self.steps),
            "W1": exact_w1(samples[:COMPARED], self.real[:COMPARED]),
            "D on data": on_real.mean().item(),
            "D on samples": on_fake.mean().item(),
            "gradient at G": torch.cat([g.flatten() for g in gradient]).norm().item(),
            "slope of D": slope.item(),
        }
        if self.data.centres is not None:
            found, share = gans.mode_coverage(samples, self.data.centres, SIGMA)
            numbers |= {"modes": float(found), "on a mode": share}
        if self.loss == CLIPPED:
            flat = torch.cat([w.detach().flatten().abs() for w in self.d.parameters()])
            numbers["at the bound"] = (flat > 0.99 * self.clip).double().mean().item()
        if self.data.seen is not None:
            a, b = (self.d(x).detach() for x in (self.data.seen, self.real))
            told = (a[:, None] > b).double() + 0.5 * (a[:, None] == b).double()
            numbers["prefers what it saw"] = told.mean().item()
        return numbers


@dataclass(frozen=True)
class Look:
    """One moment of a game, as arrays: points (n, 2), `heat` (h, h) in [-1, 1].

    `pull` (m, 2) at `places` (m, 2): where G's loss pushes a point that lies there.
    Row 0 of `heat` is the lowest one of the plane.
    """

    samples: np.ndarray
    real: np.ndarray
    heat: np.ndarray
    places: np.ndarray
    pull: np.ndarray
    numbers: dict[str, float]
    seen: np.ndarray | None = None


def mesh(n: int) -> Tensor:
    """The middles of n x n squares that fill the plane, row by row. -> (n * n, 2)"""
    line = HALF * ((2 * torch.arange(n) + 1) / n - 1)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def exact_w1(x: Tensor, y: Tensor) -> float:
    """W1 between two equally large sets of points, (n, 2) each: the cheapest pairing.

    Points that are no numbers are infinitely far away.
    """
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x.detach(), y.detach()).numpy()
    if not np.isfinite(cost).all():
        return float("inf")
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())
