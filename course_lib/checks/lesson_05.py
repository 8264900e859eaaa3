"""Checks of lesson 05: the cycle, the judges, the patch, the pool, the lesions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.checks import exercise, is_near, seeded, which_mistake


def _images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=seeded(seed)) - 0.6


class _Bend(nn.Module):
    """scale * x + shift + x^2 / 2: the order of two of them matters."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift + x.square() / 2


@exercise(
    "E05.1",
    "right: there and back, both ways, against the image that you started from. No "
    "pair was needed.",
)
def check_round_trips(student: Callable[..., Tensor]) -> str | None:
    g_ab, g_ba = _Bend(0.5, 0.1), _Bend(1.4, -0.2)
    a, b = _images(3), 0.4 - 0.5 * _images(3, seed=1)

    def l1(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean()

    there_a, there_b = g_ab(a), g_ba(b)
    back_a, back_b = g_ba(there_a), g_ab(there_b)
    answer = student(g_ab, g_ba, a, b)
    right = l1(back_a, a) + l1(back_b, b)
    wrong = {
        "this is one way only, A to B and back. Starting from B, the translators could "
        "still do what they like.": l1(back_a, a),
        "this is one way only, B to A and back. Start from A as well.": l1(back_b, b),
        "the two halves are in the wrong order: real_a goes through g_ab first, and "
        "g_ba brings it back.": l1(g_ab(g_ba(a)), a) + l1(g_ba(g_ab(b)), b),
        "you compared a translation with real_b or real_a. They show other heads: "
        "there are no pairs. Compare each image with itself after the way back.": l1(
            there_a, b
        )
        + l1(there_b, a),
        "you compared each image with its translation: that forbids to translate. "
        "Compare after the way back.": l1(there_a, a) + l1(there_b, b),
        "you squared the differences; the paper takes absolute values, which blur "
        "less.": (back_a - a).square().mean() + (back_b - b).square().mean(),
        "take the mean over all pixels and images, not the sum.": (
            (back_a - a).abs().sum() + (back_b - b).abs().sum()
        ),
        "add the two ways; their mean halves the weight that the paper gives.": right
        / 2,
    }
    if hint := which_mistake(answer, wrong):
        return hint
    if not is_near(answer, right):
        return f"expected {right:.4f} for two small translators, got {answer}."
    if not answer.requires_grad:
        return "the loss has no gradient: leave out detach(), item() and no_grad()."
    found = torch.autograd.grad(answer, g_ab.scale, allow_unused=True)[0]
    (full,) = torch.autograd.grad(
        l1(g_ba(g_ab(a)), a) + l1(g_ab(g_ba(b)), b), g_ab.scale
    )
    if found is None or not is_near(found, full):
        return (
            "the gradient stops halfway: do not detach the translation, or its "
            "translator never hears that the way back failed."
        )
    return None


@exercise(
    "E05.2",
    "right: towards 1 on real patches, towards 0 on fakes, and not a step further: "
    "the translator is not told here.",
)
def check_judge_step_loss(student: Callable[..., Tensor]) -> str | None:
    judge, translator = nn.Conv2d(1, 1, 3), _Bend(0.8, 0.1)
    with torch.no_grad():
        judge.weight.copy_(torch.randn(judge.weight.shape, generator=seeded(3)) / 3)
        judge.bias.fill_(0.2)
    real, source = _images(4), _images(4, seed=5)
    fake = translator(source)
    answer = student(judge, real, fake)
    on_real, on_fake = judge(real), judge(fake)
    right = ((on_real - 1).square().mean() + on_fake.square().mean()) / 2
    swapped = (on_real.square().mean() + (on_fake - 1).square().mean()) / 2
    entropy = nn.functional.softplus(-on_real).mean()
    entropy = entropy + nn.functional.softplus(on_fake).mean()
    wrong = {
        "the targets are swapped: 1 for real patches, 0 for fakes. This judge would "
        "praise the forger.": swapped,
        "this is the logistic loss of lesson 03; CycleGAN uses least squares, "
        "(logit - target)**2.": entropy,
        "this is what the translator minimises. The judge also learns from real "
        "images, and wants 0 on fakes.": (on_fake - 1).square().mean(),
        "only the fakes are in it: a judge that has never seen a real image says 0 "
        "to all.": on_fake.square().mean(),
        "square each patch's error before the mean: patches must not cancel.": (
            (on_real.mean() - 1).square() + on_fake.mean().square()
        )
        / 2,
        "halve the sum: the paper slows the judge down to the translator's pace.": 2
        * right,
    }
    for hint, value in wrong.items():
        if is_near(answer, value):
            return hint
        if is_near(2 * torch.as_tensor(answer).detach(), value) and value is entropy:
            return hint
    if not is_near(answer, right):
        return f"expected {right:.4f} for a small judge, got {answer}."
    if not answer.requires_grad:
        return "the loss has no gradient: only the fake is detached, not the answer."
    gradient = torch.autograd.grad(
        answer, [judge.weight, translator.scale], allow_unused=True
    )
    if gradient[0] is None:
        return "the judge gets no gradient: detach the fake, not what the judge says."
    if gradient[1] is not None:
        return (
            "the gradient reaches the translator, and pushes it towards being caught: "
            "use fake.detach()."
        )
    return None


@exercise(
    "E05.3",
    "right: from the last layer back to the image, each stride spreads what lies "
    "behind it. 70 pixels for the paper's judge.",
)
def check_receptive_field(student: Callable[..., int]) -> str | None:
    paper = [(4, 2), (4, 2), (4, 2), (4, 1), (4, 1)]
    cases = [paper, [(4, 2), (4, 2), (4, 1)], [(3, 1), (3, 1)], [(5, 1), (3, 2)], []]

    def right(layers: list[tuple[int, int]]) -> int:
        side, step = 1, 1
        for kernel, stride in layers:
            side, step = side + (kernel - 1) * step, step * stride
        return side

    def forwards(layers: list[tuple[int, int]]) -> int:
        return right(layers[::-1])

    def no_stride(layers: list[tuple[int, int]]) -> int:
        return 1 + sum(kernel - 1 for kernel, _ in layers)

    def summed(layers: list[tuple[int, int]]) -> int:
        return sum(kernel for kernel, _ in layers)

    def late_stride(layers: list[tuple[int, int]]) -> int:
        side = 1
        for kernel, stride in reversed(layers):
            side = side * stride + kernel
        return side

    answers = [student(list(case)) for case in cases]
    wrong = {
        "you went from the image to the output. The order matters: start at one "
        "output, size 1, and go back layer by layer.": forwards,
        "you left out the strides: behind a stride of 2 the next layer's pixels lie "
        "two apart.": no_stride,
        "kernels overlap: each adds kernel - 1 pixels, not kernel.": summed,
        "side positions of stride s span (side - 1) * s pixels, and the last kernel "
        "adds its own width.": late_stride,
    }
    for hint, slip in wrong.items():
        if answers == [slip(case) for case in cases]:
            return hint
    for case, answer in zip(cases, answers, strict=True):
        if answer != right(case):
            return f"{case} sees {right(case)} pixels, not {answer}."
    return None


@exercise(
    "E05.4",
    "right: half new, half old, and a memory of the latest fakes in their order. The "
    "judge cannot forget what a translator did a moment ago.",
)
def check_half_from_memory(student: Callable[..., Tensor]) -> str | None:
    size, rounds, n = 6, 200, 4
    memory: list[Tensor] = []
    rng = seeded(0)
    scale = torch.tensor(1.0, requires_grad=True)
    drawn = set()
    for step in range(rounds):
        fakes = scale * torch.arange(n * step, n * step + n).view(n, 1, 1, 1).float()
        new, before = fakes.flatten().tolist(), [float(x) for x in memory]
        shown = torch.as_tensor(student(memory, fakes, size, rng))
        if tuple(shown.shape) != (n, 1, 1, 1):
            shape = tuple(shown.shape)
            return f"return a batch as large as fakes, {(n, 1, 1, 1)}, not {shape}."
        if shown.requires_grad or any(x.requires_grad for x in memory):
            return (
                "the memory keeps gradients: it would hold every step's graph, and the "
                "judge's step would reach the translator. Detach the fakes."
            )
        if hint := _memory_fault([float(x) for x in memory], before, new, size):
            return hint
        numbers = shown.flatten().tolist()
        if not step:
            if numbers != new:
                return "with an empty memory the judge sees the batch as it is."
            continue
        first, second = numbers[: n // 2], numbers[n // 2 :]
        if numbers == new:
            return "the judge never sees an old fake: its second half is memory's."
        if set(numbers) <= set(before):
            return "the judge sees old fakes only: the first half is today's."
        if second == new[n // 2 :] and set(first) <= set(before):
            return "these are the wrong half: keep the first, replace the second."
        if set(second) & set(new):
            return (
                "new images came as old ones: draw from the memory before the batch "
                "goes in, for all of the second half."
            )
        if first != new[: n // 2] or not set(second) <= set(before):
            return (
                f"from the batch {new} and the memory {before} the judge got "
                f"{numbers}: two new ones in their order, then two of the memory."
            )
        if len(before) == size:
            drawn |= {before.index(x) for x in second}
    if drawn != set(range(size)):
        return (
            f"of {size} places in the memory only {sorted(drawn)} are ever drawn: "
            "choose among all of them at random."
        )

    def play() -> list[Tensor]:
        memory, rng = list(torch.arange(8.0).view(8, 1, 1, 1)), seeded(7)
        return [student(memory, -fakes.detach(), 8, rng) for _ in range(8)]

    if not all(map(torch.equal, play(), play())):
        return "equal dice must give equal images: draw from `generator` alone."
    return None


def _memory_fault(
    memory: list[float], before: list[float], new: list[float], size: int
) -> str | None:
    """What is wrong with a memory that should hold the last `size` of both."""
    right = (before + new)[-size:]
    if memory == right:
        return None
    if not memory:
        return "the memory stays empty: the whole batch goes in at its end."
    if len(memory) > size:
        return (
            f"the memory holds {len(memory)} images, more than its size {size}: let "
            "the oldest go."
        )
    if len(set(memory)) < len(memory):
        return (
            "old images went in a second time: the memory gets the batch as it came, "
            "and `shown` must be a copy of it, or one writes into the other."
        )
    if memory == (before + new)[:size]:
        return "the newest fakes are lost: it is the oldest that leave."
    return (
        f"with size {size}, after {before} and the batch {new} the memory should be "
        f"{right}, not {memory}."
    )


@exercise(
    "E05.5",
    "right: counted lesion by lesion, so that a missed small one weighs as much as a "
    "missed large one, and PSNR cannot drown it.",
)
def check_lesion_recall(student: Callable[..., float]) -> str | None:
    healthy, lesion = -0.4, 0.6
    images = torch.full((3, 1, 8, 8), healthy)
    masks = torch.zeros(6, 8, 8, dtype=torch.bool)
    masks[0, :4, :4] = True  # in image 0: a large one, kept, and a faint one
    masks[1, 6:, 6:] = True
    masks[2, 6:, 6:] = True  # in image 1: three small ones, kept, faint and gone
    masks[3, :2, :2] = True
    masks[4, 4:6, :2] = True
    masks[5, 2:6, 2:6] = True  # in image 2: bright and dark halves
    images[0, 0][masks[0]], images[0, 0][masks[1]] = 0.5, 0.05
    images[1, 0][masks[2]], images[1, 0][masks[3]] = 0.3, 0.0
    images[2, 0, 2:4, 2:6], images[2, 0, 4:6, 2:6] = 0.55, -0.5
    lesions = list(zip((0, 0, 1, 1, 1, 2), masks, strict=True))
    right = 2 / 6

    def ask(found: Tensor, low: float, high: float) -> float:
        return float(student(found, lesions, low, high))

    answer = ask(images, healthy, lesion)
    values = [images[i, 0][mask] for i, mask in lesions]
    middle = (healthy + lesion) / 2
    pixels = torch.cat(values)
    wrong = {
        "you counted pixels: one large lesion then outweighs many small ones. Count "
        "lesions.": float((pixels > middle).float().mean()),
        "you counted a lesion as found if any of its pixels is bright: noise would do. "
        "Take its mean.": sum(float(v.max() > middle) for v in values) / 6,
        "you counted what is above zero; the border lies halfway between healthy and "
        "lesion.": sum(float(v.mean() > -1e-6) for v in values) / 6,
        "this is the share that was lost; recall is the share that was found.": 4 / 6,
        "you returned a count; divide by the number of lesions.": 2.0,
        "this is the mean over images; count over lesions.": (1 / 2 + 1 / 3 + 0) / 3,
    }
    for hint, value in wrong.items():
        if abs(answer - value) < 1e-6:
            return hint
    if abs(answer - right) > 1e-6:
        return f"2 of these 6 lesions are found: recall 0.333, not {answer:.3f}."
    if abs(ask(-images, -healthy, -lesion) - right) > 1e-6:
        return (
            "on T1 lesions are darker than white matter. Ask which value is nearer, "
            "not which is brighter."
        )
    if abs(float(student(images, [(2, images[2, 0] > 0.5)], healthy, lesion)) - 1) > 0:
        return (
            "one lesion, in image 2, was not found: look into the image whose number "
            "stands beside the mask."
        )
    if ask(torch.full_like(images, 0.5), 0.0, 1.0) > 1e-6:
        return "half-way is no nearer to lesion: count what is nearer alone."
    return None
