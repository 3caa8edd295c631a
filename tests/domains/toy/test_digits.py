import pytest
import torch
from safetensors.torch import save_file

from molhpft.core.network import Batch, Network, linear_head
from molhpft.domains.toy.digits import load_toy_mlp, toy_mlp, toy_pretrain_task, toy_task
from tests.domains.toy.test_pictures import write_mnist
from tests.toy import same_weights


@pytest.fixture(autouse=True)
def digits_only(monkeypatch, tmp_path):
    """Without MNIST beside the data folder, so that every test runs anywhere and fast."""
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path / "ogb"))


def pictures(task, split):
    """The pictures of a split, as bytes."""
    return [row.numpy().tobytes() for row in task.examples.inputs[task.rows(split)]]


def unchanged(**options):
    """The downstream task without turns and cuts."""
    return toy_task(degrees=0, crop=28, **{"per_class": 30, **options})


def test_names_say_whose_digits_they_are(tmp_path):
    path = write_mnist(tmp_path / "a.npz", train=600, test=60)
    names = [task.name for task in (toy_pretrain_task(mnist=path), toy_task(mnist=path))]
    assert names == ["toy_mnist_pretrain", "toy_mnist"]
    names = [task.name for task in (toy_pretrain_task(), toy_task(per_class=2))]
    assert names == ["toy_digits_pretrain", "toy_digits"]


def test_pretraining_tells_ten_digits_apart_in_every_split():
    task = toy_pretrain_task()
    assert task.outputs == 10
    for split in ("train", "valid", "test"):
        assert task.examples.targets[task.rows(split)].unique().tolist() == list(range(10))


def test_every_split_has_as_many_pictures_of_each_class():
    task = toy_task(per_class=17, classes=(3, 8, 9, 0))
    for split in ("train", "valid", "test"):
        assert task.examples.targets[task.rows(split)].bincount().tolist() == [17] * 4
    assert task.outputs == 4
    assert task.target_names == ("3", "8", "9", "0")


def test_a_label_is_the_place_of_the_digit_among_the_classes():
    source, task = toy_pretrain_task(), unchanged(classes=(7, 1))
    digit_of = dict(
        zip(
            (row.numpy().tobytes() for row in source.examples.inputs),
            source.examples.targets.tolist(),
            strict=True,
        )
    )
    shown = [digit_of[picture] for picture in pictures(task, "train")]
    assert shown == [(7, 1)[label] for label in task.examples.targets[task.rows("train")]]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_downstream_split_shows_pictures_of_the_same_split_of_pretraining(split):
    assert set(pictures(unchanged(), split)) <= set(pictures(toy_pretrain_task(), split))


def test_nothing_that_is_tested_on_was_trained_on():
    trained = set(pictures(toy_pretrain_task(), "train")) | set(pictures(unchanged(), "train"))
    assert not trained & set(pictures(unchanged(), "test"))
    assert not trained & set(pictures(unchanged(), "valid"))


def test_pixels_lie_between_paper_and_ink():
    inputs = toy_task(per_class=20).examples.inputs
    assert inputs.shape == (180, 784)
    assert inputs.min() == 0
    assert 0.9 < inputs.max() <= 1


def test_the_same_options_give_the_same_data():
    a, b = toy_task(per_class=5), toy_task(per_class=5)
    assert torch.equal(a.examples.inputs, b.examples.inputs)
    assert a.fingerprint == b.fingerprint


@pytest.mark.parametrize("option", [{"seed": 1}, {"degrees": 10.0}, {"crop": 25}, {"per_class": 6}])
def test_other_data_have_another_fingerprint(option):
    plain = {"per_class": 5}
    assert toy_task(**plain).fingerprint != toy_task(**{**plain, **option}).fingerprint


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"classes": (1,)}, r"two or more different digits of 0-9, got \[1\]"),
        ({"classes": (1, 1)}, r"different digits of 0-9, got \[1, 1\]"),
        ({"classes": (1, 10)}, r"digits of 0-9, got \[1, 10\]"),
        ({"per_class": 0}, "per_class is at least 1, got 0"),
        ({"degrees": 181.0}, r"degrees lie in \[0, 180\], got 181"),
        ({"degrees": float("nan")}, r"degrees lie in \[0, 180\], got nan"),
        ({"crop": 29}, "crop is a side of 1 to 28 pixels, got 29"),
    ],
)
def test_an_option_out_of_range_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        toy_task(**option)


def test_the_mlp_has_the_papers_shape():
    backbone = toy_mlp()
    assert backbone.names == ["layer0", "layer1", "layer2", "layer3"]
    assert [stage.width for stage in backbone] == [128] * 4
    assert [tuple(p.shape) for p in backbone.parameters() if p.ndim == 2] == [
        (128, 784),
        *[(128, 128)] * 3,
    ]


def test_features_of_the_mlp_are_rectified(rng):
    batch = Batch(torch.randn(20, 784, generator=rng), torch.zeros(20))
    assert (toy_mlp()(batch.inputs, batch) >= 0).all()


@pytest.mark.parametrize("at", ["layer0", "layer1", "layer2", "layer3"])
def test_the_mlp_can_be_cut_anywhere(at, rng):
    network = Network(toy_mlp(width=16), linear_head(16, 3))
    batch = Batch(torch.randn(4, 784, generator=rng), torch.zeros(4))
    assert torch.equal(network.cut(at)(batch), network(batch))


def saved(path, **options):
    network = Network(toy_mlp(**options), linear_head(options["width"], 3))
    save_file(network.state_dict(), path)
    return network.backbone


def test_an_encoder_comes_back_from_the_model_of_a_run(tmp_path):
    backbone, other = saved(tmp_path / "m.safetensors", width=16), toy_mlp(width=16)
    load_toy_mlp(other, tmp_path / "m.safetensors")
    assert same_weights(backbone, other)


@pytest.mark.parametrize("options", [{"width": 8}, {"width": 16, "layers": 3}])
def test_an_encoder_of_another_size_is_refused_and_changes_nothing(tmp_path, options):
    saved(tmp_path / "m.safetensors", **options)
    backbone = toy_mlp(width=16)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=r"should hold a toy_mlp of this size; stages\.layer"):
        load_toy_mlp(backbone, tmp_path / "m.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
