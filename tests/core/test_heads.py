import pytest
import torch

from molhpft.core.network import Batch, cosine_head, linear_head, mlp_head


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


def test_stages_of_a_head_have_the_names_that_files_have_for_them():
    names = [head(4, 3).names for head in (linear_head, mlp_head, cosine_head)]
    assert names == [["linear"], ["hidden", "linear"], ["cosine"]]
    assert [head(4, 3).width for head in (linear_head, mlp_head, cosine_head)] == [3, 3, 3]


def test_an_mlp_head_has_256_hidden_units_with_a_relu_as_in_the_paper(rng):
    head, z = mlp_head(4, 3), torch.randn(50, 4, generator=rng)
    batch = Batch(z, torch.zeros(50))
    assert head.named_stages()["hidden"].width == 256
    hidden = head.named_stages()["hidden"](z, batch)
    assert hidden.shape == (50, 256)
    assert hidden.min() == 0


def test_class_vectors_of_a_cosine_head_start_at_about_unit_length_and_its_scale_at_ten():
    torch.manual_seed(0)
    cosine = cosine_head(400, 30).stages["cosine"].module
    torch.testing.assert_close(cosine.weight.norm(dim=1), torch.ones(30), rtol=0.2, atol=0)
    assert cosine.log_scale.exp().item() == pytest.approx(10.0)
    assert cosine.log_scale.requires_grad
