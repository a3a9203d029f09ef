import copy
from dataclasses import replace

import pytest
import torch

from hrn import distributed
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.training import learner as learner_module
from hrn.training.learner import Learner, compile_mode, decide_channels_last, decide_compile
from hrn.training.recipe import Execution
from tests.conftest import randomise

PLAIN = Execution()


def patches(share=4, scale=2):
    hr = torch.randint(0, 256, (share, 3, 12 * scale, 12 * scale), dtype=torch.uint8)
    return hr[..., ::scale, ::scale], hr


@pytest.fixture
def learner(small, recipe):
    def build(config=small, execution=PLAIN, **changes):
        return Learner(config, replace(recipe, **{"norm_batch": 2, **changes}), execution, Processes())

    return build


def weights(learner):
    return {k: v.clone() for k, v in learner.network.state_dict().items() if v.is_floating_point()}


def gap(a, b):
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def test_first_update_is_adams_formula(learner):
    """Without history Adam moves each weight by lr * g / (|g| + eps), with g clipped to the given norm."""
    one = learner(ema=0.0, clip=1e-3)
    before = {name: p.detach().clone() for name, p in one.network.named_parameters()}
    one.step([patches()], 1e-3)
    gradients = {name: p.grad for name, p in one.network.named_parameters()}
    assert torch.cat([g.flatten() for g in gradients.values()]).norm() == pytest.approx(1e-3, rel=1e-3)
    for name, p in one.network.named_parameters():
        g = gradients[name]
        torch.testing.assert_close(p - before[name], -1e-3 * g / (g.abs() + 1e-8), atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize(
    ("loss_fn", "formula"),
    [
        ("L1", lambda d: d.abs()),
        ("MSE", lambda d: d.square()),
        ("SmoothL1", lambda d: torch.where(d.abs() < 1, d.square() / 2, d.abs() - 0.5)),
    ],
)
def test_the_loss_is_its_formula(learner, loss_fn, formula):
    one, (lr_patch, hr_patch) = learner(loss_fn=loss_fn), patches()
    other = copy.deepcopy(one.network)
    one.step([(lr_patch, hr_patch)], 1e-4)
    with torch.no_grad():
        difference = other(lr_patch / 255, 2) - hr_patch / 255
    assert one.pop_metrics()["loss"] == pytest.approx(float(formula(difference).mean()), rel=1e-4)


def test_accumulation_is_the_larger_batch(learner):
    whole, parts = learner(), learner(execution=Execution(accumulate=2))
    for _ in range(5):
        lr_patch, hr_patch = patches()
        whole.step([(lr_patch, hr_patch)], 1e-4)
        parts.step([(lr_patch[:2], hr_patch[:2]), (lr_patch[2:], hr_patch[2:])], 1e-4)
    assert gap(weights(whole), weights(parts)) < 1e-6
    assert whole.pop_metrics()["loss"] == pytest.approx(parts.pop_metrics()["loss"], rel=1e-6)


def test_frozen_statistics_make_training_the_function_of_inference(learner):
    """The loss is that of the network in eval mode, whether the batch is divided or not, and the statistics stay."""
    frozen = {"norm_batch": 0, "freeze_norm": True}
    whole, parts = learner(**frozen), learner(**frozen, execution=Execution(accumulate=4))
    running = [name for name in weights(whole) if "running" in name]
    start = randomise(whole.network, 0.1).state_dict() | {name: weights(whole)[name].fill_(0.3) for name in running}
    for one in (whole, parts):
        one.network.train().load_state_dict(start)
    lr_patch, hr_patch = patches()
    with torch.no_grad():
        difference = copy.deepcopy(whole.network).eval()(lr_patch / 255, 2) - hr_patch / 255
    whole.step([(lr_patch, hr_patch)], 1e-3)
    parts.step([*zip(lr_patch.split(1), hr_patch.split(1), strict=True)], 1e-3)
    assert whole.pop_metrics()["loss"] == pytest.approx(float(difference.abs().mean()), rel=1e-5)
    for p, q in zip(whole.parameters, parts.parameters, strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-7, rtol=1e-4)
    for network in (whole.network, whole.ema.module):
        assert all((network.state_dict()[name] == 0.3).all() for name in running)
    assert running


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_a_step_that_is_not_finite_changes_nothing(learner, precision, optimizer):
    one = learner(precision=precision, optimizer=optimizer, weight_decay=0.1)
    for _ in range(3):
        one.step([patches()], 1e-4)
    good = one.pop_metrics()
    skipped_by_scaler = good["skipped"]
    before, mean_before = weights(one), {k: v.clone() for k, v in one.eval_network.state_dict().items()}
    moments = {i: {k: v.clone() for k, v in s.items()} for i, s in one.optimizer.state_dict()["state"].items()}
    handle = one.network.head.register_forward_hook(lambda module, x, y: y + float("inf"))
    for _ in range(2):
        one.step([patches()], 1e-4)
    handle.remove()
    assert one.skipped_in_a_row() == 2
    assert gap(before, weights(one)) == 0
    assert all(torch.equal(v, mean_before[k]) for k, v in one.eval_network.state_dict().items())
    after = one.optimizer.state_dict()["state"]
    assert all(torch.equal(v, after[i][k]) for i, s in moments.items() for k, v in s.items())
    assert one.pop_metrics() == {"loss": None, "grad_norm": None, "skipped": skipped_by_scaler + 2}
    one.step([patches()], 1e-4)
    if precision != "fp16":  # the scaler may need some more steps to find its scale
        assert one.skipped_in_a_row() == 0
        assert gap(before, weights(one)) > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns_and_keeps_float32_weights(learner, precision):
    one = learner(precision=precision)
    data = patches()
    losses = []
    for _ in range(30):
        one.step([data], 2e-3)
        losses.append(one.pop_metrics()["loss"])
    losses = [x for x in losses if x is not None]
    assert losses[-1] < 0.97 * losses[0]
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in one.network.parameters())


