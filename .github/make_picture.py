"""Make `.github/course.png`, the picture of the README, from the built-in phantom."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from course_lib.phantoms import CLASS_NAMES, CONTRASTS, make_phantom

SIZE = 96


def main() -> None:
    """One subject of each class, in every contrast, the lesion outlined on FLAIR."""
    phantom = make_phantom("test", SIZE, n=120)
    chosen = []
    for label in range(len(CLASS_NAMES)):
        area = phantom.lesion_mask.sum((1, 2)) * (phantom.labels == label)
        area = area + (phantom.labels == label)  # no lesion: the first of its class
        chosen.append(int(area.argmax()))
    figure, axes = plt.subplots(
        len(chosen),
        len(CONTRASTS),
        figsize=(len(CONTRASTS) * 1.9, len(chosen) * 1.9),
        gridspec_kw={"wspace": 0.03, "hspace": 0.03},
    )
    for axis, contrast in zip(axes[0], CONTRASTS, strict=True):
        axis.set_title(contrast, fontsize=12)
    for line, index in zip(axes, chosen, strict=True):
        for axis, contrast in zip(line, CONTRASTS, strict=True):
            axis.imshow(phantom.images[contrast][index], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
            if contrast == "FLAIR" and phantom.lesion_mask[index].any():
                mask = phantom.lesion_mask[index]
                axis.contour(mask, levels=[0.5], colors="#E69F00", linewidths=1)
        line[0].set_ylabel(CLASS_NAMES[phantom.labels[index]], fontsize=11)
    path = Path(__file__).with_name("course.png")
    figure.savefig(path, dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main()
