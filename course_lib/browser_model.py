"""A decoder in a form that a browser can run: a description, and bytes.

`explorer.js` carries the interpreter that a person meets; `run` below is the same in
NumPy, so that tests can hold it against the torch module. Weights are 8-bit integers
with one scale for each output row: a quarter of the bytes, and about one grey level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

ACTIVATIONS = ("relu", "leaky_relu", "silu", "tanh", "sigmoid")


@dataclass(frozen=True)
class BrowserModel:
    """A chain of layers from codes (N, latent_dim) to images (N, *shape).

    `layers`: what is done, in order; numbers that end in `_at` are places in `data`,
    in bytes. First stand all scales and biases (float32), then all weights (int8):
    linear (out, in), transposed convolution (out, in, kernel, kernel).
    """

    latent_dim: int
    shape: tuple[int, int, int]
    layers: tuple[dict[str, Any], ...]
    data: bytes

    def description(self) -> dict[str, Any]:
        """What JSON can carry: all but the bytes."""
        return {
            "latent_dim": self.latent_dim,
            "shape": list(self.shape),
            "layers": [dict(layer) for layer in self.layers],
        }


def export(decoder: nn.Module, latent_dim: int) -> BrowserModel:
    """What `decoder` computes in eval mode, for the browser.

    decoder: (N, latent_dim) -> (N, C, H, W), one chain of linear layers, transposed
    convolutions, batch norms (folded into the layer before), activations and
    unflatten. Raises ValueError, with the name of the layer, on anything else.
    """
    steps = _fold_norms([_read(name, layer) for name, layer in _chain(decoder)])
    shape: tuple[int, ...] = (latent_dim,)
    layers: list[dict[str, Any]] = []
    floats: list[np.ndarray] = []
    integers: list[np.ndarray] = []
    for step in steps:
        shape = _shape_after(step, shape)
        layer = {key: x for key, x in step.items() if not isinstance(x, np.ndarray)}
        layer["shape"] = list(shape)
        if "weight" in step:
            rows, scale = _to_int8(step["weight"])
            layer["scale_at"] = 4 * sum(x.size for x in floats)
            floats.append(scale)
            layer["bias_at"] = 4 * sum(x.size for x in floats)
            floats.append(step["bias"].astype("<f4"))
            layer["weight_at"] = sum(x.size for x in integers)  # + the floats, below
            integers.append(rows)
        layers.append(layer)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"the decoder makes {shape}; the browser draws images (1, H, W) or "
            "(3, H, W)"
        )
    start = 4 * sum(x.size for x in floats)
    for layer in layers:
        if "weight_at" in layer:
            layer["weight_at"] += start
    data = b"".join(x.tobytes() for x in (*floats, *integers))
    return BrowserModel(latent_dim, shape, tuple(layers), data)


def run(model: BrowserModel, codes: np.ndarray) -> np.ndarray:
    """What the browser computes. (N, latent_dim) -> float32 (N, C, H, W)."""
    x = np.asarray(codes, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != model.latent_dim:
        raise ValueError(f"expected codes (N, {model.latent_dim}), got {x.shape}")
    for layer in model.layers:
        x = _APPLY[layer["op"]](model, layer, x)
    return x


# --- from a module to a chain of layers ----------------------------------------------


def _chain(decoder: nn.Module) -> list[tuple[str, nn.Module]]:
    """[(name, layer)] in the order in which `decoder` calls them, each fed the last."""
    import torch.fx

    try:
        graph = torch.fx.symbolic_trace(decoder).graph
    except Exception as error:
        raise ValueError(
            f"{type(decoder).__name__} is no plain chain of layers: {error}"
        ) from error
    modules = dict(decoder.named_modules())
    chain, last = [], None
    for node in graph.nodes:
        if node.op == "placeholder":
            # an argument that nobody uses, such as labels=None, does no harm
            last = node if last is None else last
        elif node.op == "call_module" and node.args == (last,) and not node.kwargs:
            chain.append((str(node.target), modules[str(node.target)]))
            last = node
        elif node.op != "output" or node.args[0] is not last:
            raise ValueError(
                f"the browser can carry a chain of layers only, not `{node.target}` "
                f"in {type(decoder).__name__}"
            )
    return chain


def _read(name: str, layer: nn.Module) -> dict[str, Any] | None:
    """One layer as plain values and float64 arrays; None where it does nothing."""
    from torch import nn

    def array(tensor: Any, default: Any = None) -> np.ndarray:
        return default if tensor is None else tensor.detach().cpu().double().numpy()

    if isinstance(layer, nn.Identity | nn.Dropout):
        return None
    if isinstance(layer, nn.Linear):
        zero = np.zeros(layer.out_features)
        return {
            "op": "linear",
            "weight": array(layer.weight),
            "bias": array(layer.bias, zero),
        }
    if isinstance(layer, nn.ConvTranspose2d):
        square = all(
            len(set(x)) == 1 for x in (layer.kernel_size, layer.stride, layer.padding)
        )
        plain = layer.groups == 1 and layer.dilation == (1, 1)
        if not square or not plain or layer.output_padding != (0, 0):
            raise ValueError(
                f"{name}: {layer}: only square kernels, without groups, dilation and "
                "output padding"
            )
        return {
            "op": "conv_transpose",
            "kernel": layer.kernel_size[0],
            "stride": layer.stride[0],
            "padding": layer.padding[0],
            "weight": array(layer.weight).swapaxes(0, 1),  # (in, out, ...) -> out first
            "bias": array(layer.bias, np.zeros(layer.out_channels)),
        }
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        if layer.running_var is None:
            raise ValueError(f"{name}: a batch norm without running statistics")
        gain = 1 / np.sqrt(array(layer.running_var) + layer.eps)
        gain = gain * array(layer.weight, 1.0)
        shift = array(layer.bias, 0.0) - array(layer.running_mean) * gain
        return {"op": "norm", "name": name, "gain": gain, "shift": shift}
    if isinstance(layer, nn.Unflatten):
        return {"op": "unflatten", "to": [int(n) for n in layer.unflattened_size]}
    kinds = {nn.ReLU: "relu", nn.SiLU: "silu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
    if type(layer) in kinds:
        return {"op": kinds[type(layer)]}
    if isinstance(layer, nn.LeakyReLU):
        return {"op": "leaky_relu", "slope": float(layer.negative_slope)}
    raise ValueError(
        f"{name}: the browser cannot run {layer}; it knows Linear, ConvTranspose2d, "
        "BatchNorm, Unflatten, ReLU, LeakyReLU, SiLU, Tanh and Sigmoid"
    )


def _fold_norms(steps: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Batch norm in eval mode is gain * x + shift: put it into the weights before."""
    folded: list[dict[str, Any]] = []
    for step in filter(None, steps):
        if step["op"] != "norm":
            folded.append(step)
            continue
        before = [x for x in folded if x["op"] != "unflatten"][-1:]
        if not before or "weight" not in before[0]:
            raise ValueError(
                f"{step['name']}: a batch norm must follow a linear layer or a "
                "transposed convolution, whose weights can take it up"
            )
        (layer,) = before
        each = len(layer["bias"]) // len(step["gain"])  # places of one channel
        gain, shift = (np.repeat(step[key], each) for key in ("gain", "shift"))
        rows = gain.reshape(-1, *[1] * (layer["weight"].ndim - 1))
        layer["weight"] = layer["weight"] * rows
        layer["bias"] = layer["bias"] * gain + shift
    return folded


