//! The whole model in `f64`, from the tensors of its file, against a session.
//!
//! Every operation is one of `longmamba_core::oracle`, which takes `f32` and computes in `f64`: between
//! two of them values are rounded to `f32`, and the residual stream is kept in `f64`.

mod common;

use common::{Shape, Tensors, VOCAB, plan, random_tokens, shapes};
use longmamba_core::{DtLimits, SelectiveScan, SelectiveScanInputs, Ssd, SsdInputs, View, oracle};
use longmamba_model::policy::Lookup;
use longmamba_model::{Session, SessionOptions};
use oracle::ScanResult;
use proptest::prelude::*;
use proptest::sample::Index;

/// How far a logit may be from the oracle's, relative to the largest of its position: five times the
/// worst of some thousand models.
const ROUNDING: f64 = 2e-5;

/// A Δ this near to its threshold, relatively, may be kept by one and dropped by the other. Those that
/// would be equal but for rounding are 1e-5 apart: see `policy::TIE`.
const NEAR: f64 = 5e-6;

struct Model {
    shape: Shape,
    tensors: Tensors,
}

/// What the model says of some tokens.
struct Outcome {
    /// `[len, VOCAB]`
    logits: Vec<f64>,
    /// One a layer.
    scans: Vec<ScanResult>,
    /// How near the nearest Δ is to its threshold, relatively.
    nearest: f64,
}

/// The thresholds of a layer, `[channels]`.
type DeltaMin = Vec<f32>;

