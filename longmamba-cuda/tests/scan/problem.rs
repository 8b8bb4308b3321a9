//! A scan to be done on the device and by the oracle.

use crate::rows::{Random, Stored, assert_close, rounded, rounding};
use longmamba_core::{DtLimits, Element, SelectiveScan, View, oracle};
use longmamba_cuda::{ChannelSums, Device, ScanElement, SelectiveScanInputs};
use std::ops::Range;

#[derive(Clone)]
pub struct Problem {
    /// batch, len, d_inner, d_state
    pub dims: [usize; 4],
    /// Unused elements between rows.
    pub gap: usize,
    pub x: Vec<f32>,
    pub dt_raw: Vec<f32>,
    pub b: Vec<f32>,
    pub c: Vec<f32>,
    pub z: Option<Vec<f32>>,
    /// `[d_state, d_inner]`
    pub a: Vec<f32>,
    pub d: Option<Vec<f32>>,
    pub dt_bias: Option<Vec<f32>>,
    pub delta_min: Option<Vec<f32>>,
    pub dt_limits: DtLimits,
    pub lengths: Option<Vec<u32>>,
    /// `[batch, d_state, d_inner]`
    pub state: Vec<f32>,
}

#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub y: Vec<f32>,
    pub state: Vec<f32>,
    pub delta_sum: Vec<f64>,
    pub kept_sum: Vec<f64>,
    pub kept: Vec<u64>,
}

impl Problem {
    /// Values that elements of type T can hold.
    pub fn new<T: Element>(dims: [usize; 4], gap: usize, seed: u64) -> Self {
        let [batch, len, d_inner, d_state] = dims;
        let mut r = Random::new(seed);
        let mut rows = |width, low, high| rounded::<T>(&r.vec(batch * len * width, low, high));
        let (x, dt_raw, z) =
            (rows(d_inner, -2., 2.), rows(d_inner, -7., 2.), rows(d_inner, -3., 3.));
        let (b, c) = (rows(d_state, -1., 1.), rows(d_state, -1., 1.));
        Problem {
            dims,
            gap,
            x,
            dt_raw,
            b,
            c,
            z: Some(z),
            a: r.vec(d_state * d_inner, -8., -0.05),
            d: Some(r.vec(d_inner, -1., 1.)),
            dt_bias: Some(r.vec(d_inner, -1., 1.)),
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
            state: r.vec(batch * d_state * d_inner, -1., 1.),
        }
    }

    /// Every other channel drops about half of its tokens, with a threshold in the widest gap between
    /// its values of delta, so that no rounding can decide.
    pub fn masked(mut self) -> Self {
        let [batch, len, d_inner, _] = self.dims;
        let threshold = |c: usize| {
            let bias = self.dt_bias.as_ref().map_or(0.0, |bias| bias[c]);
            let raw = (0..batch * len).map(|row| self.dt_raw[row * d_inner + c]);
            let mut deltas: Vec<f64> =
                raw.map(|raw| oracle::delta(raw, bias, self.dt_limits)).collect();
            deltas.sort_by(f64::total_cmp);
            let middle = deltas.len() / 2;
            let near = &deltas[middle.saturating_sub(8)..(middle + 8).min(deltas.len())];
            let gaps = near.windows(2).max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
            gaps.map_or(0.0, |gap| ((gap[0] + gap[1]) / 2.0) as f32)
        };
        let all = (0..d_inner).map(|c| if c % 2 == 0 { threshold(c) } else { 0.0 }).collect();
        self.delta_min = Some(all);
        self
    }

    pub fn tokens(&self, sequence: usize) -> usize {
        let len = self.dims[1];
        self.lengths.as_ref().map_or(len, |lengths| len.min(lengths[sequence] as usize))
    }

