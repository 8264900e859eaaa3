"""training: the loop equals the plain loop, resumes to the same numbers, says why."""

import json
import signal
import types
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import training
from course_lib.datasets import batches
from course_lib.training import (
    EMA,
    History,
    autocast,
    fit,
    linear_decay,
    load_weights,
    save_weights,
)

MANIFEST = {
    "command": "python -m course_lib run 01",
    "data": "phantom T1 32",
    "budget": "lab",
    "seed": 0,
    "metrics": {"psnr": 28.1},
}


def images(n=12):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8),
        nn.Dropout(0.2),
        nn.Linear(8, 16),
    )


def one_network():
    """A network, its optimiser and scheduler, noise from a generator and dropout."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=20)
    generator = torch.Generator().manual_seed(5)

    def train_step(x):
        noisy = x + 0.1 * torch.randn(x.shape, generator=generator)
        loss = (model(noisy) - x.flatten(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        return {"loss": loss}

    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    return train_step, {**state, "generator": generator}, EMA(model, decay=0.9)


def several_networks(pairs):
    """`pairs` of networks, one optimiser a pair: like a GAN, or a CycleGAN's four."""
    nets = [network(seed) for seed in range(2 * pairs)]
    parts = list(zip(nets[::2], nets[1::2], strict=True))
    optimizers = [
        torch.optim.Adam([*a.parameters(), *b.parameters()], 1e-2, betas=(0.5, 0.9))
        for a, b in parts
    ]

    def train_step(x):
        losses = {}
        for k, ((a, b), optimizer) in enumerate(zip(parts, optimizers, strict=True)):
            loss = (a(x) - b(x.flip(0))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[f"loss_{k}"] = loss
        return losses

    state = {f"net_{i}": net for i, net in enumerate(nets)}
    state |= {f"optimizer_{i}": optimizer for i, optimizer in enumerate(optimizers)}
    return train_step, state, None


RUNS = {
    "one": one_network,
    "two": lambda: several_networks(1),
    "four": lambda: several_networks(2),
}


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


def all_weights(state):
    return {
        f"{name}.{key}": tensor
        for name, part in state.items()
        if isinstance(part, nn.Module)
        for key, tensor in part.state_dict().items()
    }


# --- the loop --------------------------------------------------------------------


def test_fit_gives_the_numbers_of_the_plain_loop():
    train_step, state, _ = one_network()
    losses = []
    data = batches(images(), batch_size=4)
    feed = iter(data)
    for _ in range(8):
        batch = next(feed, None)
        if batch is None:
            feed = iter(data)
            batch = next(feed)
        losses.append(train_step(batch)["loss"].item())
    plain = all_weights(state)

    train_step, state, _ = one_network()
    history = fit(train_step, batches(images(), batch_size=4), 8)
    assert history["loss"].tolist() == losses
    assert equal(plain, all_weights(state))
    assert history.steps.tolist() == list(range(1, 9))


def test_history_keeps_the_steps_of_a_loss_that_is_computed_at_times():
    count = iter(range(6))

    def train_step(x):
        n = next(count)
        return {"loss_d": torch.tensor(n)} | (
            {"loss_g": 10.0 * n} if n % 3 == 2 else {}
        )

    history = fit(train_step, [0], 6)
    assert history["loss_g"].tolist() == [20, 50]
    assert history.steps_of("loss_g").tolist() == [3, 6]
    assert history.last() == {"loss_d": 5, "loss_g": 50}
    assert list(history) == ["loss_d", "loss_g"]
    assert json.loads(json.dumps(history.to_dict()))["loss_g"]["steps"] == [3, 6]
    with pytest.raises(KeyError, match="it has: loss_d, loss_g"):
        history["loss"]


def test_losses_are_copied_before_the_next_step_changes_them(monkeypatch):
    monkeypatch.setitem(training.READ_EVERY, "cpu", 4)  # as on an accelerator
    total = torch.zeros(())
    history = fit(lambda x: {"total": total.add_(1)}, [0], 6)
    assert history["total"].tolist() == [1, 2, 3, 4, 5, 6]


def test_losses_that_wait_keep_no_batch_in_memory(monkeypatch):
    monkeypatch.setitem(training.READ_EVERY, "cpu", 50)
    seen = []

    class Fresh:
        def __iter__(self):
            return (torch.zeros(4) for _ in range(5))

    def train_step(x):
        seen.append(weakref.ref(x))
        return {"alive": sum(ref() is not None for ref in seen)}

    # at most this batch and the one before, which the loop has just let go
    assert fit(train_step, Fresh(), 5)["alive"].max() <= 2


@pytest.mark.parametrize("every", [1, 4])
def test_a_non_finite_loss_names_its_step_and_batch(monkeypatch, every):
    monkeypatch.setitem(training.READ_EVERY, "cpu", every)
    data = [torch.full((2, 1), 0.25 * n) for n in range(3)]
    count = iter(range(1, 100))

    def train_step(x):
        n = next(count)
        return {"loss_d": x.mean(), "loss_g": x.sum() / (0.0 if n == 6 else 1.0)}

    message = (
        r"'loss_g' is inf at step 6, batch index 2 of epoch 1; batch in \[0.5, 0.5\]"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(train_step, data, 20)


@pytest.mark.parametrize(
    ("value", "fix"),
    [(float("nan"), "clean"), (255.0, "load_images"), (0.5, "learning rate")],
)
def test_a_non_finite_loss_comes_with_the_fix_that_suits_the_batch(value, fix):
    pair = (torch.zeros(2), torch.full((2,), value), torch.tensor([1]))
    with pytest.raises(FloatingPointError, match=fix):
        fit(lambda x: {"loss": torch.tensor(float("nan"))}, [pair], 1)


@pytest.mark.parametrize(
    ("returned", "error", "fix"),
    [
        (None, TypeError, '"loss": loss'),
        (torch.zeros(()), TypeError, '"loss": loss'),
        ({"loss": torch.zeros(3)}, ValueError, r"\.mean\(\)"),
    ],
)
def test_a_train_step_that_returns_something_else_is_told_so(returned, error, fix):
    with pytest.raises(error, match=fix):
        fit(lambda x: returned, [0], 1)


@pytest.mark.parametrize("nothing", [[], iter([1, 2])])
def test_batches_that_end_are_told_so(nothing):
    with pytest.raises(ValueError, match="read only once"):
        fit(lambda x: {"loss": 0.0}, nothing, 5)


# --- checkpoints -----------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("kind", ["batches", "list"])
def test_a_resumed_run_ends_in_the_same_numbers(tmp_path, name, kind):
    def data():
        made = batches(images(), batch_size=4, seed=1)
        return made if kind == "batches" else list(made)

    torch.manual_seed(0)
    train_step, state, ema = RUNS[name]()
    whole = fit(train_step, data(), 8, state=state, ema=ema)
    expected = all_weights(state)
    mean = ema and ema.module.state_dict()

    path = tmp_path / "run.safetensors"
    for steps in (3, 5, 8):  # 3 is the end of an epoch
        train_step, state, ema = RUNS[name]()
        torch.manual_seed(steps)  # another program ran in between
        if steps == 3:
            train_step, state, ema = RUNS[name]()
        history = fit(train_step, data(), steps, state=state, ema=ema, checkpoint=path)
    assert history.to_dict() == whole.to_dict()
    assert equal(expected, all_weights(state))
    assert mean is None or equal(mean, ema.module.state_dict())


def test_ctrl_c_saves_the_finished_step_and_the_run_goes_on_from_it(tmp_path):
    train_step, state, _ = one_network()
    whole = fit(train_step, batches(images(), batch_size=4), 7)
    path = tmp_path / "run.safetensors"
    train_step, state, _ = one_network()
    count = iter(range(1, 100))

    def interrupted(x):
        if next(count) == 4:
            signal.raise_signal(signal.SIGINT)
        return train_step(x)

    data = batches(images(), batch_size=4)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="after step 4"):
        fit(interrupted, data, 7, state=state, checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is before
    train_step, state, _ = one_network()
    data = batches(images(), batch_size=4)
    history = fit(train_step, data, 7, state=state, checkpoint=path)
    assert history.to_dict() == whole.to_dict()


def test_a_failed_run_keeps_the_checkpoint_before(tmp_path):
    path = tmp_path / "run.safetensors"
    model = nn.Linear(1, 1)
    count = iter(range(1, 100))

    def train_step(x):
        if next(count) == 4:
            nn.init.constant_(model.weight, float("nan"))
        return {"loss": 1.0}

    with pytest.raises(FloatingPointError, match="learning rate"):
        fit(train_step, [0], 9, state={"m": model}, checkpoint=path, save_every=2)
    again = nn.Linear(1, 1)
    fit(train_step, [0], 2, state={"m": again}, checkpoint=path)
    assert again.weight.isfinite().all()


@pytest.mark.parametrize("damage", ["cut", "foreign", "other parts", "other network"])
def test_a_checkpoint_that_does_not_fit_says_what_to_do(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    model = nn.Linear(2, 2)
    fit(lambda x: {"loss": 0.0}, [0], 2, state={"m": model}, checkpoint=path)
    state = {"m": nn.Linear(2, 2)}
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "foreign":
        save_weights(path, model, manifest=MANIFEST)
    elif damage == "other parts":
        state["optimizer"] = torch.optim.Adam(model.parameters())
    else:
        state["m"] = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="delete"):
        fit(lambda x: {"loss": 0.0}, [0], 4, state=state, checkpoint=path)


def test_what_cannot_be_saved_is_refused_before_the_first_step(tmp_path):
    path = tmp_path / "run.safetensors"

    def never(x):
        raise AssertionError("a step was made")

    with pytest.raises(ValueError, match="state="):
        fit(never, [0], 1, checkpoint=path)
    with pytest.raises(TypeError, match="state_dict"):
        fit(never, [0], 1, checkpoint=path, state={"images": torch.zeros(2)})
    with pytest.raises(ValueError, match="safetensors"):
        fit(never, [0], 1, checkpoint=tmp_path / "run.pt", state={"m": nn.Linear(1, 1)})
    assert not list(tmp_path.iterdir())


# --- what a person sees -----------------------------------------------------------


@pytest.fixture
def display(monkeypatch):
    """A front end: what stands in each output at the end, and every picture."""
    import IPython.display

    seen = types.SimpleNamespace(outputs=[], pictures=[], bars=[])

    def show(thing, display_id):
        number = len(seen.outputs)
        seen.outputs.append(thing)

        def update(thing, raw=False):
            seen.outputs[number] = thing

        return types.SimpleNamespace(update=update)

    def image(data, alt):
        seen.pictures.append(data)
        return data

    def html(text):
        seen.bars.append(text)
        return text

    monkeypatch.setattr(IPython.display, "HTML", html)
    monkeypatch.setattr(IPython.display, "Image", image)
    monkeypatch.setattr(IPython.display, "display", show)
    monkeypatch.setattr(training.runtime, "has_front_end", lambda: True)
    return seen


def test_without_a_front_end_nothing_is_printed_or_drawn(capsys, monkeypatch):
    monkeypatch.setattr(training.runtime, "has_front_end", lambda: False)

    def preview():
        raise AssertionError("nobody sees this")

    fit(lambda x: {"loss": 0.0}, [0], 3, preview=preview)
    assert capsys.readouterr() == ("", "")


def test_the_live_picture_changes_no_number_and_leaves_nothing(display):
    def run(preview):
        torch.manual_seed(0)
        return fit(
            lambda x: {"loss": torch.randn(())}, [0], 4, preview=preview
        ).to_dict()

    def preview():
        return (torch.rand(8, 12) * 255).to(torch.uint8)

    assert run(preview) == run(None)
    assert len(display.pictures) == 1  # at most twice a second
    assert display.pictures[0].startswith(b"\x89PNG")
    assert display.outputs == [{"text/plain": ""}] * 3  # bar, picture; bar


def test_the_bar_of_a_notebook_is_plain_html_with_a_name_and_the_losses(display):
    fit(lambda x: {"a<b": 0.25}, [0], 4, desc="five < six")
    first, then = display.bars  # at most twice a second
    assert 'aria-label="five &lt; six" max="4" value="0"' in first
    assert 'value="1"' in then and "1/4" in then and "a&lt;b 0.25" in then


def test_a_preview_that_is_no_uint8_picture_is_told_so(display):
    with pytest.raises(ValueError, match="uint8"):
        fit(lambda x: {"loss": 0.0}, [0], 1, preview=lambda: np.zeros((4, 4)))


# --- rates, EMA, precision, weights ------------------------------------------------


def test_linear_decay_holds_and_ends_at_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    schedule, rates = linear_decay(optimizer, 8), []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == [1.0] * 5 and rates[6] == pytest.approx(0.5)
    assert optimizer.param_groups[0]["lr"] == 0


def test_ema_is_the_weighted_mean_of_the_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, decay=0.9, warmup=False)
    nn.init.ones_(model.weight)
    for _ in range(3):
        ema.update()
    assert ema.module.weight.item() == pytest.approx(1 - 0.9**3)
    assert not ema.module.training
    assert not ema.module.weight.requires_grad


def test_ema_warmup_forgets_the_first_weights_sooner_and_copies_buffers():
    model = nn.BatchNorm1d(2)
    slow, soon = EMA(model, warmup=False), EMA(model)
    nn.init.constant_(model.weight, 5.0)
    model.running_mean.fill_(7.0)
    for ema in (slow, soon):
        ema.update()
    assert slow.module.weight[0].item() == pytest.approx(1 + 4 * 0.001)
    assert soon.module.weight[0].item() == pytest.approx(1 + 4 * (1 - 2 / 11))
    assert soon.module.running_mean.tolist() == [7, 7]
    with pytest.raises(ValueError, match=r"0\.999"):
        EMA(model, decay=1.0)


def test_autocast_changes_nothing_on_the_cpu():
    with autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_weights_return_bit_equal_with_their_manifest(tmp_path):
    path = tmp_path / "net.safetensors"
    model, other = network(0), network(1)
    written = save_weights(path, model, manifest=MANIFEST)
    first = path.read_bytes()
    manifest = load_weights(path, other)
    assert equal(model.state_dict(), other.state_dict())
    assert manifest == written
    assert manifest["class"] == "Sequential"
    assert manifest["metrics"] == MANIFEST["metrics"]
    save_weights(path, other, manifest=MANIFEST)
    assert path.read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


def test_shipped_weights_are_found_by_name_and_absent_ones_listed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("course_lib.checkpoints.WEIGHTS", tmp_path)
    save_weights(tmp_path / "small.safetensors", network(), manifest=MANIFEST)
    assert load_weights("small", network(1))["budget"] == "lab"
    with pytest.raises(FileNotFoundError, match="Shipped with the course: small"):
        load_weights("large", network())


@pytest.mark.parametrize(
    "damage", ["cut", "other bytes", "no manifest", "bad manifest"]
)
def test_weights_that_are_not_what_the_manifest_says_are_refused(tmp_path, damage):
    path = tmp_path / "net.safetensors"
    save_weights(path, network(), manifest=MANIFEST)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-4])
    elif damage == "other bytes":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no manifest":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("{}")
    with pytest.raises((ValueError, FileNotFoundError), match=r"save|manifest"):
        load_weights(path, network(1))