impl Model {
    fn new(shape: Shape) -> Self {
        Model { shape, tensors: shape.tensors() }
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

    fn run(&self, tokens: &[u32], delta_min: Option<&[DeltaMin]>) -> Outcome {
        let (len, d_model) = (tokens.len(), self.shape.d_model);
        let embedding = self.vector("backbone.embeddings.weight");
        let mut hidden: Vec<f64> = tokens
            .iter()
            .flat_map(|&token| &embedding[token as usize * d_model..][..d_model])
            .map(|&v| v.into())
            .collect();
        let mut out = Outcome { logits: Vec::new(), scans: Vec::new(), nearest: f64::INFINITY };
        for layer in 0..self.shape.layers {
            let name = format!("backbone.layers.{layer}");
            let u = self.norm(&format!("{name}.norm"), &hidden, len);
            let delta_min = delta_min.map(|all| &all[layer][..]);
            let mixer = format!("{name}.mixer");
            let mixed = match self.shape.mamba2 {
                false => self.mamba1(&mixer, &u, len, delta_min, &mut out),
                true => self.mamba2(&mixer, &u, len, delta_min, &mut out),
            };
            hidden.iter_mut().zip(mixed).for_each(|(h, m)| *h += m);
        }
        let normed = self.norm("backbone.norm_f", &hidden, len);
        let head = if self.shape.tied { "backbone.embeddings" } else { "lm_head" };
        out.logits = self.linear(head, &normed, len);
        out
    }

    fn mamba1(
        &self,
        name: &str,
        u: &[f64],
        len: usize,
        delta_min: Option<&[f32]>,
        out: &mut Outcome,
    ) -> Vec<f64> {
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
        let b = round(&columns(&chosen, len, rank, d_state));
        let c = round(&columns(&chosen, len, rank + d_state, d_state));
        let (x, z, dt_raw, a) = (round(&x), round(&z), round(&dt_raw), self.decay_rates(name));
        let args = SelectiveScan::new(SelectiveScanInputs {
            x: View::new(&x, [1, len, d_inner]).unwrap(),
            dt_raw: View::new(&dt_raw, [1, len, d_inner]).unwrap(),
            a: View::new(&a, [d_inner, d_state]).unwrap(),
            b: View::new(&b, [1, len, d_state]).unwrap(),
            c: View::new(&c, [1, len, d_state]).unwrap(),
            z: Some(View::new(&z, [1, len, d_inner]).unwrap()),
            d: Some(self.vector(&part("D"))),
            dt_bias: Some(self.vector(&part("dt_proj.bias"))),
            delta_min,
            dt_limits: DtLimits::default(),
            lengths: None,
        })
        .unwrap();
        out.look_at(&dt_raw, self.vector(&part("dt_proj.bias")), delta_min);
        let scan = oracle::selective_scan(&args, &vec![0.0; d_inner * d_state]);
        let mixed = self.linear(&part("out_proj"), &scan.y, len);
        out.scans.push(scan);
        mixed
    }

    fn mamba2(
        &self,
        name: &str,
        u: &[f64],
        len: usize,
        delta_min: Option<&[f32]>,
        out: &mut Outcome,
    ) -> Vec<f64> {
        let Shape { d_model, d_state, groups, head_dim, .. } = self.shape;
        let (d_inner, grouped) = (2 * d_model, groups * d_state);
        let heads = d_inner / head_dim;
        let part = |part: &str| format!("{name}.{part}");
        let projected = self.linear(&part("in_proj"), u, len);
        // z, x, B, C, Δ.
        let conv_dim = d_inner + 2 * grouped;
        let z = round(&columns(&projected, len, 0, d_inner));
        let xbc = columns(&projected, len, d_inner, conv_dim);
        let dt_raw = round(&columns(&projected, len, d_inner + conv_dim, heads));
        let xbc = self.conv(&part("conv1d"), &xbc, len);
        let x = round(&columns(&xbc, len, 0, d_inner));
        let b = round(&columns(&xbc, len, d_inner, grouped));
        let c = round(&columns(&xbc, len, d_inner + grouped, grouped));
        let a = self.decay_rates(name);
        let args = Ssd::new(SsdInputs {
            x: View::new(&x, [1, len, heads, head_dim]).unwrap(),
            dt_raw: View::new(&dt_raw, [1, len, heads]).unwrap(),
            a: &a,
            b: View::new(&b, [1, len, groups, d_state]).unwrap(),
            c: View::new(&c, [1, len, groups, d_state]).unwrap(),
            d: Some(self.vector(&part("D"))),
            dt_bias: Some(self.vector(&part("dt_bias"))),
            delta_min,
            dt_limits: DtLimits::default(),
            lengths: None,
        })
        .unwrap();
        out.look_at(&dt_raw, self.vector(&part("dt_bias")), delta_min);
        let scan = oracle::ssd(&args, &vec![0.0; d_inner * d_state]);
        let y = round(&scan.y);
        let (y, z) =
            (View::new(&y, [len, d_inner]).unwrap(), View::new(&z, [len, d_inner]).unwrap());
        let weight = self.vector(&part("norm.weight"));
        let gated = oracle::gated_rms_norm(&y, &z, weight, d_inner / groups, 1e-5);
        out.scans.push(scan);
        self.linear(&part("out_proj"), &gated, len)
    }
}

impl Outcome {
    /// Keeps how near Δ comes to a threshold.
    fn look_at(&mut self, dt_raw: &[f32], dt_bias: &[f32], delta_min: Option<&[f32]>) {
        let Some(delta_min) = delta_min else { return };
        for (i, &raw) in dt_raw.iter().enumerate() {
            let channel = i % delta_min.len();
            let min = f64::from(delta_min[channel]);
            if min > 0.0 {
                let delta = oracle::delta(raw, dt_bias[channel], DtLimits::default());
                self.nearest = self.nearest.min((delta / min - 1.0).abs());
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

fn assert_agrees(session: &Session, logits: &[f32], expected: &Outcome, what: &str) {
    assert_eq!(logits.len(), expected.logits.len(), "{what}");
    for (t, (a, e)) in logits.chunks(VOCAB).zip(expected.logits.chunks(VOCAB)).enumerate() {
        let largest = e.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (&a, &e)) in a.iter().zip(e).enumerate() {
            let error = (f64::from(a) - e).abs();
            // Written so that NaN fails.
            assert!(error <= ROUNDING * largest, "{what}: token {t}, [{i}] is {a}, expected {e}");
        }
    }
    for (layer, scan) in expected.scans.iter().enumerate() {
        let sums = session.delta_sums(layer).unwrap();
        assert_eq!(sums.kept, scan.kept, "{what}: layer {layer}");
        let pairs = [(&sums.delta_sum, &scan.delta_sum), (&sums.kept_sum, &scan.kept_sum)];
        for (a, e) in pairs.iter().flat_map(|(a, e)| a.iter().zip(e.iter())) {
            assert!((a - e).abs() <= ROUNDING * e.max(1e-3), "{what}: Σ Δ is {a}, expected {e}");
        }
    }
}

/// Logits of every position, of a prompt that is given in pieces.
fn read(session: &mut Session, tokens: &[u32], cuts: &[Index]) -> Vec<f32> {
    let len = tokens.len();
    session.prefill_of(len).unwrap();
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(len)).chain([0, len]).collect();
    cuts.sort_unstable();
    let mut all = Vec::new();
    for cut in cuts.windows(2).filter(|cut| cut[0] < cut[1]) {
        let piece = &tokens[cut[0]..cut[1]];
        session
            .prefill_scored(piece, 0..piece.len(), |_, logits| all.extend_from_slice(logits))
            .unwrap();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..Default::default() })]

