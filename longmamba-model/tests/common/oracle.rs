//! The whole model in `f64`, from the tensors of its file.
//!
//! Every operation is one of `longmamba_core::oracle`, which takes `f32` and computes in `f64`: between
//! two of them values are rounded to `f32`, and the residual stream is kept in `f64`.

use super::{Shape, Tensors};
use longmamba_core::{DtLimits, SelectiveScan, SelectiveScanInputs, Ssd, SsdInputs, View, oracle};
use oracle::ScanResult;

pub struct Model {
    shape: Shape,
    tensors: Tensors,
}

/// What the model says of some tokens.
pub struct Outcome {
    /// `[len, VOCAB]`
    pub logits: Vec<f64>,
    /// One a layer.
    pub scans: Vec<ScanResult>,
    /// How near the nearest Δ is to its threshold, relatively.
    pub nearest: f64,
    /// The token of each row that is left.
    pub tokens: Vec<usize>,
}

/// The thresholds of a layer, `[channels]`.
pub type DeltaMin = Vec<f32>;

impl Model {
    pub fn new(shape: Shape) -> Self {
        Model::with(shape, shape.tensors())
    }

    /// With other weights than the shape's own.
    pub fn with(shape: Shape, tensors: Tensors) -> Self {
        Model { shape, tensors }
    }

    fn find(&self, name: &str) -> Option<(&[usize], &[f32])> {
        let (_, shape, values) = self.tensors.iter().find(|(n, ..)| n == name)?;
        Some((shape, values))
    }

    fn vector(&self, name: &str) -> &[f32] {
        self.find(name).expect("the file has it").1
    }

