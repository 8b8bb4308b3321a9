"""Logits of checkpoints whose weights were rounded to half precision: the sums are float32 as before.

    python rounded.py FOLDER...

A reader of such a file widens every weight to float32 and computes as ever, so these logits are what it
should find in the folder's weights saved as f16 or bf16. No weights are stored: rounding them again is easy.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import common
import original

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


def forward(folder, dtype):
    """A function from tokens to logits, with weights rounded to `dtype`."""
    if (folder / "pytorch_model.bin").exists():
        config = json.loads((folder / "config.json").read_text())
        state = torch.load(folder / "pytorch_model.bin", weights_only=True)
        weights = original.load({name: tensor.to(dtype).float() for name, tensor in state.items()})
        return lambda tokens: original.logits(config, weights, tokens).float()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(tensor.to(dtype))

    def logits(tokens):
        with torch.no_grad():
            return model(tokens, use_cache=False).logits

    return logits


out = common.FIXTURES / "rounded"
out.mkdir(parents=True, exist_ok=True)
for folder in map(Path, sys.argv[1:]):
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokens = common.ids(vocab, 33, seed=5)
    exact = forward(folder, torch.float32)(tokens)
    for name, dtype in DTYPES.items():
        logits = forward(folder, dtype)(tokens)
        file = out / f"{folder.name}.{name}.golden.safetensors"
        save_file({"case0.input_ids": tokens, "case0.logits": logits.contiguous()}, file)
        file.chmod(0o644)
        off = (logits - exact).abs().max() / exact.abs().max()
        same = (logits.argmax(-1) == exact.argmax(-1)).sum()
        print(f"| {folder.name} | {name} | {off:.1e} | {same} of {tokens.shape[1]} |")