def test_tally_means_over_the_interval_and_by_scale(learner, small):
    one = learner(config=replace(small, scales=(2, 3)))
    single = []
    for scale in (2, 3, 2):
        one.step([patches(scale=scale)], 1e-5)
        single.append(float(one.sums[:, 0].sum()) - sum(single))
    line = one.pop_metrics()
    assert line["loss"] == pytest.approx(sum(single) / 3)
    assert line["loss_x2"] == pytest.approx((single[0] + single[2]) / 2)
    assert line["loss_x3"] == pytest.approx(single[1])
    assert one.pop_metrics()["loss"] is None


def stop_and_resume(straight, first, second):
    """Six steps for `straight`; the first three of them for `first`, and the others for `second` from its state."""
    data = [patches() for _ in range(6)]
    for part in data:
        straight.step([part], 1e-3)
    for part in data[:3]:
        first.step([part], 1e-3)
    second.load_state_dict(first.network.state_dict(), first.state_dict())
    for part in data[3:]:
        second.step([part], 1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_a_state_is_resumed_bit_for_bit(learner, same, optimizer):
    changes = {"optimizer": optimizer, "weight_decay": 0.1}
    straight, first, second = learner(**changes), learner(**changes), learner(seed=5, **changes)
    stop_and_resume(straight, first, second)
    drop = {"rng"}
    same(*({k: v for k, v in x.state_dict().items() if k not in drop} for x in (straight, second)))
    same(straight.network.state_dict(), second.network.state_dict())


def test_the_running_mean_is_the_formula(learner):
    """mean <- mean + w (weights - mean) with w = max(1 - decay, 9 / (10 + n)) after n updates; BatchNorm's statistics too."""
    one = learner(ema=0.3)
    wanted = None
    for n in range(6):
        one.step([patches()], 1e-3)
        now = {k: v.double() for k, v in weights(one).items()}
        share = max(0.7, 9 / (10 + n))  # 9/11, 9/12, then 0.7
        wanted = {k: v if wanted is None else wanted[k] + share * (v - wanted[k]) for k, v in now.items()}
    mean = one.eval_network.state_dict()
    assert sum("running_" in name for name in wanted) >= 2
    for name, value in wanted.items():
        torch.testing.assert_close(mean[name].double(), value, atol=1e-6, rtol=1e-5)
        assert gap({name: mean[name].double()}, {name: now[name]}) > 1e-6 or not now[name].any(), name


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("layout", [True, False])
def test_resuming_in_another_layout_is_the_same_learning(learner, layout, optimizer):
    straight, first = (learner(execution=Execution(channels_last=layout), optimizer=optimizer) for _ in range(2))
    second = learner(execution=Execution(channels_last=not layout), optimizer=optimizer)
    stop_and_resume(straight, first, second)
    assert gap(weights(straight), weights(second)) < 1e-5


@pytest.mark.slow
def test_compiled_learning_is_the_same_learning(learner):
    """The network as one graph of Inductor."""
    eager, compiled = learner(), learner(execution=Execution(compile=True))
    for _ in range(2):
        data = patches()
        eager.step([data], 1e-4)
        compiled.step([data], 1e-4)
    assert gap(weights(eager), weights(compiled)) < 1e-5
    assert list(compiled.network.state_dict()) == list(eager.network.state_dict())


def test_rates_of_the_two_parts_of_muon(learner):
    one = learner(optimizer="muon", adam_lr_ratio=0.25)
    one.step([patches()], 1e-3)
    assert [group["lr"] for group in one.optimizer.param_groups] == [1e-3, 0.25e-3]
    assert sum(len(group["params"]) for group in one.optimizer.param_groups) == len(one.parameters)


def test_a_muon_state_without_a_ratio_is_resumed(learner):
    """Earlier versions did not store the ratio."""
    first, second = learner(optimizer="muon"), learner(optimizer="muon")
    first.step([patches()], 1e-3)
    state = first.state_dict()
    for group in state["optimizer"]["param_groups"]:
        group.pop("lr_ratio", None)
    second.load_state_dict(first.network.state_dict(), state)
    second.step([patches()], 1e-3)
    assert [group["lr"] for group in second.optimizer.param_groups] == [1e-3, 1e-3]


def test_compile_by_default_on_cuda_only(monkeypatch, caplog):
    missing = {"text": ""}
    monkeypatch.setattr(learner_module, "missing_for_compile", lambda device: missing["text"])
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [decide_compile(x, cuda) for x in (None, True, False)] == [True, True, False]
    assert [decide_compile(x, cpu) for x in (None, True, False)] == [False, True, False]
    assert caplog.text == ""
    missing["text"] = "a compiler"
    assert not decide_compile(None, cuda)
    assert "torch.compile" in caplog.text
    assert not decide_compile(False, cuda)
    for device in (cpu, cuda):
        with pytest.raises(HRNError, match="--compile"):
            decide_compile(True, device)


def test_cuda_graphs_only_on_cuda_without_accumulation():
    devices = [torch.device(name) for name in ("cpu", "cuda")]
    found = [compile_mode(device, Execution(accumulate=n)) for device in devices for n in (1, 2)]
    assert found == [None, None, "reduce-overhead", None]


def test_gradients_and_statistics_are_averaged_over_processes(small, recipe, monkeypatch):
    """Two processes with equal patches learn what one does, to the last bit."""
    sent = []

    def all_reduce(values):
        sent.append(values.numel())
        values *= 2

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    recipe = replace(recipe, norm_batch=2)
    one, two = (Learner(small, recipe, PLAIN, Processes(count=count)) for count in (1, 2))
    data = patches()
    for learner in (one, two):
        learner.step([data, data], 1e-3)
    assert gap(weights(one), weights(two)) == 0
    running = sum(b.numel() for name, b in two.network.named_buffers() if "running" in name)
    assert sent == [1 + running, sum(p.numel() for p in two.parameters)]


def test_layout_by_default(monkeypatch):
    """NCHW only for convolutions in IEEE float32 on a GPU."""
    cpu, cuda, generation = torch.device("cpu"), torch.device("cuda"), {"value": (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation["value"])
    ieee = Execution(tf32=False)
    assert [decide_channels_last(ieee, p, cuda) for p in ("fp32", "bf16", "fp16")] == [False, True, True]
    assert decide_channels_last(PLAIN, "fp32", cuda)
    generation["value"] = (7, 5)
    assert not decide_channels_last(PLAIN, "fp32", cuda)
    assert decide_channels_last(ieee, "fp32", cpu)
    for device in (cpu, cuda):
        assert decide_channels_last(Execution(channels_last=True), "fp32", device)
        assert not decide_channels_last(Execution(channels_last=False), "bf16", device)
