"""Wrappers: one that only wraps is seen through; one that holds the weights in another way is refused by name."""

import copy
import sys

import pytest
import torch
from torch import nn

import ecospa
from ecospa.wrappers import named_parameters, original_name, refuse_unsupported, unwrapped
from tests.model_zoo import VOCABULARY, ZOO, build, inputs, logits

IDS = torch.randint(2, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(1))
CONFIG = ecospa.EcoSpaConfig(
    target_size=0.7, target_scope="blocks", width_multiple=2, interval=1, end_step=3, pace="curve"
)


def whole(model):
    return torch.compile(model, backend="eager")


def blocks(model):
    for name, block in ecospa.families.transformer_blocks(model).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, torch.compile(block, backend="eager"))
    return model


def both(model):
    return whole(blocks(model))


def copied(model):
    return nn.DataParallel(model)


def trained(model, plain, steps=4, resume=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparsity = ecospa.CoupledSparsity(model, optimizer, CONFIG, resume=resume)
    for _ in range(steps):
        plain(input_ids=IDS, labels=IDS).loss.backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
    return sparsity


@pytest.mark.parametrize(
    ("wrap", "kind"), [(whole, "gpt2"), pytest.param(blocks, "bert", marks=pytest.mark.slow), (both, "gpt2")]
)
def test_compiled_models_have_the_names_of_the_plain_one_and_cut_alike(wrap, kind):
    plain = build(kind)
    model = wrap(copy.deepcopy(plain))
    pairs, expected = ecospa.coupled_pairs(model), ecospa.coupled_pairs(plain)
    assert [pair.name for pair in pairs] == [pair.name for pair in expected]
    assert list(named_parameters(model)) == [name for name, _ in plain.named_parameters()]
    for count in (ecospa.accounting.parameters, ecospa.dense.dense_parameters):
        assert count(model, "blocks") == count(plain, "blocks")
    for one in (model, plain):
        ecospa.apply_plan(one, ecospa.plan_shrink(one, 0.6, target_scope="blocks", width_multiple=2))
    assert ecospa.accounting.forward_flops(model, 2, 9) == ecospa.accounting.forward_flops(plain, 2, 9)
    assert torch.equal(logits(unwrapped(model), inputs(kind)), logits(plain, inputs(kind)))


@pytest.mark.parametrize("wrap", [pytest.param(whole, marks=pytest.mark.slow), blocks])
def test_a_compiled_run_is_resumed_by_a_plain_model(wrap):
    torch.manual_seed(0)
    plain = ZOO["gpt2"].build().eval()
    reference = trained(plain, plain)
    torch.manual_seed(0)
    inner = ZOO["gpt2"].build().eval()
    model = wrap(inner)
    first = trained(model, model, steps=2)
    torch.manual_seed(0)
    again = ZOO["gpt2"].build().eval()
    shape = {pair.name: torch.arange(pair.width).repeat(pair.groups, 1) for pair in ecospa.coupled_pairs(model)}
    ecospa.apply_plan(again, ecospa.SparsityPlan.build(again, shape))
    again.load_state_dict({original_name(name): value for name, value in unwrapped(model).state_dict().items()})
    second = trained(again, again, steps=2, resume=first.state_dict())
    assert second.history == reference.history
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), plain.parameters(), strict=True))


