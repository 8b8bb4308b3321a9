"""What every generator shares: prompts, greedy continuations, the check that weights matter, golden files."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"

# A greedy step whose two best logits are closer than this could flip by rounding.
MARGIN = 1e-2

# At least so many different tokens in a greedy continuation.
VARIETY = 6


def lively(name, shape, random):
    """Values at which a wrong, missing or swapped tensor shows."""
    normal = torch.randn(shape, generator=random)
    uniform = torch.rand(shape, generator=random)
    if name.endswith("A_log"):
        return torch.log(0.3 + 3.7 * uniform)
    if name.endswith(("dt_bias", "dt_proj.bias")):
        return torch.log(torch.expm1(0.02 * 30**uniform))  # softplus gives 0.02 to 0.6
    if name.endswith(".D"):
        return 0.5 + 0.5 * normal
    if "norm" in name:
        return 1 + 0.3 * normal if name.endswith("weight") else 0.3 * normal
    if name.endswith("bias"):
        return 0.3 * normal
    if "conv1d" in name:
        return 0.5 * normal
    if "embed" in name:
        return 0.2 * normal  # small beside what the mixers add, else a tied head repeats its input
    # Large scores make softmax a switch that rounding alone can flip.
    gain = 0.6 if any(part in name for part in ("q_proj", "k_proj", "adapter")) else 1.2
    return normal * (gain / math.sqrt(shape[-1]))


def ids(vocab, length, seed):
    # Ids below 3 are left out: configs use them as padding, begin and end.
    return torch.randint(3, vocab, (1, length), generator=torch.Generator().manual_seed(seed))


def greedy(logits, prompt, steps, vocab, reserved=3):
    """The most likely `steps` tokens, each from a full forward pass; None where a step is too close a
    call or the tokens are too much alike.

    Ids at or above `vocab` exist only as padding of the table, so they are never chosen.
    """
    tokens = prompt
    for _ in range(steps):
        best = logits(tokens)[0, -1, :vocab].topk(2)
        if best.values[0] - best.values[1] <= MARGIN or best.indices[0] < reserved:
            return None
        tokens = torch.cat([tokens, best.indices[:1].view(1, 1)], dim=1)
    chosen = tokens[:, prompt.shape[1] :]
    # A continuation that only repeats itself would hide a state that is not carried on.
    return chosen if len(chosen.unique()) >= VARIETY else None


def check_every_weight_matters(logits, tensors, tokens):
    """Each tensor in turn is changed by a little noise, in place: logits must move, else a mistake in the
    use of that tensor would go unseen. Returns the smallest movement, relative to the logits' spread."""
    before = logits(tokens)
    spread = before.std()
    noise = torch.Generator().manual_seed(1)
    smallest = ("", float("inf"))
    with torch.no_grad():
        for name, tensor in tensors.items():
            kept = tensor.detach().clone()
            step = 0.1 * kept.float().pow(2).mean().sqrt()
            tensor += step * torch.randn(kept.shape, generator=noise).to(tensor.dtype)
            moved = ((logits(tokens) - before).abs().max() / spread).item()
            tensor.copy_(kept)
            assert moved > 1e-3, f"{name} hardly matters: {moved:.1e}"
            smallest = min(smallest, (name, moved), key=lambda pair: pair[1])
    return smallest


def golden(logits, vocab, lengths=(37, 1), seed=0, steps=12):
    """Contents of golden.safetensors, or None where the greedy continuation is of no use."""
    prompt = ids(vocab, 9, seed + 100)
    continued = greedy(logits, prompt, steps, vocab)
    if continued is None:
        return None
    tensors = {"greedy.prompt": prompt, "greedy.tokens": continued.contiguous()}
    for case, length in enumerate(lengths):
        tokens = ids(vocab, length, seed + case)
        tensors[f"case{case}.input_ids"] = tokens
        tensors[f"case{case}.logits"] = logits(tokens).float().contiguous()
    return tensors


def write_golden(folder, tensors):
    file = folder / "golden.safetensors"
    save_file(tensors, file)
    file.chmod(0o644)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name}: {size / 1000:.0f} kB, greedy {tensors['greedy.tokens'].tolist()[0]}")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")
