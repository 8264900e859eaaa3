"""What stands beside every data set: where it is from, whose it is, what is in it."""

from __future__ import annotations

import dataclasses
import hashlib
import html
from dataclasses import dataclass

import numpy as np

NOT_CLINICAL = "Not for clinical use."
UNKNOWN = "not known: see whoever gave you the files"

_MODALITIES = {
    "pathmnist": "histology of the colon, H&E",
    "chestmnist": "chest X-ray",
    "dermamnist": "dermatoscopy",
    "octmnist": "optical coherence tomography of the retina",
    "pneumoniamnist": "chest X-ray, children",
    "retinamnist": "fundus photography",
    "breastmnist": "breast ultrasound",
    "bloodmnist": "microscopy of blood cells",
    "tissuemnist": "fluorescence microscopy of kidney cortex",
    "organamnist": "abdominal CT, axial",
    "organcmnist": "abdominal CT, coronal",
    "organsmnist": "abdominal CT, sagittal",
    "organmnist3d": "abdominal CT",
    "nodulemnist3d": "chest CT",
    "adrenalmnist3d": "shape masks from abdominal CT",
    "fracturemnist3d": "chest CT",
    "vesselmnist3d": "shapes of brain vessels from MR angiography",
    "synapsemnist3d": "electron microscopy, adult rat",
}


@dataclass(frozen=True, repr=False)
class Card:
    """Source, licence and content of one split of a data set. `shape` is (N, C, H, W).

    `counts` are images per class (for several labels an image: positives per label);
    `fingerprint` is a hash of labels and of up to 4,096 evenly spaced images.
    """

    name: str
    split: str
    modality: str
    task: str
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    counts: dict[str, int]
    source: str
    licence: str
    citation: str
    note: str = NOT_CLINICAL
    fingerprint: str = ""

    def to_dict(self) -> dict:
        """The card as plain types, ready for JSON."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}

    def _rows(self) -> dict[str, str]:
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        return {
            "Images": " × ".join(f"{length:,}" for length in self.shape),
            "Modality": self.modality,
            "Task": self.task,
            "Classes": counts,
            "Source": self.source,
            "Licence": self.licence,
            "Cite": self.citation,
            "Note": self.note,
            "Fingerprint": self.fingerprint,
        }

    def __str__(self) -> str:
        rows = [f"{key.lower():12}{value}" for key, value in self._rows().items()]
        return "\n".join([f"{self.name}, {self.split}", *rows])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # Grey lines and no background: readable on a light and on a dark page.
        line = "border-top:1px solid rgba(128,128,128,.35);vertical-align:top;"
        cell = f"{line}padding:.3em .8em;text-align:left;color:inherit"
        rows = "".join(
            f'<tr style="background:none"><th scope="row" style="{cell}">{key}</th>'
            f'<td style="{cell};white-space:normal">{html.escape(value)}</td></tr>'
            for key, value in self._rows().items()
        )
        return (
            '<table style="border-collapse:collapse;max-width:46em;color:inherit">'
            '<caption style="caption-side:top;text-align:left;font-weight:bold;'
            f'padding:.3em .8em;color:inherit">{html.escape(self.name)}, '
            f"{html.escape(self.split)}</caption>{rows}</table>"
        )


def phantom_facts() -> dict[str, str]:
    """Source, licence and the rest of the card of the built-in phantom."""
    return {
        "modality": "simulated brain MR and CT",
        "task": "multi-class, with lesion masks",
        "source": "Simulated from the ICBM 2009a nonlinear symmetric template, "
        "as it comes with nilearn.",
        "licence": "Template: copyright Louis Collins, McConnell Brain Imaging Centre, "
        "Montreal Neurological Institute, McGill University; free to use with this "
        "notice kept.",
        "citation": "Fonov et al. 2011, NeuroImage 54(1), "
        "https://doi.org/10.1016/j.neuroimage.2010.07.033",
        "note": f"Simulated, not patient data. {NOT_CLINICAL}",
    }


def medmnist_facts(flag: str, record: dict) -> dict[str, str]:
    """Source, licence and the rest of the card of a MedMNIST set, from its record."""
    text = record["description"]
    notes = []
    if flag == "dermamnist":
        notes.append(
            "The licence forbids commercial use. Images of one lesion stand in several "
            "splits (Abhishek et al. 2024, arXiv 2401.14497)."
        )
    if "multi-label" in record["task"]:
        notes.append("Several findings can be present: labels are (N, L) of 0 and 1.")
    return {
        "modality": _MODALITIES.get(flag, "see source"),
        "task": record["task"],
        "source": f"MedMNIST v2, https://medmnist.com. {text.split('. ')[0]}.",
        "licence": record["license"],
        "citation": "Yang et al. 2023, Scientific Data 10:41, "
        "https://doi.org/10.1038/s41597-022-01721-8",
        "note": " ".join([*notes, NOT_CLINICAL]),
    }


def file_facts(kind: str) -> dict[str, str]:
    """The card's fields for a person's own files, of which nothing is known."""
    return {
        "modality": "see source",
        "task": "classification",
        "source": kind,
        "licence": UNKNOWN,
        "citation": UNKNOWN,
        "note": "Make sure that nobody can be recognised, and that you may use it. "
        + NOT_CLINICAL,
    }


def count_classes(labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, int]:
    """Images per class; labels (N,), or (N, L) of 0 and 1 for several per image."""
    if labels.ndim == 2:
        counts = (labels > 0).sum(axis=0)
    else:
        counts = np.bincount(labels, minlength=len(class_names))
    return {name: int(count) for name, count in zip(class_names, counts, strict=True)}


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
    """Twelve hex digits of SHA-256 over shape, labels and up to 4,096 images."""
    last = len(images) - 1
    chosen = np.linspace(0, last, min(len(images), 4096), dtype=int)
    digest = hashlib.sha256(repr((images.shape, labels.shape)).encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    for index in chosen:
        digest.update(np.ascontiguousarray(images[index]).tobytes())
    return digest.hexdigest()[:12]