    fn matrix(&self, name: &str) -> View<'_, f32, 2> {
        let (shape, values) = self.find(name).expect("the file has it");
        // A convolution's weight is [channels, 1, width].
        View::new(values, [shape[0], shape[shape.len() - 1]]).unwrap()
    }

    /// `x · weightᵀ + bias`, `x` `[len, inputs]`.
    fn linear(&self, name: &str, x: &[f64], len: usize) -> Vec<f64> {
        let weight = self.matrix(&format!("{name}.weight"));
        let [outputs, inputs] = weight.shape();
        let x = round(x);
        let mut out = oracle::linear(&View::new(&x, [len, inputs]).unwrap(), &weight);
        if let Some((_, bias)) = self.find(&format!("{name}.bias")) {
            out.iter_mut().enumerate().for_each(|(i, v)| *v += f64::from(bias[i % outputs]));
        }
        out
    }

    fn norm(&self, name: &str, x: &[f64], len: usize) -> Vec<f64> {
        let x = round(x);
        let x = View::new(&x, [len, self.shape.d_model]).unwrap();
        oracle::rms_norm(&x, self.vector(&format!("{name}.weight")), 1e-5)
    }

    /// From an empty history, with its SiLU.
    fn conv(&self, name: &str, x: &[f64], len: usize) -> Vec<f64> {
        let weight = self.matrix(&format!("{name}.weight"));
        let [channels, width] = weight.shape();
        let (x, history) = (round(x), vec![0.0; (width - 1) * channels]);
        let x = View::new(&x, [len, channels]).unwrap();
        let bias = self.vector(&format!("{name}.bias"));
        oracle::causal_conv1d(&x, &weight, Some(bias), &history).0
    }

    /// A = −exp(A_log).
    fn decay_rates(&self, name: &str) -> Vec<f32> {
        self.vector(&format!("{name}.A_log")).iter().map(|a| -a.exp()).collect()
    }

    pub fn run(&self, tokens: &[u32], delta_min: Option<&[DeltaMin]>) -> Outcome {
        self.run_with(tokens, &mut |layer| {
            layer.delta_min = delta_min.map(|all| all[layer.index].clone());
            None
        })
    }

    /// `change` sees every layer before its scan, and may say which rows go on from there.
    pub fn run_with(&self, tokens: &[u32], change: Change<'_>) -> Outcome {
        let (mut len, d_model) = (tokens.len(), self.shape.d_model);
        let embedding = self.vector("backbone.embeddings.weight");
        let mut hidden: Vec<f64> = tokens
            .iter()
            .flat_map(|&token| &embedding[token as usize * d_model..][..d_model])
            .map(|&v| v.into())
            .collect();
        let mut out = Outcome {
            logits: Vec::new(),
            scans: Vec::new(),
            nearest: f64::INFINITY,
            tokens: (0..len).collect(),
        };
        for index in 0..self.shape.layers {
            let name = format!("backbone.layers.{index}");
            let u = self.norm(&format!("{name}.norm"), &hidden, len);
            let mixer = format!("{name}.mixer");
            let mut layer = match self.shape.mamba2 {
                false => self.mamba1(&mixer, &u, len, index),
                true => self.mamba2(&mixer, &u, len, index),
            };
            if let Some(kept) = change(&mut layer) {
                layer.keep(&kept);
                hidden = rows(&hidden, len, &kept);
                out.tokens = kept.iter().map(|&row| out.tokens[row]).collect();
                len = kept.len();
            }
            out.look_at(&layer);
            let (y, scan) = match self.shape.mamba2 {
                false => layer.selective_scan(self.vector(&format!("{mixer}.D"))),
                true => {
                    let (y, scan) = layer.ssd(self.vector(&format!("{mixer}.D")));
                    let width = y.len() / len;
                    let weight = self.vector(&format!("{mixer}.norm.weight"));
                    let y = round(&y);
                    let y = View::new(&y, [len, width]).unwrap();
                    let z = View::new(&layer.z, [len, width]).unwrap();
                    let group = width / self.shape.groups;
                    (oracle::gated_rms_norm(&y, &z, weight, group, 1e-5), scan)
                }
            };
            out.scans.push(scan);
            let mixed = self.linear(&format!("{mixer}.out_proj"), &y, len);
            hidden.iter_mut().zip(mixed).for_each(|(h, m)| *h += m);
        }
        let normed = self.norm("backbone.norm_f", &hidden, len);
        let head = if self.shape.tied { "backbone.embeddings" } else { "lm_head" };
        out.logits = self.linear(head, &normed, len);
        out
    }

    fn mamba1(&self, name: &str, u: &[f64], len: usize, index: usize) -> Layer {
        let (d_inner, d_state) = (2 * self.shape.d_model, self.shape.d_state);
        let part = |part: &str| format!("{name}.{part}");
        let xz = self.linear(&part("in_proj"), u, len);
        let (x, z) = (columns(&xz, len, 0, d_inner), columns(&xz, len, d_inner, d_inner));
        let x = self.conv(&part("conv1d"), &x, len);
        let chosen = self.linear(&part("x_proj"), &x, len);
        let rank = chosen.len() / len - 2 * d_state;
        // The bias of dt_proj goes into the softplus, where the scan adds it.
        let low = round(&columns(&chosen, len, 0, rank));
        let low = View::new(&low, [len, rank]).unwrap();
        let dt_raw = oracle::linear(&low, &self.matrix(&part("dt_proj.weight")));
        Layer {
            index,
            len,
            x: round(&x),
            z: round(&z),
            dt_raw: round(&dt_raw),
            a: self.decay_rates(name),
            b: round(&columns(&chosen, len, rank, d_state)),
            c: round(&columns(&chosen, len, rank + d_state, d_state)),
            dt_bias: self.vector(&part("dt_proj.bias")).to_vec(),
            groups: 1,
            d_state,
            delta_min: None,
        }
    }

    fn mamba2(&self, name: &str, u: &[f64], len: usize, index: usize) -> Layer {
        let Shape { d_model, d_state, groups, head_dim, .. } = self.shape;
        let (d_inner, grouped) = (2 * d_model, groups * d_state);
        let heads = d_inner / head_dim;
        let part = |part: &str| format!("{name}.{part}");
        let projected = self.linear(&part("in_proj"), u, len);
        // z, x, B, C, Δ.
        let conv_dim = d_inner + 2 * grouped;
        let xbc = columns(&projected, len, d_inner, conv_dim);
        let xbc = self.conv(&part("conv1d"), &xbc, len);
        Layer {
            index,
            len,
            x: round(&columns(&xbc, len, 0, d_inner)),
            z: round(&columns(&projected, len, 0, d_inner)),
            dt_raw: round(&columns(&projected, len, d_inner + conv_dim, heads)),
            a: self.decay_rates(name),
            b: round(&columns(&xbc, len, d_inner, grouped)),
            c: round(&columns(&xbc, len, d_inner + grouped, grouped)),
            dt_bias: self.vector(&part("dt_bias")).to_vec(),
            groups,
            d_state,
            delta_min: None,
        }
    }
}

/// What a test does to a layer before its scan.
pub type Change<'a> = &'a mut dyn FnMut(&mut Layer) -> Option<Vec<usize>>;

