"""original.py against logits that transformers computed from the same weights.

    python validate_original.py FOLDER...
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import original

for folder in map(Path, sys.argv[1:]):
    config = json.loads((folder / "config.json").read_text())
    weights = original.load(torch.load(folder / "pytorch_model.bin", weights_only=True))
    golden = load_file(folder / "golden.safetensors")
    for name in sorted(key for key in golden if key.endswith("input_ids")):
        expected = golden[name.replace("input_ids", "logits")].double()
        actual = original.logits(config, weights, golden[name])
        worst = ((actual - expected).abs().max() / expected.abs().max()).item()
        print(f"{folder.name} {name}: off by at most {worst:.1e} of the largest logit")
        assert worst < 1e-5
