//! Every operation of a Mamba layer in `f64`, written to be obvious and nothing else. The kernels of
//! all backends are tested against these functions.

use crate::policy::kept;
use crate::{DtLimits, SelectiveScan, Ssd, View};

/// `ln(1 + eˣ)`, without overflow. Mamba's Δ is this of `dt_raw + dt_bias`.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `x · sigmoid(x)`.
pub fn silu(x: f64) -> f64 {
    if x >= 0.0 { x / (1.0 + (-x).exp()) } else { x * x.exp() / (1.0 + x.exp()) }
}

/// Δ of one token and channel, before the mask.
pub fn delta(dt_raw: f32, dt_bias: f32, limits: DtLimits) -> f64 {
    softplus(f64::from(dt_raw) + f64::from(dt_bias)).clamp(limits.min.into(), limits.max.into())
}

/// What a scan leaves behind. All in row-major order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScanResult {
    /// As y of the scan's outputs.
    pub y: Vec<f64>,
    /// `[batch, d_inner, d_state]` or `[batch, heads, head_dim, d_state]`.
    pub state: Vec<f64>,
    /// `[batch, channels]`: Σ Δ before the mask.
    pub delta_sum: Vec<f64>,
    /// `[batch, channels]`: Σ Δ of the kept tokens.
    pub kept_sum: Vec<f64>,
    /// `[batch, channels]`: how many tokens were kept.
    pub kept: Vec<u64>,
}

impl ScanResult {
    /// Counts Δ of one token; returns it masked.
    fn count(&mut self, at: usize, delta: f64, delta_min: Option<f32>) -> f64 {
        self.delta_sum[at] += delta;
        // The mask is decided in f32, as in the kernels: the threshold is a value of f32.
        if !kept(delta as f32, delta_min.unwrap_or(0.0)) {
            return 0.0;
        }
        self.kept_sum[at] += delta;
        self.kept[at] += 1;
        delta
    }

    fn new(y: usize, state: Vec<f64>, channels: usize) -> Self {
        ScanResult {
            y: vec![0.0; y],
            state,
            delta_sum: vec![0.0; channels],
            kept_sum: vec![0.0; channels],
            kept: vec![0; channels],
        }
    }
}

fn at<const R: usize>(view: &View<'_, f32, R>, index: [usize; R]) -> f64 {
    f64::from(view.get(index).expect("shapes were checked"))
}

/// Mamba-1. `initial` is `[batch, d_inner, d_state]`. Equations: [`SelectiveScanInputs`](crate::SelectiveScanInputs).
pub fn selective_scan(args: &SelectiveScan<'_>, initial: &[f64]) -> ScanResult {
    let [batch, len, d_inner, d_state] = args.dims();
    let mut out = ScanResult::new(batch * len * d_inner, initial.to_vec(), batch * d_inner);
    for b in 0..batch {
        for t in 0..args.length(b) {
            for c in 0..d_inner {
                let bias = args.dt_bias.map_or(0.0, |v| v[c]);
                let delta = delta(args.dt_raw.row([b, t, 0])[c], bias, args.dt_limits);
                let delta = out.count(b * d_inner + c, delta, args.delta_min.map(|v| v[c]));
                let x = at(&args.x, [b, t, c]);
                let mut y = args.d.map_or(0.0, |v| f64::from(v[c])) * x;
                for n in 0..d_state {
                    let h = &mut out.state[(b * d_inner + c) * d_state + n];
                    *h = (delta * at(&args.a, [c, n])).exp() * *h
                        + delta * at(&args.b, [b, t, n]) * x;
                    y += at(&args.c, [b, t, n]) * *h;
                }
                let gate = args.z.map_or(1.0, |z| silu(at(&z, [b, t, c])));
                out.y[(b * len + t) * d_inner + c] = y * gate;
            }
        }
    }
    out
}