    /// On the device, in the parts that `ends` cuts the tokens into.
    pub fn run<T: ScanElement + Element>(&self, device: &Device, ends: &[usize]) -> Outcome {
        let [batch, len, d_inner, d_state] = self.dims;
        let upload = |values: &Vec<f32>| device.upload(values).unwrap();
        let a = upload(&self.a);
        let d = self.d.as_ref().map(upload);
        let dt_bias = self.dt_bias.as_ref().map(upload);
        let delta_min = self.delta_min.as_ref().map(upload);
        let mut state = upload(&self.state);
        let mut delta_sum = device.zeros(batch * d_inner).unwrap();
        let mut kept_sum = device.zeros(batch * d_inner).unwrap();
        let mut kept = device.zeros(batch * d_inner).unwrap();
        let mut whole = vec![0.0; batch * len * d_inner];
        let mut start = 0;
        for &end in ends.iter().chain([&len]) {
            let (part, tokens) = (end - start, start..end);
            let stored = |values: &[f32], width| {
                let values = cut(values, [batch, len, width], &tokens);
                Stored::<T>::new(device, &values, width, self.gap)
            };
            let (x, dt_raw) = (stored(&self.x, d_inner), stored(&self.dt_raw, d_inner));
            let (b, c) = (stored(&self.b, d_state), stored(&self.c, d_state));
            let z = self.z.as_ref().map(|z| stored(z, d_inner));
            let mut y = stored(&vec![7.0; batch * len * d_inner], d_inner);
            let within = |&n: &u32| n.clamp(start as u32, end as u32) - start as u32;
            let lengths: Option<Vec<u32>> =
                self.lengths.as_ref().map(|lengths| lengths.iter().map(within).collect());
            let lengths = lengths.map(|lengths| device.upload(&lengths).unwrap());
            let inputs = SelectiveScanInputs {
                batch,
                x: x.rows(),
                dt_raw: dt_raw.rows(),
                b: b.rows(),
                c: c.rows(),
                z: z.as_ref().map(Stored::rows),
                a: &a,
                d: d.as_ref(),
                dt_bias: dt_bias.as_ref(),
                delta_min: delta_min.as_ref(),
                dt_limits: self.dt_limits,
                lengths: lengths.as_ref(),
            };
            let sums =
                ChannelSums { delta_sum: &mut delta_sum, kept_sum: &mut kept_sum, kept: &mut kept };
            device.selective_scan(part, inputs, y.rows_mut(), &mut state, Some(sums)).unwrap();
            for (row, values) in y.values().chunks(d_inner.max(1)).enumerate() {
                let at = (row / part * len + start + row % part) * d_inner;
                whole[at..at + d_inner].copy_from_slice(values);
            }
            start = end;
        }
        Outcome {
            y: whole,
            state: state.to_vec().unwrap(),
            delta_sum: delta_sum.to_vec().unwrap(),
            kept_sum: kept_sum.to_vec().unwrap(),
            kept: kept.to_vec().unwrap(),
        }
    }

    /// The oracle's answer, with the state as `[batch, d_state, d_inner]`.
    pub fn expected(&self) -> oracle::ScanResult {
        let [batch, len, d_inner, d_state] = self.dims;
        let lengths: Option<Vec<usize>> =
            self.lengths.as_ref().map(|_| (0..batch).map(|s| self.tokens(s)).collect());
        let rows = |values, width| View::new(values, [batch, len, width]).unwrap();
        let args = SelectiveScan::new(longmamba_core::SelectiveScanInputs {
            x: rows(&self.x, d_inner),
            dt_raw: rows(&self.dt_raw, d_inner),
            a: View::new(&self.a, [d_state, d_inner]).unwrap().permute([1, 0]).unwrap(),
            b: rows(&self.b, d_state),
            c: rows(&self.c, d_state),
            z: self.z.as_ref().map(|z| rows(z, d_inner)),
            d: self.d.as_deref(),
            dt_bias: self.dt_bias.as_deref(),
            delta_min: self.delta_min.as_deref(),
            dt_limits: self.dt_limits,
            lengths: lengths.as_deref(),
        });
        let initial: Vec<f64> = self.state.iter().map(|&v| f64::from(v)).collect();
        let initial = transposed(&initial, batch, d_state, d_inner);
        let mut result = oracle::selective_scan(&args.unwrap(), &initial);
        result.state = transposed(&result.state, batch, d_inner, d_state);
        result
    }

    pub fn check<T: ScanElement + Element>(&self, what: &str, outcome: &Outcome) {
        let expected = self.expected();
        let what = format!("{what} {} {:?} gap {}", T::DTYPE, self.dims, self.gap);
        assert_close(&format!("{what} y"), &outcome.y, &expected.y, 1e-5, rounding::<T>());
        assert_close(&format!("{what} state"), &outcome.state, &expected.state, 1e-5, 1e-5);
        let narrow = |sums: &[f64]| sums.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (all, kept) = (narrow(&outcome.delta_sum), narrow(&outcome.kept_sum));
        assert_close(&format!("{what} sum of delta"), &all, &expected.delta_sum, 2e-6, 2e-6);
        assert_close(&format!("{what} kept sum"), &kept, &expected.kept_sum, 2e-6, 2e-6);
        assert_eq!(outcome.kept, expected.kept, "{what} kept");
    }
}

/// Of `[batch, len, width]`, some tokens of every sequence.
fn cut(values: &[f32], [batch, len, width]: [usize; 3], tokens: &Range<usize>) -> Vec<f32> {
    let part = |s| &values[(s * len + tokens.start) * width..(s * len + tokens.end) * width];
    (0..batch).flat_map(part).copied().collect()
}

/// `[batch, rows, columns]` as `[batch, columns, rows]`.
fn transposed(values: &[f64], batch: usize, rows: usize, columns: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for s in 0..batch {
        for column in 0..columns {
            out.extend((0..rows).map(|row| values[(s * rows + row) * columns + column]));
        }
    }
    out
}
