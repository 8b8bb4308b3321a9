"""Models of the original state-spaces format, in plain PyTorch: one token after another, float64.

Written from the behaviour of state-spaces/mamba e9594ce, not from its kernels, which need a GPU. README.md
beside this file states every formula. A sequence is [len, width]; weights are a dict of named tensors.
"""

import math

import torch
import torch.nn.functional as F

EPS = 1e-5


def load(state_dict):
    return {name: tensor.double() for name, tensor in state_dict.items()}


class Scope:
    """The weights under a prefix, so that a layer names only its own."""

    def __init__(self, weights, prefix=""):
        self.weights, self.prefix = weights, prefix

    def __call__(self, name):
        return self.weights.get(self.prefix + name)

    def under(self, name):
        return Scope(self.weights, f"{self.prefix}{name}.")

    def linear(self, name, x):
        bias = self(f"{name}.bias")
        out = x @ self(f"{name}.weight").T
        return out if bias is None else out + bias


def norm(x, scope, rms):
    if rms:
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * scope("weight")
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + EPS) * scope("weight") + scope("bias")


def causal_conv(x, scope):
    """Per channel: out[t] = bias + sum over k of weight[k] * x[t - (taps - 1) + k], zeros before the start."""
    weight, bias = scope("conv1d.weight"), scope("conv1d.bias")
    taps = weight.shape[-1]
    padded = torch.cat([x.new_zeros(taps - 1, x.shape[1]), x])
    out = sum(weight[:, 0, k] * padded[k : k + len(x)] for k in range(taps))
    return out if bias is None else out + bias


def mamba1(u, scope, cfg):
    d_state = cfg.get("d_state", 16)
    x, z = scope.linear("in_proj", u).chunk(2, dim=-1)
    x = F.silu(causal_conv(x, scope))
    rank = scope("dt_proj.weight").shape[1]
    dt, b, c = scope.linear("x_proj", x).split([rank, d_state, d_state], dim=-1)
    delta = F.softplus(scope.linear("dt_proj", dt))
    a = -torch.exp(scope("A_log"))  # [d_inner, d_state]
    h = torch.zeros_like(a)
    rows = []
    for t in range(len(u)):
        h = torch.exp(delta[t, :, None] * a) * h + (delta[t] * x[t])[:, None] * b[t]
        rows.append(h @ c[t] + scope("D") * x[t])
    return scope.linear("out_proj", torch.stack(rows) * F.silu(z))


