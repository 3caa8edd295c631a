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


def test_pretraining_starts_from_the_random_encoder_of_the_seed(encoder):
    random = toy.random_mlp(seed=0)
    assert same_weights(random, toy.random_mlp(seed=0))
    assert not same_weights(random, toy.random_mlp(seed=1))
    assert not same_weights(random, encoder)


def test_pretrained_features_are_worth_more_than_random_ones(encoder, task):
    scores = []
    for backbone in (toy.random_mlp(seed=0), encoder):
        network = toy.with_head(backbone, task, seed=0)
        heads = toy.probed_heads(network, task, taus=[100], seed=0)
        scores.append(energy(network, task))
        assert list(heads) == [100]
    assert scores[1] < scores[0] / 2


def test_the_global_generator_is_left_as_it_was(task):
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    toy.with_head(toy.random_mlp(seed=3), task, seed=3)
    assert torch.equal(torch.rand(()), expected)


def test_a_head_is_five_times_pytorchs(task):
    plain = 128**-0.5
    assert weight(toy.with_head(toy.random_mlp(seed=0), task, seed=0)).abs().max() == pytest.approx(
        5 * plain, rel=0.02
    )


def test_only_the_last_stage_of_an_mlp_head_is_enlarged(task):
    head = toy.with_head(toy.random_mlp(seed=0), task, seed=0, build=mlp_head).head
    hidden, last = (stage.module for stage in head)
    assert hidden[0].weight.abs().max().item() == pytest.approx(128**-0.5, rel=0.02)
    assert last.weight.abs().max().item() == pytest.approx(5 * 256**-0.5, rel=0.02)


def test_a_new_head_knows_nothing_of_the_pretraining_classes(encoder, task):
    # had both heads one stream, the new one would begin as that of pretraining did
    errors = [
        energy(toy.with_head(encoder, task, seed=seed, build=linear_head), task)
        for seed in range(5)
    ]
    assert sum(errors) / len(errors) > 0.7


def test_a_network_under_a_new_head_is_a_copy(encoder, task):
    network = toy.with_head(encoder, task, seed=0)
    assert same_weights(network.backbone, encoder)
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(network.backbone.parameters(), encoder.parameters(), strict=True)
    )


def test_the_fast_way_to_infinity_ends_where_the_slow_one_does():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_DATA", "absent")
        task = toy_task(per_class=20)
    # random features are small: both ways are gradient flow long before infinity is
    fast, slow = (toy.with_head(toy.random_mlp(seed=0), task, seed=0) for _ in range(2))
    start = energy(fast, task)
    toy.probed_heads(fast, task, taus=[0, 50], infinity=5000, seed=0)
    toy.probed_heads(slow, task, taus=[5000], seed=0)
    fallen = start - energy(slow, task)
    assert start - energy(fast, task) == pytest.approx(fallen, rel=0.1)


def test_infinity_leaves_the_heads_before_it_as_they_are(encoder, task):
    with_it, without = (toy.with_head(encoder, task, seed=0) for _ in range(2))
    a = toy.probed_heads(with_it, task, taus=[0, 5], infinity=50, seed=0)
    b = toy.probed_heads(without, task, taus=[0, 5], seed=0)
    assert list(a) == [0, 5, 50]
    assert all(torch.equal(a[tau][name], b[tau][name]) for tau in b for name in b[tau])


def test_the_loss_slopes_less_the_longer_a_head_is_probed(encoder, task):
    network = toy.with_head(encoder, task, seed=0)
    slopes = [toy.slope(network, task)]
    for infinity in (100, 5000):
        toy.probed_heads(network, task, taus=[0], infinity=infinity, seed=0)
        slopes.append(toy.slope(network, task))
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[-1] < slopes[0] / 20


def test_the_slope_is_that_of_the_loss_along_its_gradient(encoder, task):
    network = toy.with_head(encoder, task, seed=0).double()
    task = replace(task, examples=replace(task.examples, inputs=task.examples.inputs.double()))
    batch = task.examples.take(task.rows("train"))
    found, loss = toy.slope(network, task), task.objective.loss(network(batch), batch.targets)
    grads = torch.autograd.grad(loss, list(network.head.parameters()))
    step = 1e-6
    with torch.no_grad():
        for p, g in zip(network.head.parameters(), grads, strict=True):
            p -= step * g / found
        fallen = loss - task.objective.loss(network(batch), batch.targets)
    assert fallen.item() / step == pytest.approx(found, rel=1e-3)


SHORT = replace(toy.FINETUNE, epochs=3)


def branch(encoder, task, *, seed=0):
    network = toy.with_head(encoder, task, seed=0)
    heads = toy.probed_heads(network, task, taus=[0, 4], seed=0)
    return network, heads, toy.finetuned(network, task, 4, heads[4], phase=SHORT, seed=seed)


def test_finetuning_leaves_the_network_it_starts_from_alone(encoder, task):
    network, heads, found = branch(encoder, task)
    assert same_weights(network.backbone, encoder)
    assert not same_weights(found.tuned.backbone, encoder)
    assert not torch.equal(weight(found.tuned), heads[4]["stages.linear.module.weight"])


def test_a_branch_starts_from_the_head_it_is_given(encoder, task):
    network, heads, found = branch(encoder, task)
    network.head.load_state_dict(heads[4])
    snapshot = take(network, task.batches("train", size=1000))
    torch.testing.assert_close(found.before["train"].logits, snapshot.logits)


def test_a_branch_notes_how_far_its_head_has_turned(encoder, task):
    network, heads, found = branch(encoder, task)
    network.head.load_state_dict(heads[4])
    assert found.gradient == pytest.approx(toy.slope(network, task))
    assert len(found.turned) == SHORT.epochs + 1
    assert found.turned[0] == 0
    assert found.turned[-1] == pytest.approx(head_change(network.head, found.tuned.head))
    assert found.row(task)["head"] == {"gradient": found.gradient, "change": found.turned[-1]}


def test_a_head_turns_less_the_longer_it_was_probed(encoder, task):
    network = toy.with_head(encoder, task, seed=0)
    heads = toy.probed_heads(network, task, taus=[0, 8, 200], seed=0)
    found = [
        toy.finetuned(network, task, tau, head, phase=SHORT, seed=0) for tau, head in heads.items()
    ]
    # not by a hair: the paper's Figure 2 shows orders of magnitude
    for before, after in pairwise(found):
        assert after.gradient < before.gradient / 2
        assert after.turned[-1] < before.turned[-1] / 2


def test_a_kernel_is_followed_from_the_start_to_the_end(encoder, task):
    network = toy.with_head(encoder, task, seed=0)
    head = toy.probed_heads(network, task, taus=[4], seed=0)[4]
    phase = replace(SHORT, epochs=4)
    found = toy.kernel_path(network, task, head, phase=phase, seed=0)
    assert found.epochs == (0, 2, 4)
    assert found.from_start[0] == 0
    # the first step of two epochs is the change since the start
    assert found.from_last[0] == found.from_start[1] > 0
    assert len(found.from_last) == 2
    tuned = toy.finetuned(network, task, 4, head, phase=phase, seed=0).tuned
    assert found.train[-1] == score(tuned, task, "train")


def test_the_same_seed_gives_the_same_branch_and_another_does_not(encoder, task):
    (_, _, a), (_, _, b), (_, _, c) = (branch(encoder, task, seed=s) for s in (0, 0, 1))
    assert a.row(task) == b.row(task)
    assert a.row(task) != c.row(task)
