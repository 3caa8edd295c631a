"""A user's few words become the config of a run: weights are recognised, keys checked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from molhpft.config.registry import ENCODERS
from molhpft.config.schema import Choice, resolved
from molhpft.domains.weights import shipped_encoders
from molhpft.estimator.sklearn import IN_MEMORY, settings
from tests.estimator.models import ENCODER, random_model

PUBLIC = "weights/gcn_supervised_contextpred.pth"


def config(**changes):
    given = {"encoder": {"name": "gcn"}, "tau": 3, "head": "linear", "seed": 0, "more": {}}
    return settings(**given | changes)


def loads(encoder):
    """Whether the encoder that was recognised takes its own weights, all of them."""
    options = dict(encoder.options)
    weights = options.pop("weights")
    backbone = ENCODERS[encoder.name].build(**options)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    ENCODERS[encoder.name].load(backbone, weights)
    after = backbone.state_dict().items()
    return all(not tensor.equal(before[n]) for n, tensor in after if n.endswith("linear.weight"))


@pytest.mark.parametrize("name", shipped_encoders())
def test_a_shipped_encoder_is_recognised_by_its_name(name):
    found = config(encoder=name).encoder
    assert found.options["weights"] == Path(name)
    assert loads(found)


def test_a_public_checkpoint_is_recognised(ogb_root):
    path = ogb_root.parent / PUBLIC
    if not path.is_file():
        pytest.skip(f"no public checkpoint at {path}")
    found = config(encoder=path).encoder
    assert found.name == "gcn_pretrain_gnns"
    assert (found.options["layers"], found.options["width"]) == (5, 300)
    assert loads(found)


def test_the_weights_of_a_run_are_recognised(trained):
    _, folder = trained
    found = config(encoder=str(folder.path / "model.safetensors")).encoder
    assert found.name == "gcn"
    assert (found.options["layers"], found.options["width"]) == (2, 8)
    assert loads(found)


@pytest.mark.parametrize("encoder", [{}, {"virtual_node": True}, {"name": "gcn_pretrain_gnns"}])
def test_a_model_is_recognised_by_its_folder(tmp_path, encoder):
    random_model(encoder=encoder).save_pretrained(tmp_path)
    found = config(encoder=tmp_path).encoder
    assert found.name == (ENCODER | encoder)["name"]
    assert loads(found)


def test_keys_of_an_encoder_are_taken_as_they_are_and_mean_random_weights():
    found = config(encoder={"name": "gcn", "layers": 2, "virtual_node": True}).encoder
    assert (found.options["layers"], found.options["virtual_node"]) == (2, True)
    assert found.options["weights"] is None


@pytest.mark.parametrize(
    ("tau", "means"), [(3, (3,)), ((0, 4), (0, 4)), ([0, 4], (0, 4)), ("auto", "auto")]
)
def test_taus_are_one_or_several_or_auto(tau, means):
    found = config(tau=tau).method
    assert (found.name, found.options["tau"]) == ("hp_ft", means)


def test_further_keys_are_those_of_a_config():
    found = config(more={"finetune": {"epochs": 7}, "cut": "conv1"}, seed=5)
    assert (found.finetune.epochs, found.cut, found.seed) == (7, "conv1", 5)
    assert found.finetune.batch_size == config().finetune.batch_size == 32
    assert config(more={"finetune": {"batch_size": 8}}).finetune.batch_size == 8
    assert found.task == IN_MEMORY
    table = Choice("csv", {"path": Path("a.csv")})
    assert config(task=table).task == table


def test_what_an_option_leaves_open_may_stand_in_the_config():
    own = {"encoder": {"dropout": 0.25}, "head": {"name": "linear"}, "seed": 3}
    found = settings(more=own | {"method": {"tau": [1, 2]}})
    assert (found.encoder.options["dropout"], found.head.name, found.seed) == (0.25, "linear", 3)
    assert found.encoder.options["weights"] == Path("gcn_muv")
    assert (found.method.name, found.method.options["tau"]) == ("hp_ft", (1, 2))


@pytest.mark.parametrize(
    ("method", "tau", "means"),
    [
        ("ls_hp_ft", None, "auto"),
        ("ls_hp_ft", 3, (3,)),
        ({"name": "ls_hp_ft", "tau": 4}, None, (4,)),
        ("l2_sp", None, (0,)),
        ("l2_sp", "auto", "auto"),
        ("ft", None, None),
    ],
)
def test_tau_is_that_of_the_method_in_the_config(method, tau, means):
    found = config(tau=tau, more={"method": method}).method
    assert found.options.get("tau") == means


def test_one_config_serves_a_search_over_tau(caplog):
    more = {"probe": {"lr": 0.5, "epochs": 7}}
    assert config(tau="auto", more=more).probe.epochs == 7
    assert not caplog.messages
    assert config(tau=4, more=more).probe.lr == 0.5
    assert "probe.epochs would do nothing: method.tau says" in caplog.messages[-1]
    assert "probe" not in resolved(config(tau=0, more=more))
    assert "tau 0 probes no head; left out of this run" in caplog.messages[-1]


def test_numbers_of_numpy_are_numbers():
    more = {"finetune": {"epochs": np.int64(7), "lr": np.float32(0.5)}}
    found = config(tau=np.array([0, 4]), seed=np.int64(5), more=more)
    assert (found.method.options["tau"], found.seed) == ((0, 4), 5)
    assert (found.finetune.epochs, found.finetune.lr) == (7, 0.5)


def pickled(path):
    torch.save(torch.nn.Linear(2, 2), path)


def another(path):
    torch.save({"layer1.weight": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: None, "no weight file at .*w.pth"),
        (pickled, "unpickling"),
        (another, "no graph encoder"),
        (lambda path: path.write_text("hello"), "is not a weight file"),
        (lambda path: path.mkdir(), "no weight file at .*w.pth"),
    ],
    ids=["absent", "pickled", "another network", "text", "folder"],
)
def test_what_are_no_weights_is_one_sentence(tmp_path, write, says):
    path = tmp_path / "w.pth"
    write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        config(encoder=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tau": "long"}, "method.tau is 'long'"),
        ({"head": "deep"}, "unknown head deep"),
        ({"encoder": {"layers": 2}}, "a name among them"),
        ({"encoder": {"name": "gcn", "depth": 2}}, "unknown key encoder.depth"),
        ({"more": {"finetun": {}}}, "did you mean finetune"),
        ({"more": {"finetune": 32}}, "finetune"),
        ({"seed": "one"}, "seed"),
        ({"more": {"seed": 1}}, "seed is given twice, by its option as 0 and in the config as 1"),
        ({"more": {"head": "mlp"}}, "head is given twice, by its option as linear"),
        ({"more": {"encoder": "gcn"}}, "encoder is given twice"),
        ({"more": {"encoder": {"name": "gcn"}}}, "encoder is given twice"),
        ({"more": {"method": {"tau": 4}}}, "tau is given twice, by its option as 3"),
        ({"more": {"method": "lp_ft"}}, "method lp_ft is not probed for tau epochs"),
        ({"more": {"task": {"split": "random"}}}, "task is the molecules that are given"),
        ({"more": {"task": {"nonsense": 3}}}, "task is the molecules that are given"),
        ({"more": {"finetune": {"momentum": 0.9}}}, "finetune.momentum would do nothing"),
        ({"tau": None, "more": {"method": "lp", "finetune": {"lr": 1}}}, "lp does not finetune"),
        ({"tau": None, "more": {"method": "l2_sp", "finetune": {"anchor": 0.5}}}, "method.anchor"),
        ({"more": {"members": False}}, "members is no key of this config: the option ensemble"),
    ],
)
def test_a_word_that_means_nothing_is_one_sentence(changes, says):
    with pytest.raises(ValueError, match=says) as caught:
        config(**changes)
    assert "\n" not in str(caught.value)