def mamba2(u, scope, cfg):
    d_inner = cfg.get("expand", 2) * u.shape[1]
    d_ssm = cfg.get("d_ssm") or d_inner
    head_dim, groups, d_state = cfg.get("headdim", 64), cfg.get("ngroups", 1), cfg.get("d_state", 128)
    low, high = cfg.get("dt_limit", (0.0, math.inf))
    heads, d_mlp = d_ssm // head_dim, d_inner - d_ssm
    shared = groups * d_state

    parts = [d_mlp, d_mlp, d_ssm, d_ssm + 2 * shared, heads]
    z0, x0, z, xbc, dt = scope.linear("in_proj", u).split(parts, dim=-1)
    x, b, c = F.silu(causal_conv(xbc, scope)).split([d_ssm, shared, shared], dim=-1)
    x = x.view(len(u), heads, head_dim)
    # Neighbouring heads share a group.
    b, c = (v.view(len(u), groups, d_state).repeat_interleave(heads // groups, dim=1) for v in (b, c))
    delta = F.softplus(dt + scope("dt_bias")).clamp(low, high)
    decay = torch.exp(delta * -torch.exp(scope("A_log")))  # [len, heads]
    d = scope("D").view(heads, -1)  # [heads, head_dim] with D_has_hdim, else [heads, 1]

    h = u.new_zeros(heads, head_dim, d_state)
    rows = []
    for t in range(len(u)):
        h = decay[t, :, None, None] * h + (delta[t, :, None] * x[t])[:, :, None] * b[t][:, None, :]
        rows.append(((h * c[t][:, None, :]).sum(-1) + d * x[t]).flatten())
    y = torch.stack(rows)

    if not cfg.get("rmsnorm", True):
        y = y * F.silu(z)
    elif cfg.get("norm_before_gate", False):
        y = grouped_rms(y, groups) * scope("norm.weight") * F.silu(z)
    else:
        y = grouped_rms(y * F.silu(z), groups) * scope("norm.weight")
    if d_mlp > 0:
        y = torch.cat([F.silu(z0) * x0, y], dim=-1)
    return scope.linear("out_proj", y)


def grouped_rms(y, groups):
    parts = y.view(len(y), groups, -1)
    return (parts / torch.sqrt(parts.pow(2).mean(-1, keepdim=True) + EPS)).flatten(1)


def rotate(x, cfg):
    """Rotary position embedding of the first rotary_emb_dim elements of every head; x is [len, heads, head_dim]."""
    dim = cfg.get("rotary_emb_dim", 0)
    if dim == 0:
        return x
    base = cfg.get("rotary_emb_base", 10000.0)
    frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.outer(torch.arange(len(x), dtype=torch.float64), frequency)[:, None, :]
    out = x.clone()
    if cfg.get("rotary_emb_interleaved", False):
        first, second = slice(0, dim, 2), slice(1, dim, 2)
    else:
        first, second = slice(0, dim // 2), slice(dim // 2, dim)
    out[..., first] = x[..., first] * angle.cos() - x[..., second] * angle.sin()
    out[..., second] = x[..., second] * angle.cos() + x[..., first] * angle.sin()
    return out


def attention(u, scope, cfg):
    assert cfg.get("causal", False), "without causal a token would see those after it"
    heads = cfg["num_heads"]
    kv_heads = cfg.get("num_heads_kv") or heads
    head_dim = cfg.get("head_dim") or u.shape[1] // heads
    mlp = math.ceil(cfg.get("mlp_dim", 0) / 256) * 256
    scale = cfg.get("softmax_scale") or head_dim**-0.5
    taps = cfg.get("d_conv", 0)

    widths = [(heads + 2 * kv_heads) * head_dim, mlp // 2, mlp // 2]
    qkv, up, gate = scope.linear("in_proj", u).split(widths, dim=-1)
    if taps > 0:
        qkv = causal_conv(qkv, scope)  # no activation
    q, k, v = qkv.view(len(u), -1, head_dim).split([heads, kv_heads, kv_heads], dim=1)
    q, k = rotate(q, cfg), rotate(k, cfg)
    # Neighbouring query heads share a key and value head.
    k, v = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (k, v))
    score = torch.einsum("thd,shd->hts", q, k) * scale
    hidden = torch.ones(len(u), len(u), dtype=torch.bool).triu(1)
    weight = score.masked_fill(hidden, -math.inf).softmax(dim=-1)
    context = torch.einsum("hts,shd->thd", weight, v).flatten(1)
    if mlp > 0:
        context = torch.cat([context, up * F.silu(gate)], dim=-1)
    return scope.linear("out_proj", context)


def gated_mlp(u, scope):
    up, gate = scope.linear("fc1", u).chunk(2, dim=-1)
    return scope.linear("fc2", up * F.silu(gate))


def sequence_logits(config, weights, tokens):
    root = Scope(weights)
    rms = config.get("rms_norm", True)
    ssm_cfg = dict(config.get("ssm_cfg") or {})
    mixer = {"Mamba1": mamba1, "Mamba2": mamba2}[ssm_cfg.pop("layer", "Mamba1")]
    x = root("backbone.embedding.weight")[tokens]
    for index in range(config["n_layer"]):
        layer = root.under(f"backbone.layers.{index}")
        u = norm(x, layer.under("norm"), rms)
        if index in (config.get("attn_layer_idx") or []):
            x = x + attention(u, layer.under("mixer"), config["attn_cfg"])
        else:
            x = x + mixer(u, layer.under("mixer"), ssm_cfg)
        if config.get("d_intermediate", 0) > 0:
            x = x + gated_mlp(norm(x, layer.under("norm2"), rms), layer.under("mlp"))
    x = norm(x, root.under("backbone.norm_f"), rms)
    tied = config.get("tie_embeddings", True)
    return x @ root("backbone.embedding.weight" if tied else "lm_head.weight").T


def logits(config, weights, tokens):
    """tokens [batch, len] to logits [batch, len, padded vocabulary]."""
    with torch.no_grad():
        return torch.stack([sequence_logits(config, weights, row) for row in tokens])
