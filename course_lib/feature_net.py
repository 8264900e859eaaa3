"""The network of the course's feature extractors."""

from torch import Tensor, nn

DIM = 64


class FeatureNet(nn.Module):
    """Small convolutional classifier with 64 features; 47 thousand weights.

    `facts` further outputs are learned by regression: what a class does not tell. With
    no classes it has features only.
    """

    def __init__(self, classes: int, facts: int = 0, channels: int = 1, size: int = 32):
        super().__init__()
        layers, width, stride = [], channels, 1 if size < 48 else 2
        for out in (16, 32, 48, DIM):
            conv = nn.Conv2d(width, out, 3, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
            width, stride = out, 2
        self.body = nn.Sequential(*layers)
        # Each feature has mean 0 and variance 1 on the training images, so that a
        # distance does not hang on the scale that the last layer happened to take.
        self.scale = nn.BatchNorm1d(DIM, affine=False)
        self.classifier = nn.Linear(DIM, classes) if classes else None
        self.regressor = nn.Linear(DIM, facts) if facts else None

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, 64)."""
        return self.scale(self.body(images).mean(dim=(2, 3)))

    def logits(self, features: Tensor) -> Tensor:
        """(N, 64) -> (N, classes)."""
        return self.classifier(features)