def test_weights_of_another_network_leave_this_one_as_it_was(tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, nn.Linear(2, 3), manifest={**MANIFEST, "arguments": {"n": 2}})
    model = nn.Linear(2, 4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"weight is \(3, 2\).*\(4, 2\).*Linear\(n=2\)"
    ):
        load_weights(path, model)
    assert equal(before, model.state_dict())
    with pytest.raises(ValueError, match="not in the file"):
        load_weights(path, nn.BatchNorm1d(3), strict=True)
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(path, nn.Sequential(nn.Linear(2, 3)), strict=False)


def test_loose_loading_leaves_additional_layers_alone(tmp_path):
    path = tmp_path / "net.safetensors"
    part = nn.ModuleDict({"body": nn.Linear(2, 2)})
    save_weights(path, part, manifest=MANIFEST)
    whole = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    head = whole["head"].weight.clone()
    load_weights(path, whole, strict=False)
    assert torch.equal(whole["body"].weight, part["body"].weight)
    assert torch.equal(whole["head"].weight, head)


def test_a_manifest_says_what_made_the_weights(tmp_path):
    with pytest.raises(ValueError, match="budget, seed, metrics"):
        save_weights(
            tmp_path / "net.safetensors",
            network(),
            manifest={"command": "x", "data": "phantom"},
        )
    assert not list(tmp_path.iterdir())


def test_an_empty_history_says_so():
    with pytest.raises(KeyError, match="nothing was recorded"):
        History()["loss"]