/// Mamba-2. `initial` is `[batch, heads, head_dim, d_state]`. Equations: [`SsdInputs`](crate::SsdInputs).
pub fn ssd(args: &Ssd<'_>, initial: &[f64]) -> ScanResult {
    let [batch, len, heads, head_dim, groups, d_state] = args.dims();
    let mut out = ScanResult::new(batch * len * heads * head_dim, initial.to_vec(), batch * heads);
    for b in 0..batch {
        for t in 0..args.length(b) {
            for k in 0..heads {
                let g = k / (heads / groups);
                let bias = args.dt_bias.map_or(0.0, |v| v[k]);
                let delta = delta(args.dt_raw.row([b, t, 0])[k], bias, args.dt_limits);
                let delta = out.count(b * heads + k, delta, args.delta_min.map(|v| v[k]));
                for p in 0..head_dim {
                    let x = at(&args.x, [b, t, k, p]);
                    let mut y = args.d.map_or(0.0, |v| {
                        f64::from(if v.len() == heads { v[k] } else { v[k * head_dim + p] })
                    }) * x;
                    for n in 0..d_state {
                        let h = &mut out.state[((b * heads + k) * head_dim + p) * d_state + n];
                        *h = (delta * f64::from(args.a[k])).exp() * *h
                            + delta * at(&args.b, [b, t, g, n]) * x;
                        y += at(&args.c, [b, t, g, n]) * *h;
                    }
                    out.y[((b * len + t) * heads + k) * head_dim + p] = y;
                }
            }
        }
    }
    out
}

/// Depthwise causal convolution with SiLU.
///
/// `x` `[len, channels]`, `weight` `[channels, width]` (the last tap meets the newest token), `bias`
/// `[channels]`, `history` `[width - 1, channels]`: the inputs before `x`, oldest first. Returns y
/// `[len, channels]` and the history after `x`.
pub fn causal_conv1d(
    x: &View<'_, f32, 2>,
    weight: &View<'_, f32, 2>,
    bias: Option<&[f32]>,
    history: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let [len, channels] = x.shape();
    let [_, width] = weight.shape();
    let mut extended = history.to_vec();
    for t in 0..len {
        extended.extend((0..channels).map(|c| at(x, [t, c])));
    }
    let mut y = Vec::with_capacity(len * channels);
    for t in 0..len {
        for c in 0..channels {
            let sum: f64 =
                (0..width).map(|k| at(weight, [c, k]) * extended[(t + k) * channels + c]).sum();
            y.push(silu(sum + bias.map_or(0.0, |b| f64::from(b[c]))));
        }
    }
    (y, extended.split_off(len * channels))
}

/// `x / sqrt(mean(x²) + eps) · weight`, over each row of `x` `[rows, width]`.
pub fn rms_norm(x: &View<'_, f32, 2>, weight: &[f32], eps: f32) -> Vec<f64> {
    let [rows, width] = x.shape();
    let values = (0..rows).flat_map(|r| (0..width).map(move |i| (r, i)));
    let values: Vec<f64> = values.map(|(r, i)| at(x, [r, i])).collect();
    grouped_norm(&values, weight, width, width, eps)
}

/// Mamba-2's norm: [`rms_norm`] of `y · silu(z)` within each group of `group` neighbouring channels.
/// `y` and `z` are `[rows, width]`, `weight` is `[width]`.
pub fn gated_rms_norm(
    y: &View<'_, f32, 2>,
    z: &View<'_, f32, 2>,
    weight: &[f32],
    group: usize,
    eps: f32,
) -> Vec<f64> {
    let [rows, width] = y.shape();
    let mut values = Vec::with_capacity(rows * width);
    for r in 0..rows {
        values.extend((0..width).map(|i| at(y, [r, i]) * silu(at(z, [r, i]))));
    }
    grouped_norm(&values, weight, width, group, eps)
}

