import torch

from molhpft.core.batch import Batch
from molhpft.core.heads import cosine_head, linear_head, mlp_head


def test_a_linear_head_is_affine(rng):
    head, z = linear_head(4, 3), torch.randn(2, 4, generator=rng)
    batch = Batch(z, torch.zeros(2))
    zero = head(torch.zeros(1, 4), batch)
    torch.testing.assert_close(head(3 * z, batch) - zero, 3 * (head(z, batch) - zero))


def test_an_mlp_head_has_the_hidden_width_it_is_given(rng):
    head = mlp_head(4, 3, hidden=7)
    assert [stage.width for stage in head] == [7, 3]
    z = torch.randn(2, 4, generator=rng)
    assert head(z, Batch(z, torch.zeros(2))).shape == (2, 3)


def test_a_cosine_head_sees_directions_only(rng):
    head, z = cosine_head(4, 3, scale=7.0), torch.randn(5, 4, generator=rng)
    batch = Batch(z, torch.zeros(5))
    torch.testing.assert_close(head(z, batch), head(3 * z, batch))
    assert head(z, batch).abs().max() <= 7.0


def test_a_cosine_head_gives_its_scale_to_a_feature_along_its_class():
    head = cosine_head(4, 3, scale=7.0)
    z = head.stages["cosine"].module.weight.detach()
    torch.testing.assert_close(head(z, Batch(z, torch.zeros(3))).diagonal(), torch.full((3,), 7.0))
