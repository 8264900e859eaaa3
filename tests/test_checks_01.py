"""Checks of lesson 01: the solution passes, the stub and each wrong answer fail."""

from pathlib import Path

import pytest
import torch

from course_lib.checks import lesson_01
from course_lib.exercises import exercises
from course_lib.sources import read_source

SOURCE = Path(__file__).resolve().parents[1] / "notebooks/src/01_autoencoder.py"
CHECKS = {
    check.exercise: check
    for name, check in vars(lesson_01).items()
    if name.startswith("check_")
}


def lesson_cells():
    """{exercise number: (name, solved cell, stub)} as they stand in the lesson."""
    notebook = read_source(SOURCE)
    return {
        task.id: (task.name, notebook.cells[i].source, task.stub)
        for i, task in exercises(notebook)
    }


CELLS = lesson_cells()


def run_cell(source, name):
    """Run an exercise cell where the lesson's imports are known; returns its object."""
    from course_lib import autoencoders

    space = {"torch": torch, "nn": torch.nn, **vars(autoencoders)}
    exec(source, space)
    return space[name]


def test_every_exercise_of_the_lesson_has_its_check():
    assert set(CELLS) == set(CHECKS) and len(CELLS) >= 4


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_the_lessons_solution_passes(number):
    name, source, _ = CELLS[number]
    verdict = CHECKS[number](run_cell(source, name))
    assert verdict, verdict
    assert verdict.message.startswith("right:")


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_the_stub_is_not_written_yet(number):
    name, _, stub = CELLS[number]
    verdict = CHECKS[number](run_cell(stub, name))
    assert not verdict and "not written yet" in verdict.message


def mse(a, b):
    return (a - b).square().mean()


def noisy(x, sigma, generator):
    return x + sigma * torch.randn(x.shape, generator=generator)


def in_place(model, x, sigma, generator):
    x += sigma * torch.randn(x.shape, generator=generator)
    return mse(model(x), x)


def clamped(model, x, sigma, generator):
    return mse(model(noisy(x, sigma, generator).clamp(-1, 1)), x)


def one_noise(model, x, sigma, generator):
    return mse(model(x + sigma * torch.randn(x.shape[1:], generator=generator)), x)


def uniform(model, x, sigma, generator):
    return mse(model(x + sigma * torch.rand(x.shape, generator=generator)), x)


def noisy_target(model, x, sigma, generator):
    seen = noisy(x, sigma, generator)
    return mse(model(seen), seen)


def noise_target(model, x, sigma, generator):
    seen = noisy(x, sigma, generator)
    return mse(model(seen), seen - x)


def pca(train, x, k, *, fit=None, centre=None, back=None, add=True, largest=True):
    """PCA with each usual slip as an option."""
    mean = train.flatten(1).mean(0)
    fit = train if fit is None else fit
    centre = mean if centre is None else centre
    back = mean if back is None else back
    rows = fit.flatten(1) - centre
    v = torch.linalg.eigh(rows.T @ rows).eigenvectors
    v = v[:, -k:] if largest else v[:, :k]
    flat = (x.flatten(1) - back) @ v @ v.T
    return (flat + back if add else flat).view_as(x)


def gaussian(codes, n, generator, factor=lambda c: torch.linalg.cholesky(c).T):
    noise = torch.randn(n, codes.shape[1], generator=generator)
    return codes.mean(0) + noise @ factor(torch.cov(codes.T))


