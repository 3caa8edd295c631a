"""The steps of the toy study: pretrain, probe, finetune, follow a kernel, read an exchange."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from molhpft.core.evaluate import take
from molhpft.core.network import linear_head, mlp_head
from molhpft.domains.toy.digits import toy_pretrain_task, toy_task
from molhpft.measure.dynamics import head_change
from molhpft.measure.features import initial_energy
from molhpft.studies import toy_study as toy
from molhpft.studies.toy_study import exchange_reading, toy_study
from molhpft.tuning.fit import score
from tests.toy import same_weights


@pytest.fixture(scope="module")
def task():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_DATA", "absent")
        return toy_task(per_class=100)


@pytest.fixture(scope="module")
def encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_DATA", "absent")
        return toy.pretrained_mlp(toy_pretrain_task(), seed=0)


def weight(network):
    return list(network.head)[-1].module.weight.detach()


def energy(network, task):
    snapshot = take(network, task.batches("train", size=1000))
    return initial_energy(snapshot, task.objective)


def test_pretrained_features_are_worth_more_than_random_ones(encoder, task):
    scores = []
    for backbone in (toy.random_mlp(seed=0), encoder):
        network = toy.with_random_head(backbone, task, seed=0)
        heads = toy.probed_heads(network, task, taus=[100], seed=0)
        network.head.load_state_dict(heads[100])
        scores.append(energy(network, task))
    assert scores[1] < scores[0] / 2


def test_the_global_generator_is_left_as_it_was(task):
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    toy.with_random_head(toy.random_mlp(seed=3), task, seed=3)
    assert torch.equal(torch.rand(()), expected)


def test_a_head_is_five_times_pytorchs(task):
    plain = 128**-0.5
    assert weight(
        toy.with_random_head(toy.random_mlp(seed=0), task, seed=0)
    ).abs().max() == pytest.approx(5 * plain, rel=0.02)


def test_only_the_last_stage_of_an_mlp_head_is_enlarged(task):
    head = toy.with_random_head(toy.random_mlp(seed=0), task, seed=0, build=mlp_head).head
    hidden, last = (stage.module for stage in head)
    assert hidden[0].weight.abs().max().item() == pytest.approx(128**-0.5, rel=0.02)
    assert last.weight.abs().max().item() == pytest.approx(5 * 256**-0.5, rel=0.02)


def test_a_new_head_knows_nothing_of_the_pretraining_classes(encoder, task):
    # had both heads one stream, the new one would begin as that of pretraining did
    errors = [
        energy(toy.with_random_head(encoder, task, seed=seed, build=linear_head), task)
        for seed in range(5)
    ]
    assert sum(errors) / len(errors) > 0.7


def test_a_network_under_a_new_head_is_a_copy(encoder, task):
    network = toy.with_random_head(encoder, task, seed=0)
    assert same_weights(network.backbone, encoder)
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(network.backbone.parameters(), encoder.parameters(), strict=True)
    )


@pytest.mark.slow
def test_the_fast_way_to_infinity_ends_where_the_slow_one_does():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_DATA", "absent")
        task = toy_task(per_class=20)
    # random features are small: both ways are gradient flow long before infinity is
    fast, slow = (toy.with_random_head(toy.random_mlp(seed=0), task, seed=0) for _ in range(2))
    start = energy(fast, task)
    for network, taus, infinity in ((fast, [0, 50], 5000), (slow, [5000], None)):
        heads = toy.probed_heads(network, task, taus=taus, infinity=infinity, seed=0)
        network.head.load_state_dict(heads[5000])
    fallen = start - energy(slow, task)
    assert start - energy(fast, task) == pytest.approx(fallen, rel=0.1)


def test_infinity_leaves_the_heads_before_it_as_they_are(encoder, task):
    with_it, without = (toy.with_random_head(encoder, task, seed=0) for _ in range(2))
    a = toy.probed_heads(with_it, task, taus=[0, 5], infinity=50, seed=0)
    b = toy.probed_heads(without, task, taus=[0, 5], seed=0)
    assert list(a) == [0, 5, 50]
    assert all(torch.equal(a[tau][name], b[tau][name]) for tau in b for name in b[tau])


def test_the_gradient_is_smaller_the_longer_a_head_is_probed(encoder, task):
    network = toy.with_random_head(encoder, task, seed=0)
    gradients = [toy.training_gradient(network, task)]
    for infinity in (100, 5000):
        heads = toy.probed_heads(network, task, taus=[0], infinity=infinity, seed=0)
        network.head.load_state_dict(heads[infinity])
        gradients.append(toy.training_gradient(network, task))
    assert gradients == sorted(gradients, reverse=True)
    assert gradients[-1] < gradients[0] / 10  # 1 / 21 or 1 / 19, by processor


def test_the_gradient_is_that_of_the_loss_along_its_direction(encoder, task):
    network = toy.with_random_head(encoder, task, seed=0).double()
    task = replace(task, examples=replace(task.examples, inputs=task.examples.inputs.double()))
    batch = task.examples.take(task.rows("train"))
    found, loss = (
        toy.training_gradient(network, task),
        task.objective.loss(network(batch), batch.targets),
    )
    grads = torch.autograd.grad(loss, list(network.head.parameters()))
    step = 1e-6
    with torch.no_grad():
        for p, g in zip(network.head.parameters(), grads, strict=True):
            p -= step * g / found
        fallen = loss - task.objective.loss(network(batch), batch.targets)
    assert fallen.item() / step == pytest.approx(found, rel=1e-3)


SHORT = replace(toy.FINETUNE, epochs=3)


def branch(encoder, task, *, seed=0):
    network = toy.with_random_head(encoder, task, seed=0)
    heads = toy.probed_heads(network, task, taus=[0, 4], seed=0)
    return network, heads, toy.finetuned(network, task, 4, heads[4], phase=SHORT, seed=seed)


def test_finetuning_leaves_the_network_it_starts_from_alone(encoder, task):
    network, heads, found = branch(encoder, task)
    assert same_weights(network.backbone, encoder)
    assert not same_weights(found.tuned.backbone, encoder)
    assert not torch.equal(weight(found.tuned), heads[4]["stages.linear.module.weight"])


def test_a_branch_notes_how_far_its_head_has_turned(encoder, task):
    network, heads, found = branch(encoder, task)
    network.head.load_state_dict(heads[4])
    assert found.gradient == pytest.approx(toy.training_gradient(network, task))
    assert len(found.head_changes) == SHORT.epochs + 1
    assert found.head_changes[0] == 0
    assert found.head_changes[-1] == pytest.approx(head_change(network.head, found.tuned.head))
    assert found.row(task)["head"] == {"gradient": found.gradient, "change": found.head_changes[-1]}


def test_a_head_turns_less_the_longer_it_was_probed(encoder, task):
    network = toy.with_random_head(encoder, task, seed=0)
    heads = toy.probed_heads(network, task, taus=[0, 8, 200], seed=0)
    found = [
        toy.finetuned(network, task, tau, head, phase=SHORT, seed=0) for tau, head in heads.items()
    ]
    # not by a hair: the paper's Figure 2 shows orders of magnitude
    for before, after in pairwise(found):
        assert after.gradient < before.gradient / 2
        assert after.head_changes[-1] < before.head_changes[-1] / 2


def test_a_kernel_is_followed_from_the_start_to_the_end(encoder, task):
    network = toy.with_random_head(encoder, task, seed=0)
    head = toy.probed_heads(network, task, taus=[4], seed=0)[4]
    phase = replace(SHORT, epochs=4)
    path = toy.kernel_path(network, task, head, phase=phase, seed=0)
    assert path.epochs == (0, 2, 4)
    assert path.from_start[0] == 0
    # the first step of two epochs is the change since the start
    assert path.from_last[0] == path.from_start[1] > 0
    assert len(path.from_last) == 2
    tuned = toy.finetuned(network, task, 4, head, phase=phase, seed=0).tuned
    assert path.train[-1] == score(tuned, task, "train")


def test_the_same_seed_gives_the_same_branch_and_another_does_not(encoder, task):
    (_, _, a), (_, _, b), (_, _, c) = (branch(encoder, task, seed=s) for s in (0, 0, 1))
    assert a.row(task) == b.row(task)
    assert a.row(task) != c.row(task)


REJECTING = torch.tensor([[0.9, 0.4, 0.5], [0.6, 0.95, 0.94], [0.6, 0.93, 0.95]])


def test_the_reading_of_an_exchange_counts_what_it_shows():
    text = exchange_reading(REJECTING, (0, 8, 64))
    assert "Here 3 of 3 backbones do best under their own head: reproduced" in text
    assert "tau 0 has 90.0 under its own head, 45.0 under the others': reproduced" in text
    assert "lose 1.5 points under one another's heads and have 93.5: reproduced" in text
    assert text.endswith("they have 60.0.")


def test_an_exchange_without_the_papers_trends_is_said_to_have_none():
    same = torch.tensor([[0.8, 0.9, 0.9], [0.9, 0.5, 0.9], [0.9, 0.4, 0.9]])
    assert exchange_reading(same, (0, 8, 64)).count("not reproduced") == 3


@pytest.mark.parametrize(
    "taus", [(), (1,), (1, 1), (2, 1), (-1, 3), (0, 50)], ids=lambda taus: str(list(taus))
)
def test_taus_that_do_not_rise_to_infinity_are_refused(taus, tmp_path):
    with pytest.raises(ValueError, match=r"rising from 0 and below infinity \(50\), got \["):
        toy_study(tmp_path, taus=taus, infinity=50)
