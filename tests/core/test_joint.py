import pytest
import torch

from molhpft.core.objectives import Joint, Multilabel, Squared
from tests.toy import NAN

JOINT = Joint(Multilabel(), Squared(), outputs=2, weight=0.5)
TARGETS = torch.tensor([[1, 0, 0.3], [NAN, NAN, -1.0], [0, 1, NAN]])


@pytest.fixture
def logits(rng):
    return torch.randn(3, 3, generator=rng)


def test_the_loss_is_the_weighted_sum(logits):
    main = Multilabel().loss(logits[:, :2], TARGETS[:, :2])
    kept = Squared().loss(logits[:, 2:], TARGETS[:, 2:])
    torch.testing.assert_close(JOINT.loss(logits, TARGETS), main + 0.5 * kept)


def test_energy_and_score_are_those_of_the_main_objective(logits):
    a, y = logits[:, :2], TARGETS[:, :2]
    assert torch.equal(JOINT.residual(logits, TARGETS), Multilabel().residual(a, y))
    labels = Multilabel().labels(y, outputs=2)
    torch.testing.assert_close(JOINT.labels(TARGETS, outputs=2), labels, equal_nan=True)
    assert JOINT.score(logits, TARGETS) == Multilabel().score(a, y)
    assert JOINT.metric == "rocauc"


def test_smoothing_is_for_the_main_objective():
    assert JOINT.smoothed(0.2) == Joint(Multilabel(smoothing=0.2), Squared(), 2, 0.5)