/// A layer before its scan, row-major.
pub struct Layer {
    pub index: usize,
    pub len: usize,
    /// `[len, d_inner]`
    pub x: Vec<f32>,
    /// `[len, d_inner]`
    pub z: Vec<f32>,
    /// `[len, channels]`
    pub dt_raw: Vec<f32>,
    /// `[heads]` or `[d_inner, d_state]`
    pub a: Vec<f32>,
    /// `[len, groups, d_state]`
    pub b: Vec<f32>,
    /// `[len, groups, d_state]`
    pub c: Vec<f32>,
    /// `[channels]`
    pub dt_bias: Vec<f32>,
    pub groups: usize,
    pub d_state: usize,
    pub delta_min: Option<DeltaMin>,
}

impl Layer {
    pub fn channels(&self) -> usize {
        self.dt_bias.len()
    }

    /// Δ `[len, channels]`, before a mask.
    pub fn delta(&self) -> Vec<f64> {
        let bias = self.dt_bias.iter().cycle();
        let pairs = self.dt_raw.iter().zip(bias);
        pairs.map(|(&raw, &bias)| oracle::delta(raw, bias, DtLimits::default())).collect()
    }

    fn keep(&mut self, kept: &[usize]) {
        let Layer { len, x, z, dt_raw, b, c, .. } = self;
        for values in [x, z, dt_raw, b, c] {
            *values = rows(values, *len, kept);
        }
        *len = kept.len();
    }

    fn selective_scan(&self, d: &[f32]) -> (Vec<f64>, ScanResult) {
        let (len, d_inner, d_state) = (self.len, self.channels(), self.d_state);
        let args = SelectiveScan::new(SelectiveScanInputs {
            x: View::new(&self.x, [1, len, d_inner]).unwrap(),
            dt_raw: View::new(&self.dt_raw, [1, len, d_inner]).unwrap(),
            a: View::new(&self.a, [d_inner, d_state]).unwrap(),
            b: View::new(&self.b, [1, len, d_state]).unwrap(),
            c: View::new(&self.c, [1, len, d_state]).unwrap(),
            z: Some(View::new(&self.z, [1, len, d_inner]).unwrap()),
            d: Some(d),
            dt_bias: Some(&self.dt_bias),
            delta_min: self.delta_min.as_deref(),
            dt_limits: DtLimits::default(),
            lengths: None,
        })
        .unwrap();
        let scan = oracle::selective_scan(&args, &vec![0.0; d_inner * d_state]);
        (scan.y.clone(), scan)
    }

    fn ssd(&self, d: &[f32]) -> (Vec<f64>, ScanResult) {
        let (len, heads, groups, d_state) = (self.len, self.channels(), self.groups, self.d_state);
        let d_inner = self.x.len() / len;
        let args = Ssd::new(SsdInputs {
            x: View::new(&self.x, [1, len, heads, d_inner / heads]).unwrap(),
            dt_raw: View::new(&self.dt_raw, [1, len, heads]).unwrap(),
            a: &self.a,
            b: View::new(&self.b, [1, len, groups, d_state]).unwrap(),
            c: View::new(&self.c, [1, len, groups, d_state]).unwrap(),
            d: Some(d),
            dt_bias: Some(&self.dt_bias),
            delta_min: self.delta_min.as_deref(),
            dt_limits: DtLimits::default(),
            lengths: None,
        })
        .unwrap();
        let scan = oracle::ssd(&args, &vec![0.0; d_inner * d_state]);
        (scan.y.clone(), scan)
    }
}

impl Outcome {
    /// Keeps how near Δ comes to a threshold.
    fn look_at(&mut self, layer: &Layer) {
        let Some(delta_min) = &layer.delta_min else { return };
        for (delta, &min) in layer.delta().iter().zip(delta_min.iter().cycle()) {
            if min > 0.0 {
                self.nearest = self.nearest.min((delta / f64::from(min) - 1.0).abs());
            }
        }
    }
}

fn round(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Columns `first..first + count` of `x` `[len, width]`.
fn columns(x: &[f64], len: usize, first: usize, count: usize) -> Vec<f64> {
    x.chunks(x.len() / len).flat_map(|row| &row[first..first + count]).copied().collect()
}

/// Some rows of `x` `[len, width]`.
fn rows<T: Copy>(x: &[T], len: usize, kept: &[usize]) -> Vec<T> {
    let width = x.len() / len;
    kept.iter().flat_map(|row| &x[row * width..][..width]).copied().collect()
}