    #[test]
    fn a_session_agrees_with_the_oracle(
        shape in shapes(),
        len in 1usize..90,
        chunk_len in 1usize..100,
        cuts in proptest::collection::vec(any::<Index>(), 0..4),
    ) {
        let tokens = random_tokens(shape.seed ^ 5, len);
        let options = SessionOptions { chunk_len, ..Default::default() };
        let mut session = shape.model().session(options).unwrap();
        let logits = read(&mut session, &tokens, &cuts);
        let expected = Model::new(shape).run(&tokens, None);
        assert_agrees(&session, &logits, &expected, "prefill");
    }

    /// A prompt, and steps after it.
    #[test]
    fn steps_agree_with_the_oracle(shape in shapes(), len in 0usize..20, steps in 1usize..12) {
        let tokens = random_tokens(shape.seed ^ 6, len + steps);
        let mut session = shape.model().session(SessionOptions::default()).unwrap();
        let mut logits = if len > 0 { read(&mut session, &tokens[..len], &[]) } else { Vec::new() };
        for &token in &tokens[len..] {
            session.step(token).unwrap();
            logits.extend_from_slice(session.logits());
        }
        let expected = Model::new(shape).run(&tokens, None);
        assert_agrees(&session, &logits, &expected, "steps");
    }

    /// With a plan: Δ at or below its threshold counts as 0, by the length of the whole prompt.
    #[test]
    fn a_filtered_session_agrees_with_the_oracle(
        shape in shapes(),
        len in 1usize..200,
        chunk_len in 1usize..100,
        cuts in proptest::collection::vec(any::<Index>(), 0..4),
        scale in prop_oneof![Just(1.0f32), 0.3f32..1.5],
    ) {
        let (model, tokens) = (shape.model(), random_tokens(shape.seed ^ 7, len));
        let plan = plan(&model);
        let channels = model.config().mixer.channels();
        let delta_min: Vec<DeltaMin> = (0..shape.layers)
            .map(|layer| {
                let mut out = vec![0.0; channels];
                plan.delta_min(layer, len, Lookup::Nearest, scale, &mut out).unwrap();
                out
            })
            .collect();
        let expected = Model::new(shape).run(&tokens, Some(&delta_min));
        prop_assume!(expected.nearest > NEAR);
        let options = SessionOptions {
            chunk_len,
            plan: Some(plan),
            lookup: Lookup::Nearest,
            threshold_scale: scale,
            ..Default::default()
        };
        let mut session = model.session(options).unwrap();
        let logits = read(&mut session, &tokens, &cuts);
        assert_agrees(&session, &logits, &expected, "filtered");
    }
}

/// The comparison can fail, and the filter does something: thresholds tell the two apart.
#[test]
fn the_filter_is_seen_in_the_oracle() {
    for mamba2 in [false, true] {
        let shape = Shape {
            mamba2,
            seed: 3,
            d_model: 16,
            layers: 2,
            d_state: 16,
            d_conv: 4,
            groups: 2,
            head_dim: 8,
            bias: true,
            tied: false,
        };
        let (model, tokens) = (shape.model(), random_tokens(4, 150));
        let plan = plan(&model);
        let channels = model.config().mixer.channels();
        let mut delta_min = vec![vec![0.0; channels]; 2];
        for (layer, out) in delta_min.iter_mut().enumerate() {
            plan.delta_min(layer, 150, Lookup::Nearest, 1.0, out).unwrap();
        }
        let oracle = Model::new(shape);
        let (plain, filtered) = (oracle.run(&tokens, None), oracle.run(&tokens, Some(&delta_min)));
        let dropped = |out: &Outcome| -> u64 {
            out.scans.iter().flat_map(|scan| &scan.kept).map(|kept| 150 - kept).sum()
        };
        assert_eq!(dropped(&plain), 0);
        assert!(dropped(&filtered) > 1000, "{}", dropped(&filtered));
        let apart = plain.logits.iter().zip(&filtered.logits).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f64::max) > 0.1);
    }
}
