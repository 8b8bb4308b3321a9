"""Small files written by torch.save, and what is in them: tests/fixtures/torch/.

Run from the repository root with PyTorch 2.x, safetensors and numpy:

    python longmamba-model/tests/reference/torch_files.py

Each readable NAME.pt (zip) or NAME.bin (the format before torch 1.6) has its tensors beside it in
NAME.safetensors; files of the same tensors share one. Files that must be refused have none. A legacy file
names its storages by their addresses, so its bytes, not its tensors, differ from run to run.
`tables/` and `tables-bf16/` have the layout of the calibration tables that LongMamba's authors publish.
"""

import os
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent.parent / "fixtures" / "torch"


def plain():
    """What a state dict is made of, without its class."""
    g = torch.Generator().manual_seed(1)
    return {
        "layers.0.weight": torch.randn(3, 4, generator=g),
        "layers.0.bias": torch.randn(3, generator=g),
        "scale": torch.randn((), generator=g),
    }


def dtypes():
    values = torch.arange(-3, 9)
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    kinds += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    tensors = {str(kind).removeprefix("torch."): values.to(kind).reshape(3, 4) for kind in kinds}
    return tensors | {"empty": torch.zeros(0, 5), "ones": torch.ones(1, 1, 3)}


def save(name, what, expected=None, **options):
    torch.save(what, OUT / name, **options)
    if expected is not None:
        contiguous = {k: v.detach().clone().contiguous() for k, v in expected.items()}
        save_file(contiguous, (OUT / name).with_suffix(".safetensors"))


class Runs:
    """Its unpickling would run a command."""

    def __reduce__(self):
        return os.system, ("echo unpickled > /tmp/unpickled",)


class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.inner = torch.nn.Linear(4, 3)
        self.register_buffer("count", torch.tensor(7))


def readable():
    for protocol in [2, 3, 4, 5]:
        save(f"protocol{protocol}.pt", plain(), plain(), pickle_protocol=protocol)
        old = dict(pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        save(f"legacy-protocol{protocol}.bin", plain(), **old)
    legacy = dict(_use_new_zipfile_serialization=False)
    save("dtypes.pt", dtypes(), dtypes())
    save("legacy-dtypes.bin", dtypes(), **legacy)

    state = Module().state_dict()
    assert isinstance(state, OrderedDict) and hasattr(state, "_metadata")
    save("state-dict.pt", state, state)
    save("legacy-state-dict.bin", state, **legacy)
    parameters = dict(Module().named_parameters())
    save("parameters.pt", parameters, parameters)

    weight = torch.arange(12.0).reshape(3, 4)
    tied = {"head": weight, "embedding": weight, "again": weight.view(3, 4)}
    save("tied.pt", tied, tied)
    save("legacy-tied.bin", tied, **legacy)

    rows = torch.arange(20.0).reshape(5, 4)
    slices = {"middle": rows[1:3], "last": rows[4], "first": rows[0:1, :]}
    # One row of one column and a row with a dimension of size 1 are row-major whatever their strides.
    slices |= {"corner": rows[3:4, 1:2], "column": rows.t()[2:3, 3:4].unsqueeze(1)}
    save("slices.pt", slices, slices)
    save("legacy-slices.bin", slices, **legacy)

    extras = plain() | {"epoch": 3, "big": 2**70, "loss": 0.5, "note": "größer", "none": None}
    extras |= {"flag": True, "off": False, "list": [], "dict": {}, "negative": -(2**40), "tuple": ()}
    save("extras.pt", extras, plain())
    save("lone.pt", rows[0], {"": rows[0]})


def refused():
    square = torch.arange(9.0).reshape(3, 3)
    save("transposed.pt", {"fine": torch.ones(2), "turned": square.t()})
    save("expanded.pt", {"stretched": torch.ones(1, 3).expand(4, 3)})
    save("columns.pt", {"columns": square[:, 0:2]})
    save("overlap.pt", {"upper": square[0:2], "lower": square[1:3]})
    save("reshaped.pt", {"square": square, "flat": square.view(9)})
    save("nested.pt", {"epoch": 3, "state_dict": plain()})
    save("list.pt", [torch.ones(2)])
    save("number-key.pt", {7: torch.ones(2)})
    save("complex.pt", {"c": torch.ones(2, dtype=torch.complex64)})
    save("float8.pt", {"f8": torch.ones(2).to(torch.float8_e4m3fn)})
    save("sparse.pt", {"s": torch.eye(3).to_sparse()})
    save("module.pt", Module())
    save("runs.pt", {"w": torch.ones(2), "x": Runs()})
    old = dict(_use_new_zipfile_serialization=False)
    save("legacy-runs.bin", {"w": torch.ones(2), "x": Runs()}, **old)
    save("legacy-transposed.bin", {"turned": square.t()}, **old)
    torch.jit.save(torch.jit.script(Module().inner), OUT / "torchscript.pt")


LENGTHS = ["1k", "2k", "3k", "4k", "8k", "16k"]


def tables(folder, layers, channels, dtype, legacy):
    """The thresholds at 1k and 2k are float32 zeros whatever the model's type; scores may underflow."""
    g = torch.Generator().manual_seed(3)
    root = OUT / folder
    for part in ["delta_t-thre", "tA_prod", "A"]:
        (root / part).mkdir(parents=True)
    options = dict(_use_new_zipfile_serialization=not legacy)
    all_a = -torch.rand(layers, channels, generator=g)
    for layer in range(layers):
        rising = torch.rand(len(LENGTHS), channels, generator=g).cumsum(0)
        thresholds = {
            key: torch.zeros(channels) if key in ["1k", "2k"] else rising[i].to(dtype)
            for i, key in enumerate(LENGTHS)
        }
        scores = torch.rand(channels, generator=g).pow(8).to(dtype)
        scores[layer % channels] = 0.0
        scores[(layer + 1) % channels] = 1.0
        torch.save(thresholds, root / "delta_t-thre" / f"delta_t-thre_layer_{layer}.pt", **options)
        torch.save(scores, root / "tA_prod" / f"tA_prod_layer_{layer}.pt", **options)
        torch.save(all_a[layer], root / "A" / f"A_layer_{layer}.pt", **options)
        save_file(
            {"scores": scores.float()} | {k: v.float() for k, v in thresholds.items()},
            root / f"layer_{layer}.safetensors",
        )


def odd_tables():
    """For a model of 4 channels, in place of one file of `tables`."""
    row = torch.full((4,), 0.5)
    right = {key: row.clone() for key in LENGTHS}
    save("table-key.pt", right | {"12": row.clone()})
    save("table-fewer.pt", {key: right[key] for key in LENGTHS[:-1]})
    save("table-more.pt", right | {"20k": row.clone()})
    save("table-integers.pt", right | {"3k": row.long()})
    save("table-matrix.pt", right | {"3k": row.clone().reshape(2, 2)})
    save("table-empty.pt", {})
    empty = torch.ones(0)
    many = {f"{i}k": empty for i in range(1, 1002)}
    save("table-many.pt", many, _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    readable()
    refused()
    odd_tables()
    tables("tables", 3, 4, torch.float32, legacy=False)
    tables("tables-bf16", 2, 3, torch.bfloat16, legacy=True)
    print(sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()), "bytes")
