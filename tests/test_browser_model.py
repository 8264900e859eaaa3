"""A decoder exported for the browser equals the torch module, or is refused by name."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import autoencoders, browser_model, gans, variational

GREY = 2 / 255  # one grey level of an image in [-1, 1]


def warmed_up(module, *shape):
    """Statistics and scales that a training could have left, so that norms count."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    module.train()
    for _ in range(20):
        module(torch.randn(32, *shape))
    return module.eval()


def both(module, latent_dim, n=6):
    codes = torch.randn(n, latent_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(codes).numpy()
    found = browser_model.run(browser_model.export(module, latent_dim), codes.numpy())
    return expected, found


@pytest.mark.parametrize(
    ("make", "latent_dim"),
    [
        (lambda: autoencoders.Decoder(8, 8, 32), 8),
        (lambda: autoencoders.Decoder(2, 8, 28), 2),
        (lambda: autoencoders.Decoder(8, 8, 64, channels=3), 8),
        (lambda: gans.Generator(16, 8, 32), 16),
        (lambda: variational.mlp_vae(4, 32, 16).decoder, 4),
    ],
)
def test_the_courses_decoders_come_out_within_a_grey_level(make, latent_dim):
    module = warmed_up(make(), latent_dim)
    expected, found = both(module, latent_dim)
    assert found.shape == expected.shape and expected.std() > 0.05
    assert np.abs(found - expected).mean() < 0.5 * GREY
    assert np.quantile(np.abs(found - expected), 0.99) < 2 * GREY


def test_weights_that_8_bits_can_hold_come_out_exactly():
    whole = nn.Sequential(
        nn.Linear(2, 12),
        nn.Unflatten(1, (3, 2, 2)),
        nn.ConvTranspose2d(3, 1, 5, stride=3, padding=2),
    )
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.copy_(torch.randint(-127, 128, parameter.shape) / 64)
        whole[0].weight[:, 0] = whole[2].weight[0, :, 0, 0] = 127 / 64
    expected, found = both(whole, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.LeakyReLU(0.2), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.Identity()],
)
def test_each_activation_is_that_of_torch(activation):
    lift = nn.Linear(3, 9)
    module = nn.Sequential(lift, activation, nn.Unflatten(1, (1, 3, 3)))
    expected, found = both(module, 3)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_norm_after_the_linear_layer_or_after_unflatten_is_folded():
    for norm in (
        (nn.BatchNorm1d(12), nn.Unflatten(1, (3, 2, 2))),
        (nn.Unflatten(1, (3, 2, 2)), nn.BatchNorm2d(3)),
    ):
        module = nn.Sequential(nn.Linear(4, 12), *norm)
        expected, found = both(warmed_up(module, 4), 4)
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_module_in_train_mode_is_exported_as_it_is_in_eval_mode():
    module = warmed_up(autoencoders.Decoder(4, 4, 16), 4)
    before = browser_model.export(module, 4)
    assert browser_model.export(module.train(), 4) == before
    assert module.training


def test_the_description_is_json_and_the_bytes_are_a_quarter_of_the_weights():
    module = autoencoders.Decoder(16, 24, 32)
    model = browser_model.export(module, 16)
    description = json.loads(json.dumps(model.description()))
    assert description["shape"] == [1, 32, 32]
    ops = [layer["op"] for layer in description["layers"]]
    assert ops[:3] == ["linear", "unflatten", "silu"] and ops[-1] == "tanh"
    assert len(model.data) < 1.2 * sum(p.numel() for p in module.parameters())


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, z):
        return self.second(self.first(z)) + z


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.GELU()), r"1: the browser cannot run GELU"),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)), "0: a batch norm must"),
        (Skip(), "a chain of layers only, not .*add"),
        (gans.Generator(4, 4, 16, num_classes=2), "a chain of layers only"),
        (nn.Sequential(nn.Linear(4, 4)), r"the decoder makes \(4,\)"),
        (
            nn.Sequential(
                nn.Linear(4, 8),
                nn.Unflatten(1, (2, 2, 2)),
                nn.ConvTranspose2d(2, 2, 2, groups=2),
            ),
            "without groups",
        ),
    ],
)
def test_what_it_cannot_carry_is_named(module, message):
    with pytest.raises(ValueError, match=message):
        browser_model.export(module, 4)


def test_codes_of_another_length_are_refused():
    model = browser_model.export(autoencoders.Decoder(4, 4, 16), 4)
    with pytest.raises(ValueError, match=r"expected codes \(N, 4\), got \(2, 5\)"):
        browser_model.run(model, np.zeros((2, 5)))
