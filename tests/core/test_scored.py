import pytest
import torch

from molhpft.core.objectives import Joint, Multilabel, ScoredByLoss, Squared
from tests.toy import NAN

JOINT = Joint(Multilabel(metric="ap"), Squared(), outputs=2, weight=0.5)
TARGETS = torch.tensor([[1, 0, 0.3], [NAN, NAN, -1.0], [0, NAN, NAN]])


@pytest.fixture
def logits(rng):
    return torch.randn(3, 3, generator=rng)


def test_the_score_is_minus_the_loss_of_the_whole_split(logits):
    scored = ScoredByLoss(JOINT)
    assert scored.metric == "neg_loss"
    assert scored.score(logits, TARGETS) == -JOINT.loss(logits, TARGETS).item()


def test_a_split_without_both_classes_has_a_score(logits):
    one_class = TARGETS[1:]
    with pytest.raises(ValueError, match="both positive and negative"):
        JOINT.score(logits[1:], one_class)
    assert ScoredByLoss(JOINT).score(logits[1:], one_class) < 0


def test_everything_else_is_that_of_the_objective(logits):
    scored = ScoredByLoss(JOINT)
    assert torch.equal(scored.loss(logits, TARGETS), JOINT.loss(logits, TARGETS))
    assert torch.equal(scored.residual(logits, TARGETS), JOINT.residual(logits, TARGETS))
    ours, theirs = (o.labels(TARGETS, outputs=2) for o in (scored, JOINT))
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert scored.smoothed(0.1) == ScoredByLoss(JOINT.smoothed(0.1))