fn grouped_norm(values: &[f64], weight: &[f32], width: usize, group: usize, eps: f32) -> Vec<f64> {
    let mut out = values.to_vec();
    for (index, part) in out.chunks_mut(group).enumerate() {
        let mean = part.iter().map(|v| v * v).sum::<f64>() / group as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        for (i, value) in part.iter_mut().enumerate() {
            *value *= scale * f64::from(weight[(index * group + i) % width]);
        }
    }
    out
}

/// `x · wᵀ`: `x` `[rows, inputs]`, `w` `[outputs, inputs]` widened to f32, result `[rows, outputs]`.
pub fn linear(x: &View<'_, f32, 2>, w: &View<'_, f32, 2>) -> Vec<f64> {
    let [rows, inputs] = x.shape();
    let [outputs, _] = w.shape();
    let mut out = Vec::with_capacity(rows * outputs);
    for r in 0..rows {
        out.extend(
            (0..outputs).map(|o| (0..inputs).map(|i| at(x, [r, i]) * at(w, [o, i])).sum::<f64>()),
        );
    }
    out
}

/// `x · Φ(x)`, Φ the distribution function of the normal distribution.
pub fn gelu(x: f64) -> f64 {
    // erf(a) = 2/√π · e^(−a²) · Σ 2ⁿ a^(2n+1) / (2n+1)!!: no term is negative.
    let a = x.abs() * std::f64::consts::FRAC_1_SQRT_2;
    let (mut term, mut sum) = (a, 0.0);
    for n in 0..400 {
        sum += term;
        term *= 2.0 * a * a / f64::from(2 * n + 3);
    }
    let erf = if a > 6.0 { 1.0 } else { std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp() * sum };
    x * 0.5 * (1.0 + erf.copysign(x))
}

