"""Presets of the GAN lab: a question first, then the measurement that answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from course_lib.gan_lab import CLIPPED, Game, Look, made_data


@dataclass(frozen=True)
class Preset:
    """Settings of a `Game`, how long it runs, what to ask before and to say after.

    `outcome(history)` is the number of the answer that the measurement supports, and
    `found(history)` says what was measured.
    """

    question: str
    answers: tuple[str, ...]
    outcome: Callable[[list[dict[str, float]]], int]
    found: Callable[[list[dict[str, float]]], str]
    steps: int = 800
    few: int | None = None
    who: str = "both"
    settings: dict[str, Any] = field(default_factory=dict)


def _which(value: float, *bounds: float) -> int:
    return sum(value > bound for bound in bounds)


def _modes(history: list[dict[str, float]]) -> int:
    return _which(history[-1]["modes"], 2, 6)


def _told_modes(history: list[dict[str, float]]) -> str:
    now = history[-1]
    return (
        f"G covers {now['modes']:.0f} of 8 modes, and {now['on a mode']:.0%} of its "
        "points lie on one."
    )


def _faded(history: list[dict[str, float]]) -> float:
    """Gradient at G, the last over the first."""
    return history[-1]["gradient at G"] / history[0]["gradient at G"]


def _told_fading(history: list[dict[str, float]]) -> str:
    return (
        f"D gives the samples {history[-1]['D on samples']:.4f}, and the gradient at G "
        f"is {_faded(history):.2g} times that of the start. (Now let both learn: Adam "
        "divides by the size of the gradient, so that G moves all the same. Where to?)"
    )


def _told_clipping(history: list[dict[str, float]]) -> str:
    now = history[-1]
    return (
        f"The critic's slope at the samples is {now['slope of D']:.1g}, and "
        f"{now['at the bound']:.0%} of its weights lie at the bound. "
        f"{now['modes']:.0f} of 8 modes are covered."
    )


def _told_few(history: list[dict[str, float]]) -> str:
    now = history[-1]
    return (
        "Of a point that it was shown and a new one, D prefers the one that it was "
        f"shown in {now['prefers what it saw']:.0%} of the pairs. A half would be fair."
    )


MODES = ("at most 2", "3 to 6", "7 or 8")
PRESETS = {
    "collapse": Preset(
        "G learns ten times as fast as D. How many of the eight modes will it cover?",
        MODES,
        _modes,
        _told_modes,
        steps=1200,
        settings={"rate_g": 2e-3, "rate_d": 2e-4, "ema": False},
    ),
    "D too strong": Preset(
        "D learns alone, fast, while G waits and holds on to the saturating loss. What "
        "becomes of the gradient that reaches G?",
        ("it falls below a tenth", "it stays", "it grows more than tenfold"),
        lambda history: _which(_faded(history), 0.1, 10),
        _told_fading,
        steps=100,
        who="D alone",
        settings={"loss": "saturating", "rate_g": 2e-4, "rate_d": 1e-2, "k": 5},
    ),
    "clipped to death": Preset(
        "The first WGAN: each weight of the critic is cut to 0.01. A slope of 1 would "
        "be right. How steep will the critic be?",
        ("below 0.01", "0.01 to 0.5", "about 1"),
        lambda history: _which(history[-1]["slope of D"], 0.01, 0.5),
        _told_clipping,
        steps=500,
        settings={
            "loss": CLIPPED,
            "rate_g": 1e-4,
            "rate_d": 1e-4,
            "k": 5,
            "clip": 0.01,
        },
    ),
    "few data": Preset(
        "D is shown the same 16 points again and again. Then we give it one of them "
        "and a new point of the same ring. How often does it prefer the one it knows?",
        ("less than 40 %", "about half", "over 60 %"),
        lambda history: _which(history[-1]["prefers what it saw"], 0.4, 0.6),
        _told_few,
        few=16,
        settings={"rate_g": 1e-3, "rate_d": 2e-3, "k": 2},
    ),
    "healthy": Preset(
        "Both learn at one rate, and R1 keeps D flat around the data. How many of the "
        "eight modes will G cover?",
        MODES,
        _modes,
        _told_modes,
        settings={"rate_g": 2e-3, "rate_d": 2e-3, "r1": 0.3},
    ),
}


def preset_game(name: str, seed: int = 0) -> Game:
    """A new game on the ring with a preset's settings."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r}: choose from {', '.join(PRESETS)}")
    preset = PRESETS[name]
    return Game(made_data("ring", preset.few, seed), **preset.settings, seed=seed)


def play(name: str, seed: int = 0) -> tuple[Game, Look]:
    """A preset to its end, measured before and after."""
    game, preset = preset_game(name, seed), PRESETS[name]
    game.look()
    game.advance(preset.steps, preset.who)
    return game, game.look()