def _shape_after(step: dict[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    if step["op"] == "unflatten":
        to = tuple(step["to"])
        if math.prod(to) != math.prod(shape):
            raise ValueError(f"cannot unflatten {shape} to {to}")
        return to
    if "weight" not in step:
        return shape
    weight = step["weight"]
    if weight.shape[1] != shape[0]:
        raise ValueError(f"a {step['op']} for {weight.shape[1]} inputs met {shape}")
    if step["op"] == "linear":
        return (weight.shape[0],)
    sides = [
        (side - 1) * step["stride"] - 2 * step["padding"] + step["kernel"]
        for side in shape[1:]
    ]
    return (weight.shape[0], *sides)


def _to_int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int8 rows, float32 scale of each row): weight = scale * rows, nearly."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scale = np.where(largest > 0, largest / 127, 1.0).astype("<f4")
    rows = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.rint(rows).astype(np.int8), scale


# --- the interpreter -----------------------------------------------------------------


def _weights(model: BrowserModel, layer: dict[str, Any], *sizes: int) -> np.ndarray:
    """The layer's weights as float32, (out, *sizes)."""
    out = layer["shape"][0]
    count = out * math.prod(sizes)
    rows = np.frombuffer(model.data, np.int8, count, layer["weight_at"])
    scale = np.frombuffer(model.data, "<f4", out, layer["scale_at"])
    return rows.reshape(out, *sizes) * scale.reshape(-1, *[1] * len(sizes))


def _bias(model: BrowserModel, layer: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(model.data, "<f4", layer["shape"][0], layer["bias_at"])


def _linear(model: BrowserModel, layer: dict[str, Any], x: np.ndarray) -> np.ndarray:
    return x @ _weights(model, layer, x.shape[1]).T + _bias(model, layer)


def _unflatten(model: BrowserModel, layer: dict[str, Any], x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), *layer["to"])


def _conv_transpose(
    model: BrowserModel, layer: dict[str, Any], x: np.ndarray
) -> np.ndarray:
    """Each input pixel adds its kernel to the output; the padding is cut off."""
    k, s, p = layer["kernel"], layer["stride"], layer["padding"]
    n, c_in, high, wide = x.shape
    weight = _weights(model, layer, c_in, k, k)
    whole = np.zeros(
        (n, len(weight), (high - 1) * s + k, (wide - 1) * s + k), np.float32
    )
    for i in range(k):
        for j in range(k):
            rows, columns = slice(i, i + s * high, s), slice(j, j + s * wide, s)
            part = np.einsum("nchw,oc->nohw", x, weight[:, :, i, j])
            whole[:, :, rows, columns] += part
    high, wide = layer["shape"][1:]
    return (
        whole[:, :, p : p + high, p : p + wide]
        + _bias(model, layer)[None, :, None, None]
    )


def _activation(
    model: BrowserModel, layer: dict[str, Any], x: np.ndarray
) -> np.ndarray:
    if layer["op"] == "relu":
        return np.maximum(x, 0)
    if layer["op"] == "leaky_relu":
        return np.where(x > 0, x, np.float32(layer["slope"]) * x)
    if layer["op"] == "tanh":
        return np.tanh(x)
    sigmoid = 0.5 * (1 + np.tanh(0.5 * x))  # cannot overflow
    return x * sigmoid if layer["op"] == "silu" else sigmoid


_APPLY = {
    "linear": _linear,
    "unflatten": _unflatten,
    "conv_transpose": _conv_transpose,
    **dict.fromkeys(ACTIVATIONS, _activation),
}
