"""A blinded, balanced, seeded reader study: trials, the key apart, answers, a result.

What is shown is a `Study`, which knows no label; the `AnswerKey` never shows itself.
`course_lib.reader_widget` puts the study before a person; simulated and machine readers
answer the same trials. The numbers are those of `course_lib.detection`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata

from course_lib.detection import (
    Estimate,
    auc_difference,
    cohen_kappa,
    corrected_rate,
    criterion,
    d_prime,
    d_prime_se,
    difference_power,
    equivalence_power,
    fleiss_kappa,
    images_needed,
    planned_se,
    roc_auc,
    tost,
    two_afc,
    yes_no,
)
from course_lib.plotting import as_array, to_uint8
from course_lib.reader_answers import (
    CUT,
    KINDS,
    QUESTIONS,
    Answers,
    ResponseTimes,
    Result,
    read_answers,
    response_times,
    write_answers,
)

__all__ = [
    "AnswerKey",
    "Answers",
    "Estimate",
    "ResponseTimes",
    "Result",
    "Study",
    "answers_from_scores",
    "auc_difference",
    "cohen_kappa",
    "corrected_rate",
    "criterion",
    "d_prime",
    "d_prime_se",
    "difference_power",
    "equivalence_power",
    "find_cues",
    "fleiss_kappa",
    "images_needed",
    "make_study",
    "planned_se",
    "read_answers",
    "response_times",
    "roc_auc",
    "score_answers",
    "simulate_reader",
    "split_scores",
    "tost",
    "two_afc",
    "write_answers",
    "yes_no",
]

# --- the study and its key ------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Study:
    """What a reader sees: one PNG a trial (rating), or two (2afc: left, right).

    The PNGs hold pixels alone and are of one length. `code` is a hash of them, which
    ties answers to a study.
    """

    kind: str
    trials: tuple[tuple[bytes, ...], ...]
    code: str

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        return f"Study {self.code}: {len(self)} trials, {self.kind}"

    @property
    def question(self) -> str:
        return QUESTIONS[self.kind]

    def pixels(self) -> np.ndarray:
        """What is shown, uint8: (trials, 1 or 2, H, W), colour (..., H, W, 3)."""
        from PIL import Image

        return np.stack(
            [
                np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in trial])
                for trial in self.trials
            ]
        )


@dataclass(frozen=True, repr=False)
class AnswerKey:
    """The truth of a study: 1 real or 2 generated; in pairs the generated one's place.

    Kept apart from the study; its repr and its HTML do not tell.
    """

    kind: str
    code: str
    truth: tuple[int, ...] = field(repr=False)

    def __repr__(self) -> str:
        return f"AnswerKey of study {self.code}: {len(self.truth)} trials, closed"

    @property
    def generated(self) -> np.ndarray:
        """(trials,) bool: the image is generated; of a pair, the right one is."""
        return np.array(self.truth) == 2


def make_study(
    real: Any, generated: Any, n: int, kind: str = "rating", *, seed: int
) -> tuple[Study, AnswerKey]:
    """n trials in random order, half of each truth, and the key. n is even.

    real, generated: (N, C, H, W) in [-1, 1] or uint8, of one size. "rating" shows n / 2
    of each kind, "2afc" n pairs, in half of which the generated one is on the right.
    No image comes twice. One and the same `seed` gives one and the same study. Raises
    ValueError on an odd or too large n, other shapes or ranges, NaN, and images that
    stand on both sides.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    if n < 2 or n % 2:
        raise ValueError(f"n = {n}: a balanced study has an even number of trials")
    a, b = _side("real", real), _side("generated", generated)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"real images are {a.shape[1:]} and generated ones {b.shape[1:]}: size and "
            "colour would tell them apart; load both at one size"
        )
    a_low, b_low = a.min(), b.min()
    if (a_low >= 127) != (b_low >= 127):
        raise ValueError(
            f"the darkest pixels are {a_low} and {b_low} of 255: [0, 1] against "
            "[-1, 1]? Bring both to [-1, 1], or the grey of the background tells"
        )
    each = n if kind == "2afc" else n // 2
    if each > min(len(a), len(b)):
        raise ValueError(
            f"{n} trials need {each} images of each kind, there are {len(a)} real and "
            f"{len(b)} generated"
        )
    if {x.tobytes() for x in a} & {x.tobytes() for x in b}:
        raise ValueError("a generated image is a real one, byte by byte; leave it out")
    rng = np.random.default_rng(seed)
    a = a[rng.permutation(len(a))[:each]]
    b = b[rng.permutation(len(b))[:each]]
    truth = rng.permutation(np.repeat([1, 2], n // 2))
    if kind == "2afc":
        pairs = zip(a, b, truth, strict=True)
        shown = [(y, x) if t == 1 else (x, y) for x, y, t in pairs]
    else:
        take = {1: iter(a), 2: iter(b)}
        shown = [(next(take[t]),) for t in truth]
    trials = tuple(tuple(map(to_png, images)) for images in shown)
    digest = hashlib.sha256(kind.encode() + b"".join(sum(trials, ())))
    code = digest.hexdigest()[:10]
    return Study(kind, trials, code), AnswerKey(kind, code, tuple(map(int, truth)))


def _side(name: str, images: Any) -> np.ndarray:
    """uint8 (N, H, W[, 3]) of one side."""
    if getattr(images, "ndim", 0) != 4:
        raise ValueError(f"expected {name} images (N, C, H, W)")
    raw = as_array(images)
    if raw.dtype != np.uint8 and not (raw.min() >= -1.001 and raw.max() <= 1.001):
        raise ValueError(  # NaN comes here too
            f"expected {name} images in [-1, 1], got [{raw.min():.3g}, "
            f"{raw.max():.3g}]; use datasets.load_images"
        )
    return to_uint8(images)


def to_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W[, 3]) -> PNG: no metadata, no compression.

    Compressed, a smooth image would be a shorter file, and its length a cue.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def find_cues(real: Any, generated: Any) -> dict[str, Estimate]:
    """AUC of one-number cues that could tell the kinds apart: 0.5 tells nothing.

    Images as in `make_study`. A cue far from 0.5 means that a reader need not look at
    the anatomy; mend it, or say so. Cues: the grey of the border, the mean, the darkest
    and the brightest pixel, the contrast, the sharpness.
    """
    sides = [_cues(_side(*side)) for side in (("real", real), ("generated", generated))]
    return {name: roc_auc(sides[0][name], sides[1][name]) for name in sides[0]}


def _cues(pixels: np.ndarray) -> dict[str, np.ndarray]:
    grey = pixels.astype(float)
    grey = grey.mean(axis=-1) if grey.ndim == 4 else grey
    edge = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    flat = grey.reshape(len(grey), -1)
    steps = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    return {
        "grey of the border": np.median(np.concatenate(edge, axis=1), axis=1),
        "mean grey": flat.mean(axis=1),
        "darkest pixel": flat.min(axis=1),
        "brightest pixel": flat.max(axis=1),
        "contrast": flat.std(axis=1),
        "sharpness": steps / flat.std(axis=1).clip(1e-9),
    }


# --- the score ------------------------------------------------------------------------


def score_answers(answers: Answers, key: AnswerKey, *, margin: float = 0.5) -> Result:
    """Compare answers with the key. `margin`: d-prime within which kinds are equal.

    Raises ValueError on answers to another study, or to a part of it.
    """
    if (answers.code, answers.kind) != (key.code, key.kind):
        raise ValueError(
            f"these answers are to study {answers.code} ({answers.kind}), the key is "
            f"that of {key.code} ({key.kind})"
        )
    n = len(key.truth)
    if len(answers.given) != n:
        raise ValueError(f"{len(answers.given)} of {n} trials are answered; finish it")
    given, generated = np.array(answers.given), key.generated
    bias = area = left = None
    if key.kind == "rating":
        said = given > CUT
        each = n // 2
        hits, alarms = int(said[generated].sum()), int(said[~generated].sum())
        d, bias = yes_no(hits, each, alarms, each)
        area = roc_auc(given[~generated], given[generated])
    else:
        said = given == 2
        d = two_afc(int((said == generated).sum()), n)
        left = float((given == 1).mean())
    right = float((said == generated).mean())
    times = response_times(answers.seconds)
    return Result(key.kind, n, right, d, bias, area, left, times, margin)


# --- readers that are no persons ------------------------------------------------------


def simulate_reader(
    key: AnswerKey, d: float, *, bias: float = 0.0, seed: int = 0, reader: int = 1
) -> Answers:
    """A reader of known d-prime, by the model that d-prime comes from.

    Real images look like N(0, 1), generated ones like N(d, 1). `bias` > 0 says "real"
    (in pairs: "left") more readily. Response times are log-normal, longer near the
    border between two answers.
    """
    rng = np.random.default_rng(seed)
    n, generated = len(key.truth), key.generated
    if key.kind == "rating":
        x = rng.normal(size=n) + d * generated - d / 2 - bias
        borders = np.array([-1.0, -0.3, 0.0, 0.8])  # "cannot tell": a narrow band
        given = 1 + (x[:, None] > borders).sum(axis=1)
        near = np.abs(x)
    else:
        x = rng.normal(size=(n, 2))
        x[np.arange(n), generated.astype(int)] += d
        gap = x[:, 1] - x[:, 0] - bias
        given = 1 + (gap > 0)
        near = np.abs(gap)
    seconds = np.exp(rng.normal(0.6, 0.3, n) - 0.3 * near)
    return Answers(
        key.code, key.kind, tuple(map(int, given)), tuple(map(float, seconds)), reader
    )


def answers_from_scores(
    study: Study, scorer: Callable[[np.ndarray], Any], *, reader: int = 1
) -> Answers:
    """A machine as a reader: it sees the pixels of the study and no label.

    `scorer(images)` gets float32 (N, C, H, W) in [-1, 1] and gives (N,) scores, higher
    for generated. Ratings are fifths of the scores; in a pair the higher score is the
    generated one (a tie: left).
    """
    scores = split_scores(study, scorer)
    if study.kind == "rating":
        share = (rankdata(scores[:, 0]) - 0.5) / len(scores)
        given = 1 + (5 * share).astype(int)
    else:
        given = 1 + (scores[:, 1] > scores[:, 0])
    zeros = (0.0,) * len(study)
    return Answers(study.code, study.kind, tuple(map(int, given)), zeros, reader)


def split_scores(study: Study, scorer: Callable[[np.ndarray], Any]) -> np.ndarray:
    """(trials, 1 or 2) scores of what each trial shows, by one call of `scorer`.

    Raises ValueError where it does not give one score an image.
    """
    images = study.pixels() / np.float32(127.5) - 1
    images = images[:, :, None] if images.ndim == 4 else np.moveaxis(images, -1, 2)
    flat = np.ascontiguousarray(images.reshape(-1, *images.shape[2:]))
    scores = np.asarray(scorer(flat), float)
    if scores.shape != (len(flat),):
        raise ValueError(
            f"expected one score an image, ({len(flat)},), got {scores.shape}"
        )
    return scores.reshape(images.shape[:2])