/// Causal softmax attention of `q[rows, heads, head_dim]`, whose first row is at `position`, to `k` and
/// `v` `[position + rows, kv_heads, head_dim]`; a query sees the last `window` positions up to its own.
pub fn attention(
    q: &View<'_, f32, 3>,
    k: &View<'_, f32, 3>,
    v: &View<'_, f32, 3>,
    position: usize,
    window: usize,
    scale: f32,
) -> Vec<f64> {
    let [rows, heads, head_dim] = q.shape();
    let [_, kv_heads, _] = k.shape();
    let at = |view: &View<'_, f32, 3>, index| f64::from(view.get(index).unwrap_or(f32::NAN));
    let mut out = Vec::with_capacity(rows * heads * head_dim);
    for (r, h) in (0..rows * heads).map(|i| (i / heads, i % heads)) {
        let g = h * kv_heads / heads;
        let seen = (position + r + 1).saturating_sub(window)..position + r + 1;
        let score = |j| (0..head_dim).map(|d| at(q, [r, h, d]) * at(k, [j, g, d])).sum::<f64>();
        let scores: Vec<f64> = seen.clone().map(|j| score(j) * f64::from(scale)).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..head_dim {
            let sum: f64 = seen.clone().zip(&weights).map(|(j, w)| w * at(v, [j, g, d])).sum();
            out.push(sum / total);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SelectiveScanInputs, SsdInputs};

    #[test]
    fn softplus_and_silu_at_their_corners() {
        assert_eq!(softplus(1000.0), 1000.0);
        assert!((softplus(0.0) - std::f64::consts::LN_2).abs() < 1e-15);
        assert!((softplus(-50.0) / (-50f64).exp() - 1.0).abs() < 1e-12);
        assert_eq!(silu(-1e4), -0.0);
        assert!((silu(1.0) - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-15);
    }

    /// One channel, one state, two tokens, by hand: softplus(0) = ln 2 = Δ, A = -1, so each token
    /// halves the state. h₁ = Δ·B·x = ln2·1·2; h₂ = h₁/2 + ln2·3·1; y = C·h + D·x.
    #[test]
    fn both_scans_agree_with_a_hand_worked_case() {
        let ln2 = std::f64::consts::LN_2;
        let (x, dt, b, c) = ([2.0f32, 1.0], [0.0f32; 2], [1.0f32, 3.0], [10.0f32, 100.0]);
        let expected_h = [2.0 * ln2, ln2 + 3.0 * ln2];
        let expected_y = [10.0 * expected_h[0] + 0.5 * 2.0, 100.0 * expected_h[1] + 0.5];
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        let three = |v| View::new(v, [1, 2, 1]).unwrap();
        let four = |v| View::new(v, [1, 2, 1, 1]).unwrap();
        let one = SelectiveScan::new(SelectiveScanInputs {
            x: three(&x),
            dt_raw: three(&dt),
            a: View::new(&[-1.0], [1, 1]).unwrap(),
            b: three(&b),
            c: three(&c),
            z: None,
            d: Some(&[0.5]),
            dt_bias: None,
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
        })
        .unwrap();
        let two = Ssd::new(SsdInputs {
            x: four(&x),
            dt_raw: three(&dt),
            a: &[-1.0],
            b: four(&b),
            c: four(&c),
            d: Some(&[0.5]),
            dt_bias: None,
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
        })
        .unwrap();
        for out in [selective_scan(&one, &[0.0]), ssd(&two, &[0.0])] {
            close(out.y[0], expected_y[0]);
            close(out.y[1], expected_y[1]);
            close(out.state[0], expected_h[1]);
            close(out.delta_sum[0], 2.0 * ln2);
            assert_eq!(out.kept, [2]);
        }
        // A threshold above Δ drops every token: the state stays, C still reads it, D still applies.
        let masked =
            SelectiveScan::new(SelectiveScanInputs { delta_min: Some(&[1.0]), ..*one }).unwrap();
        let out = selective_scan(&masked, &[3.0]);
        assert_eq!((out.state[0], out.y[1], out.kept[0]), (3.0, 300.5, 0));
    }

    #[test]
    fn convolution_by_hand() {
        // One channel, taps 1, 10 (newest), history 5: pre-activations 5 + 10·1 and 1 + 10·2.
        let x = View::new(&[1.0f32, 2.0], [2, 1]).unwrap();
        let w = View::new(&[1.0f32, 10.0], [1, 2]).unwrap();
        let (y, history) = causal_conv1d(&x, &w, Some(&[0.0]), &[5.0]);
        assert_eq!(y, [silu(15.0), silu(21.0)]);
        assert_eq!(history, [2.0]);
    }

    #[test]
    fn arguments_are_checked_by_name() {
        let data = [0.0f32; 16];
        let view = |len| View::new(&data[..len], [1, len, 1]).unwrap();
        let good = SelectiveScanInputs {
            x: view(4),
            dt_raw: view(4),
            a: View::new(&[-1.0], [1, 1]).unwrap(),
            b: view(4),
            c: view(4),
            z: None,
            d: None,
            dt_bias: None,
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
        };
        let message = |inputs| SelectiveScan::new(inputs).unwrap_err().to_string();
        assert_eq!(
            message(SelectiveScanInputs { b: view(3), ..good }),
            "B has shape [1, 3, 1], expected [1, 4, 1]"
        );
        let positive = View::new(&[0.5], [1, 1]).unwrap();
        assert_eq!(
            message(SelectiveScanInputs { a: positive, ..good }),
            "A[0] is 0.5, must be a finite number ≤ 0"
        );
        assert!(
            message(SelectiveScanInputs { lengths: Some(&[5]), ..good })
                .contains("lengths[0] is 5")
        );
        assert!(
            message(SelectiveScanInputs { d: Some(&[]), ..good }).starts_with("D has shape [0]")
        );
        let bad = DtLimits { min: 0.1, max: 0.0 };
        assert!(message(SelectiveScanInputs { dt_limits: bad, ..good }).contains("dt limits[1]"));
    }
}