WRONG = {
    "E01.1": {
        "first place": lambda n, k, s, p: (n + 2 * p - k) // s,
        "both sides": lambda n, k, s, p: (n + p - k) // s + 1,
        "partly fits": lambda n, k, s, p: -(-(n + 2 * p - k) // s) + 1,
        "transposed": lambda n, k, s, p: (n - 1) * s - 2 * p + k,
        "whole number": lambda n, k, s, p: (n + 2 * p - k) // s + 1.0,
        "gives 16": lambda n, k, s, p: n // s,
    },
    "E01.2": {
        "left unexplained": lambda x, y: (
            (x - y).square().sum() / (x - x.mean(0)).square().sum()
        ),
        "one grey value": lambda x, y: (
            1 - (x - y).square().sum() / (x - x.mean()).square().sum()
        ),
        "inside each image": lambda x, y: (
            1
            - (x - y).square().sum()
            / (x - x.mean((1, 2, 3), keepdim=True)).square().sum()
        ),
        "not two spreads": lambda x, y: y.var(0).sum() / x.var(0).sum(),
        "shape (40,)": lambda x, y: (
            1 - (x - y).square().flatten(1).sum(1) / (x - x.mean(0)).square().sum()
        ),
        "perfect copy": lambda x, y: -(x - y).square().mean(),
    },
    "E01.3": {
        "never called": lambda model, x, sigma, generator: mse(x, x),
        "in place": in_place,
        "saw the clean": lambda model, x, sigma, generator: mse(model(x), x),
        "clamped": clamped,
        "same noise": one_noise,
        "uniform": uniform,
        "multiply torch.randn": lambda model, x, sigma, generator: mse(
            model(noisy(x, sigma**2, generator)), x
        ),
        "generator": lambda model, x, sigma, generator: mse(
            model(noisy(x, sigma, None)), x
        ),
        "copy noise": noisy_target,
        "target is the noise": noise_target,
        "summed": lambda model, x, sigma, generator: (
            (model(noisy(x, sigma, generator)) - x).square().sum()
        ),
        "no gradient": lambda model, x, sigma, generator: mse(
            model(noisy(x, sigma, generator)), x
        ).detach(),
    },
    "E01.4": {
        "subtract the mean": lambda t, x, k: pca(t, x, k, centre=0.0, back=0.0),
        "add the mean": lambda t, x, k: pca(t, x, k, add=False),
        "own mean": lambda t, x, k: pca(t, x, k, back=x.flatten(1).mean(0)),
        "fit to train": lambda t, x, k: pca(
            t, x, k, fit=x, centre=x.flatten(1).mean(0), back=x.flatten(1).mean(0)
        ),
        "sorts upwards": lambda t, x, k: pca(t, x, k, largest=False),
        "most variance": lambda t, x, k: pca(t, x, k - 1),
    },
    "E01.5": {
        "sign": lambda x, y: (x - y).mean(1),
        "opposite errors": lambda x, y: (x - y).mean(1).abs(),
        "dark lesions": lambda x, y: (x - y).clamp(min=0).mean(1),
        "own maximum": lambda x, y: (
            (x - y).abs().mean(1) / (x - y).abs().mean(1).amax((1, 2), keepdim=True)
        ),
        "one map an image": lambda x, y: (x - y).abs().mean((1, 2, 3)),
        "expected the mean": lambda x, y: (x - y).square().mean(1),
    },
    "E01.6": {
        "around 0": lambda c, n, g: torch.randn(n, 3, generator=g),
        "N(0, 1)": lambda c, n, g: c.mean(0) + torch.randn(n, 3, generator=g),
        "independent": lambda c, n, g: gaussian(
            c, n, g, lambda v: v.diag().sqrt().diag()
        ),
        "cholesky": lambda c, n, g: gaussian(c, n, g, lambda v: v),
        "wrong way round": lambda c, n, g: gaussian(c, n, g, torch.linalg.cholesky),
        "copies of patients": lambda c, n, g: c[
            torch.randint(len(c), (n,), generator=g)
        ],
        "one seed": lambda c, n, g: gaussian(c, n, None),
        "(n, latent_dim)": lambda c, n, g: gaussian(c, n, g).mean(0),
    },
}


@pytest.mark.parametrize(
    "number, word", [(number, word) for number in WRONG for word in WRONG[number]]
)
def test_each_wrong_answer_fails_with_its_own_hint(number, word):
    verdict = CHECKS[number](WRONG[number][word])
    assert not verdict and word in verdict.message, verdict
    assert sum(other in verdict.message for other in WRONG[number]) == 1


def test_a_residual_map_is_needed_of_grey_and_colour_images_alike():
    right = lesson_01.check_residual_map(lambda x, y: (x - y).abs().mean(1))
    assert right
