"""How closely transformers reproduces the logits in DIR/golden.safetensors when only rounding may differ.

    python rounding.py DIR/zamba2-1block DIR/zamba2-2block

Prints, for each way of running the same model, the largest difference from the file in units of
2e-4 + 2e-4 * |logit|.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

# Ways to choose other instructions for the same arithmetic; read when torch is loaded.
PROCESSORS = {
    "as the processor allows": {},
    "without FMA": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}


class InFloat64:
    """Within it, what asks for float32 (norms, the scan, softmax) gets float64 too."""

    def __enter__(self):
        self.kept = torch.Tensor.float, torch.Tensor.to, torch.nn.functional.softmax
        as_float, as_type, softmax = self.kept
        widen = lambda dtype: torch.float64 if dtype is torch.float32 else dtype

        def to(tensor, *args, **kwargs):
            return as_type(tensor, *map(widen, args), **{name: widen(value) for name, value in kwargs.items()})

        torch.Tensor.float = lambda tensor: tensor.double() if tensor.is_floating_point() else as_float(tensor)
        torch.Tensor.to = to
        torch.nn.functional.softmax = lambda x, dim=-1, dtype=None: softmax(x, dim=dim, dtype=torch.float64)

    def __exit__(self, *_):
        torch.Tensor.float, torch.Tensor.to, torch.nn.functional.softmax = self.kept


def load(folder, attention="eager", **changes):
    config = AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation=attention
    ).eval()


def worst(model, golden):
    """A number for each case of the file."""
    found = []
    while f"case{len(found)}.logits" in golden:
        case = f"case{len(found)}"
        expected = golden[f"{case}.logits"].double()
        with torch.no_grad():
            logits = model(golden[f"{case}.input_ids"], use_cache=False).logits.double()
        found.append(((logits - expected).abs() / (2e-4 + 2e-4 * expected.abs())).max().item())
    return " ".join(f"{number:8.2f}" for number in found)


def report(folder):
    golden = load_file(Path(folder) / "golden.safetensors")
    print(f"  eager attention     {worst(load(folder), golden)}")
    print(f"  sdpa                {worst(load(folder, 'sdpa'), golden)}")
    for chunk in (8, 64):
        print(f"  chunk_size {chunk:<8} {worst(load(folder, chunk_size=chunk), golden)}")
    model = load(folder).double()
    with InFloat64():
        print(f"  float64             {worst(model, golden)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 2 and sys.argv[1] == "--here":
        report(sys.argv[2])
    else:
        for folder in sys.argv[1:]:
            for name, environment in PROCESSORS.items():
                print(f"{Path(folder).name}, {name}", flush=True)
                command = [sys.executable, __file__, "--here", folder]
                subprocess.run(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL, check=True)
