"""Checkpoints in Hugging Face's format, with what the first fixtures leave out; logits by transformers.

    python make_transformers.py [NAME...]
"""

import copy
import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import common

MAMBA2 = {"hidden_size": 32, "state_size": 16, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "chunk_size": 16}

ZAMBA2 = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "adapter_rank": 4,
    "num_attention_heads": 4,
    "mamba_d_state": 8,
    "n_mamba_heads": 4,
    "chunk_size": 16,
    "layers_block_type": ["linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid"],
    "num_hidden_layers": 5,
}

# name: (model type, config, how config.json is rewritten before the reference reads it)
CASES = {
    "mamba-hf-options": ("mamba", {
        "hidden_size": 32, "expand": 3, "state_size": 8, "conv_kernel": 3, "time_step_rank": 5,
        "num_hidden_layers": 2, "use_bias": True, "use_conv_bias": False, "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-2,
    }, None),
    # intermediate_size in config.json goes before expand, as tiiuae/falcon-mamba-7b needs (expand 16, 2 in truth).
    "falcon-mamba-hf-options": ("falcon_mamba", {
        "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "use_bias": True, "mixer_rms_eps": 1e-2,
        "tie_word_embeddings": False,
    }, lambda config: config | {"expand": 16}),
    # The limits bite, and the epsilon is felt in the gated norm too.
    "mamba2-hf-options": ("mamba2", MAMBA2 | {
        "n_groups": 2, "time_step_limit": [0.05, 0.4], "use_bias": True, "use_conv_bias": False,
        "tie_word_embeddings": False, "layer_norm_epsilon": 1e-2,
    }, None),
    # A file for every few tensors, and model.safetensors.index.json.
    "mamba2-hf-sharded": ("mamba2", MAMBA2 | {
        "hidden_size": 24, "num_heads": 6, "n_groups": 1, "tie_word_embeddings": True,
    }, None),
    # Three hybrid layers over two blocks, rotary, adapters in attention and MLP, two groups.
    "zamba2-hf-2block-rope": ("zamba2", ZAMBA2 | {
        "num_mem_blocks": 2, "use_mem_rope": True, "use_shared_attention_adapter": True, "mamba_ngroups": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 200.0},
    }, None),
    # Adapters without rotary. Layer names and fields as in the published checkpoints; use_conv_bias is not heeded.
    "zamba2-hf-adapters": ("zamba2", ZAMBA2 | {
        "use_shared_attention_adapter": True, "use_conv_bias": False,
    }, lambda config: as_published(config)),
    # Rotary without adapters in attention, shared key heads, biases, an untied head, and a least dt that bites.
    # Two hybrid layers only: under an untied head transformers shares no blocks either.
    "zamba2-hf-options": ("zamba2", ZAMBA2 | {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid", "linear_attention"], "num_hidden_layers": 4,
        "num_mem_blocks": 2, "use_mem_rope": True, "num_key_value_heads": 2, "add_bias_linear": True,
        "time_step_min": 0.1, "rms_norm_eps": 1e-2, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 200.0},
    }, lambda config: as_published(config)),
}


def as_published(config):
    """The same model, said as the config.json of Zyphra's checkpoints says it."""
    names = {"linear_attention": "mamba", "hybrid": "hybrid"}
    config = dict(config)
    config["layers_block_type"] = [names[kind] for kind in config["layers_block_type"]]
    config["rope_theta"] = (config.pop("rope_parameters", None) or {}).get("rope_theta", 10000)
    config["time_step_limit"] = None
    return config


def make(name):
    kind, fields, rewrite = CASES[name]
    folder = common.FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model(kind, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields)
    for seed in range(200):
        model = lively_model(config, seed)
        golden = common.golden(lambda tokens: run(model, tokens), 64, seed=seed)
        if golden is not None and rounding(model, golden["case0.input_ids"]) < 1e-5:
            break
    else:
        sys.exit(f"{name}: no seed will do")

    for old in folder.iterdir():
        old.unlink()
    model.save_pretrained(folder, max_shard_size="20KB" if name.endswith("sharded") else "1GB")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    (folder / "generation_config.json").unlink(missing_ok=True)
    file = folder / "config.json"
    if rewrite is not None:
        common.write_json(file, rewrite(json.loads(file.read_text())))

    # What counts is what the folder says.
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for case in ("case0", "case1"):
        off = difference(run(again, golden[f"{case}.input_ids"]), golden[f"{case}.logits"])
        assert off < 1e-5, f"{name}: read back, the model is off by {off:.1e}"
    least = common.check_every_weight_matters(
        lambda tokens: run(again, tokens), dict(again.named_parameters()), golden["case0.input_ids"]
    )
    common.write_golden(folder, golden)
    print(f"  seed {seed}; the least felt tensor is {least[0]} ({least[1]:.3f})")
    tokens, expected = golden["case0.input_ids"], golden["case0.logits"]
    print(f"  its own decoding with a cache differs by {difference(token_by_token(again, tokens), expected):.1e}")
    print(f"  without limits on dt logits would differ by {difference(run(without_limits(again), tokens), expected):.1e}")


def lively_model(config, seed):
    random = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            tensor.copy_(common.lively(key, tensor.shape, random))
        if not config.tie_word_embeddings:
            model.lm_head.weight.mul_(2)
    return model


def run(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def token_by_token(model, tokens):
    name = "past_key_values" if model.config.model_type == "zamba2" else "cache_params"
    state, rows = {}, []
    with torch.no_grad():
        for t in range(tokens.shape[1]):
            out = model(tokens[:, t : t + 1], use_cache=True, **state)
            state = {name: getattr(out, name)}
            rows.append(out.logits)
    return torch.cat(rows, dim=1)


def rounding(model, tokens):
    """The same model computed in two orders. Decoding ignores limits on dt, so they are lifted."""
    free = without_limits(copy.deepcopy(model))
    return difference(token_by_token(free, tokens), run(free, tokens))


def without_limits(model):
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.0, float("inf"))
    return model


def difference(actual, expected):
    """Relative to the largest logit."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        make(name)