@pytest.fixture
def no_accelerator():
    """Accelerate keeps one state for the whole process, whatever ran before in it or comes after."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("no_accelerator")
def test_a_model_that_accelerate_prepared_is_cut_and_saved(tmp_path):
    from accelerate import Accelerator

    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model = ZOO["gpt2"].build()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3))
    assert "forward" in vars(model)
    sparsity = ecospa.CoupledSparsity(model, optimizer, CONFIG)
    for _ in range(3):
        accelerator.backward(model(input_ids=IDS, labels=IDS).loss)
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
    assert sparsity.reached
    ecospa.save_pretrained(model, tmp_path / "m")
    assert "forward" in vars(model) and "_original_forward" in vars(model)
    loaded = ecospa.from_pretrained(tmp_path / "m")
    assert torch.equal(loaded(IDS).logits, type(model).forward(model.eval(), IDS).logits)


@pytest.mark.usefixtures("no_accelerator")
def test_a_forward_of_ones_own_is_seen_behind_the_one_of_accelerate(tmp_path):
    from accelerate import Accelerator

    model = ZOO["gpt2"].build()
    forward = model.forward
    model.forward = lambda input_ids: forward(input_ids).logits.softmax(-1)
    model = Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
    with pytest.raises(ecospa.CheckpointError, match="forward was replaced on the instance"):
        ecospa.save_pretrained(model, tmp_path / "m")


def test_attention_that_is_compiled_by_itself_is_refused():
    model = ZOO["gpt2"].build()
    model.transformer.h[0].attn = torch.compile(model.transformer.h[0].attn, backend="eager")
    with pytest.raises(ecospa.UnsupportedModelError, match=r"h\.0\.attn: it is compiled by itself"):
        ecospa.coupled_pairs(model)


def offloaded(model):
    from accelerate import cpu_offload

    return cpu_offload(model, execution_device=torch.device("cpu"))


def half_absent(model):
    model.transformer.h[1].mlp.to("meta")
    return model


def fully_sharded(model):
    """As `fully_shard` leaves a class, without processes to shard over."""
    block = model.transformer.h[0]
    block.__class__ = type("FSDPGPT2Block", (torch.distributed.fsdp.FSDPModule, type(block)), {})
    return model


def engine(model):
    holder = type("DeepSpeedEngine", (nn.Module,), {"__module__": "deepspeed.runtime.engine"})()
    holder.module = model
    return holder


def partitioned(model):
    model.transformer.h[1].mlp.c_fc.weight.ds_id = 7
    return model


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (copied, "the model is a DataParallel: it copies the model"),
        (offloaded, r"transformer\.wte\.weight: .*offloading.*load the model whole"),
        (half_absent, r"h\.1\.mlp\.c_fc\.weight: its values are not here"),
        (lambda model: model.to("meta"), "it has a shape and no values"),
        (fully_sharded, r"transformer\.h\.0 is a FSDPModule: fully_shard \(FSDP2\)"),
        (engine, "the model is a DeepSpeedEngine"),
        (partitioned, r"h\.1\.mlp\.c_fc\.weight: DeepSpeed ZeRO-3"),
    ],
)
def test_weights_held_in_another_way_are_refused_by_name(wrap, message):
    model = wrap(ZOO["gpt2"].build())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for attempt in (
        lambda: ecospa.CoupledSparsity(model, optimizer, CONFIG),
        lambda: ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=2),
    ):
        with pytest.raises(ecospa.UnsupportedModelError, match=message) as caught:
            attempt()
        assert "Way out: " in str(caught.value)


def test_shapes_alone_are_enough_for_what_reads_no_weight():
    with torch.device("meta"):
        model = ZOO["gpt2"].build()
    refuse_unsupported(model, needs_weights=False)
    assert ecospa.accounting.parameters(ZOO["gpt2"].build()) == ecospa.accounting.parameters(model)


def test_reading_sees_through_replicas():
    model = ZOO["gpt2"].build()
    assert unwrapped(nn.DataParallel(whole(model))) is model
    assert [pair.name for pair in ecospa.coupled_pairs(copied(model))] == [
        pair.name for pair in ecospa.coupled_pairs(model)
    ]


def _in_two_processes(rank, folder):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh, said = init_device_mesh("cpu", (2,)), []
    for wrap in (DistributedDataParallel, lambda m: fully_shard(m, mesh=mesh) or m, lambda m: m):
        model = ZOO["llama-gqa"].build()
        wrapped = wrap(model) or model
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        try:
            ecospa.CoupledSparsity(wrapped, optimizer, CONFIG)
        except ValueError as error:
            said.append(f"{type(error).__name__} {error}")
    (folder / f"{rank}.txt").write_text("\n".join(said))
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_two_real_processes_are_refused_by_name(tmp_path):
    # forked, not spawned: the libraries are imported already, and nothing here runs a backward pass
    torch.multiprocessing.start_processes(_in_two_processes, (tmp_path,), nprocs=2, start_method="fork")
    for rank in range(2):
        ddp, sharded, plain = (tmp_path / f"{rank}.txt").read_text().splitlines()
        assert ddp.startswith("UnsupportedModelError the model is a DistributedDataParallel")
        assert "FSDP2" in sharded and sharded.startswith("UnsupportedModelError")
        assert plain.startswith("ConfigError world size is 2")
