"""Training in two processes under torchrun: the same as one with the joint batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from torch import nn

from course_lib.bootstrap import ROOT
from course_lib.training import fit

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun has no loopback store on Windows"
)


def train(folder, *, seed=0, steps=3):
    """Three steps of a small GAN-like pair; saves gradients, weights and losses."""
    rank = os.environ.get("RANK", "0")
    torch.manual_seed(seed)
    networks = nn.ModuleList([nn.Linear(6, 4), nn.Linear(4, 3)])
    optimizers = [torch.optim.Adam(net.parameters(), 1e-2) for net in networks]
    data = [torch.randn(8, 6) for _ in range(3)]
    noise, gradients = [], []

    def train_step(batch):
        x, y = batch
        noise.append(torch.rand(1).item())
        for network, optimizer in zip(networks, optimizers, strict=True):  # as in a GAN
            loss = (networks[1](networks[0](x).tanh()) - y).square().mean()
            networks.zero_grad()
            loss.backward()
            optimizer.step()
            gradients.extend(p.grad.clone() for p in network.parameters())
        return {"loss": loss, "spread": x.mean()}

    batches = [(x, x[:, :3] * 2) for x in data]
    checkpoint = folder / f"checkpoint{rank}.safetensors"
    history = fit(
        train_step,
        batches,
        steps,
        state={"networks": networks},
        checkpoint=checkpoint,
    )
    result = {
        "gradients": gradients,
        "weights": list(networks.parameters()),
        "losses": {name: torch.tensor(history[name]) for name in history},
        "noise": noise,
        "after": torch.rand(2),
        "checkpoint": checkpoint.stat().st_size,
    }
    torch.save(result, folder / f"rank{rank}.pt")


def torchrun(program, *arguments):
    """Run a program in two processes on loopback; its exit code and what it said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(program), *map(str, arguments)]
    paths = [str(ROOT), str(Path(__file__).parent)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "COURSE_DEVICE": "cpu",
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=3600
    )
    return done.returncode, done.stdout + done.stderr


def loaded(folder, rank):
    return torch.load(folder / f"rank{rank}.pt", weights_only=True)


def test_two_processes_make_the_gradients_of_one_with_the_joint_batch(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom test_torchrun import train\n"
        "train(Path(sys.argv[1]))\n"
    )
    code, said = torchrun(program, tmp_path)
    assert code == 0, said
    first, second = loaded(tmp_path, 0), loaded(tmp_path, 1)
    (tmp_path / "alone").mkdir()
    train(tmp_path / "alone")
    alone = loaded(tmp_path / "alone", 0)
    for name in ("gradients", "weights"):
        for a, b, c in zip(first[name], second[name], alone[name], strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-6)
    for name in ("loss", "spread"):
        torch.testing.assert_close(
            first["losses"][name], alone["losses"][name], rtol=1e-5, atol=1e-6
        )
    assert first["noise"] != second["noise"]  # each draws its own
    assert torch.equal(first["after"], second["after"])  # and then they agree again
    assert first["checkpoint"] > second["checkpoint"]  # the first one alone saves


def test_networks_that_differ_at_the_start_are_an_error(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom test_torchrun import train\n"
        "train(Path(sys.argv[1]), seed=int(os.environ['RANK']))\n"
    )
    code, said = torchrun(program, tmp_path)
    assert code and "the networks differ between the processes" in said


def test_lessons_run_under_torchrun_one_after_the_other(tmp_path):
    (tmp_path / "notebooks").mkdir()
    code = (
        "import os, sys, torch\n"
        "from course_lib.runtime import report\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_torchrun import train, loaded\n"
        "folder = Path(f'" + str(tmp_path) + "/{LESSON}')\n"
        "folder.mkdir(exist_ok=True)\ntrain(folder)\n"
        "report(loss=loaded(folder, os.environ['RANK'])['losses']['loss'][-1])"
    )
    parameters = new_code_cell(
        "budget = 'smoke'\nseed = 0", metadata={"tags": ["parameters"]}
    )
    for name in ("90_first", "91_second"):
        cells = [new_markdown_cell("# A title"), parameters]
        cells.append(new_code_cell(code.replace("{LESSON}", name)))
        notebook = new_notebook(cells=cells)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata["kernelspec"] = kernel
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    out = tmp_path / "build"
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom course_lib import runner\n"
        f"runner.ROOT = Path({str(tmp_path)!r})\n"
        f"sys.exit(runner.run([], out={str(out)!r}, budget='full'))\n"
    )
    code, said = torchrun(program)
    assert code == 0, said
    cards = [json.loads(path.read_text()) for path in (out / "cards").glob("*.json")]
    assert len(cards) == 2 and {card["status"] for card in cards} == {"passed"}
    (tmp_path / "alone").mkdir()
    train(tmp_path / "alone")
    expected = float(loaded(tmp_path / "alone", 0)["losses"]["loss"][-1])
    for card in cards:
        assert card["numbers"]["loss"] == pytest.approx(expected, rel=1e-5)
        assert card["threads"] == 1
