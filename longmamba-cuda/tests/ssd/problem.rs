//! A scan with its inputs, how it is run on the device, and what it must give.

use crate::common::device;
pub use crate::rows::{Random, assert_within};
use half::{bf16, f16};
use longmamba_core::{DtLimits, Ssd, SsdInputs as Arguments, View, oracle};
use longmamba_cuda::{
    Buffer, ChannelSums, Device, Precision, Rows, RowsMut, SsdElement, SsdInputs, SsdScratch,
};
use std::ops::Range;

/// An element, and what rounding to it costs.
pub trait Element: SsdElement {
    const NAME: &'static str;
    /// The largest relative error of rounding: to an element, and to what tensor cores are given.
    const ROUNDING: f64;
    const OPERAND_ROUNDING: f64;
    /// The largest error of an operand too small for its full precision.
    const OPERAND_UNDERFLOW: f64;
    fn round(x: f32) -> Self;
    fn widen(self) -> f32;
    /// To an operand of the tensor cores.
    fn operand(x: f32) -> f32;
}

const F16: f64 = 1.0 / 2048.0;
const BF16: f64 = 1.0 / 256.0;

macro_rules! element {
    ($type:ident, $rounding:expr, $operand:ident, $of_operand:expr, $underflow:expr, $widen:expr, $round:expr) => {
        impl Element for $type {
            const NAME: &'static str = stringify!($type);
            const ROUNDING: f64 = $rounding;
            const OPERAND_ROUNDING: f64 = $of_operand;
            const OPERAND_UNDERFLOW: f64 = $underflow;
            fn round(x: f32) -> Self {
                $round(x)
            }
            fn widen(self) -> f32 {
                $widen(self)
            }
            fn operand(x: f32) -> f32 {
                $operand::from_f32(x).to_f32()
            }
        }
    };
}

element!(f32, 0.0, bf16, BF16, 0.0, |x| x, |x| x);
element!(f16, F16, f16, F16, 3e-8, f16::to_f32, f16::from_f32);
element!(bf16, BF16, bf16, BF16, 0.0, bf16::to_f32, bf16::from_f32);

/// batch, len, heads, head_dim, groups, d_state
pub type Dims = [usize; 6];

/// How rows lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Storage {
    /// End to end, from the first element on.
    Plain,
    /// With NaN before the first row and between rows, so that few begin on the alignment of a vector.
    Strided,
}

#[derive(Clone)]
pub struct Problem {
    pub dims: Dims,
    pub storage: Storage,
    /// In rows: of each sequence its tokens.
    pub x: Vec<f32>,
    pub dt_raw: Vec<f32>,
    pub b: Vec<f32>,
    pub c: Vec<f32>,
    pub a: Vec<f32>,
    pub d: Option<Vec<f32>>,
    pub dt_bias: Option<Vec<f32>>,
    pub delta_min: Option<Vec<f32>>,
    pub dt_limits: DtLimits,
    pub lengths: Option<Vec<usize>>,
    /// `[batch, heads, head_dim, d_state]`
    pub state: Vec<f32>,
}

/// As the oracle gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub y: Vec<f32>,
    pub state: Vec<f32>,
    pub delta_sum: Vec<f64>,
    pub kept_sum: Vec<f64>,
    pub kept: Vec<u64>,
}

impl Problem {
    /// With all inputs of rows rounded to T.
    pub fn new<T: Element>(dims: Dims, storage: Storage, seed: u64) -> Self {
        let [batch, len, heads, head_dim, groups, d_state] = dims;
        let mut r = Random::new(seed);
        let mut rows = |width: usize, low: f32, high: f32| -> Vec<f32> {
            let values = r.vec(batch * len * width, low, high);
            values.into_iter().map(|x| T::round(x).widen()).collect()
        };
        let x = rows(heads * head_dim, -2.0, 2.0);
        let b = rows(groups * d_state, -1.0, 1.0);
        let c = rows(groups * d_state, -1.0, 1.0);
        let dt_raw = rows(heads, -7.0, 2.0);
        Problem {
            dims,
            storage,
            x,
            dt_raw,
            b,
            c,
            a: r.vec(heads, -8.0, -0.05),
            d: Some(r.vec(heads, -1.0, 1.0)),
            dt_bias: Some(r.vec(heads, -1.0, 1.0)),
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
            state: r.vec(batch * heads * head_dim * d_state, -1.0, 1.0),
        }
    }

    /// Every other head drops about half of its tokens.
    pub fn masked(mut self) -> Self {
        let [_, _, heads, ..] = self.dims;
        let thresholds = (0..heads).map(|k| {
            let bias = self.dt_bias.as_ref().map_or(0.0, |v| v[k]);
            let raw = self.dt_raw.iter().skip(k).step_by(heads);
            let deltas = raw.map(|&raw| oracle::delta(raw, bias, self.dt_limits)).collect();
            if k % 2 == 0 { threshold(deltas) } else { 0.0 }
        });
        self.delta_min = Some(thresholds.collect());
        self
    }

    /// The scan of tokens `tokens` of every sequence, on the device.
    #[allow(clippy::too_many_arguments, reason = "a scan has many arguments")]
    fn part<T: Element>(
        &self,
        device: &Device,
        precision: Precision,
        tokens: &Range<usize>,
        state: &mut Buffer<f32>,
        sums: ChannelSums<'_>,
        scratch: &mut SsdScratch,
    ) -> Vec<f32> {
        let [batch, len, heads, head_dim, groups, d_state] = self.dims;
        let rows = |values: &[f32], width: usize| {
            Stored::<T>::new(device, &cut(values, batch, len, width, tokens), width, self.storage)
        };
        let small = |values: &Option<Vec<f32>>| values.as_ref().map(|v| device.upload(v).unwrap());
        let x = rows(&self.x, heads * head_dim);
        let (b, c) = (rows(&self.b, groups * d_state), rows(&self.c, groups * d_state));
        let dt_raw = rows(&self.dt_raw, heads);
        let a = device.upload(&self.a).unwrap();
        let (d, dt_bias, delta_min) =
            (small(&self.d), small(&self.dt_bias), small(&self.delta_min));
        let lengths = self.lengths.as_ref().map(|lengths| {
            let within = |&n: &usize| n.clamp(tokens.start, tokens.end) - tokens.start;
            device.upload(&lengths.iter().map(|n| within(n) as u32).collect::<Vec<_>>()).unwrap()
        });
        let inputs = SsdInputs {
            batch,
            heads,
            groups,
            x: x.rows(),
            dt_raw: dt_raw.rows(),
            b: b.rows(),
            c: c.rows(),
            a: &a,
            d: d.as_ref(),
            dt_bias: dt_bias.as_ref(),
            delta_min: delta_min.as_ref(),
            dt_limits: self.dt_limits,
            lengths: lengths.as_ref(),
            precision,
        };
        let before = vec![7.0; batch * tokens.len() * heads * head_dim];
        let mut y = Stored::<T>::new(device, &before, heads * head_dim, self.storage);
        device.ssd(tokens.len(), inputs, y.rows_mut(), state, Some(sums), scratch).unwrap();
        y.values()
    }

    /// The scan in the parts that `ends` cuts it into; the state goes from part to part.
    pub fn run<T: Element>(&self, precision: Precision, ends: &[usize]) -> Outcome {
        let device = device();
        let [batch, len, heads, head_dim, _, d_state] = self.dims;
        let shape = [batch * heads, head_dim, d_state];
        let mut state = device.upload(&transposed(&self.state, shape)).unwrap();
        // Sums of an earlier part, to which these are added.
        let mut delta_sum = device.upload(&vec![1.0; batch * heads]).unwrap();
        let mut kept_sum = device.upload(&vec![2.0; batch * heads]).unwrap();
        let mut kept = device.upload(&vec![3; batch * heads]).unwrap();
        let mut scratch = SsdScratch::new();
        let mut y = vec![0.0; batch * len * heads * head_dim];
        let mut start = 0;
        for &end in ends.iter().chain([&len]) {
            let sums =
                ChannelSums { delta_sum: &mut delta_sum, kept_sum: &mut kept_sum, kept: &mut kept };
            let tokens = start..end;
            let part = self.part::<T>(&device, precision, &tokens, &mut state, sums, &mut scratch);
            let width = heads * head_dim;
            for sequence in 0..batch {
                let from = &part[sequence * tokens.len() * width..][..tokens.len() * width];
                y[(sequence * len + start) * width..][..from.len()].copy_from_slice(from);
            }
            start = end;
        }
        let state = transposed(&state.to_vec().unwrap(), [shape[0], d_state, head_dim]);
        let less = |sums: &Buffer<f64>, by: f64| -> Vec<f64> {
            sums.to_vec().unwrap().iter().map(|sum| sum - by).collect()
        };
        Outcome {
            y,
            state,
            delta_sum: less(&delta_sum, 1.0),
            kept_sum: less(&kept_sum, 2.0),
            kept: kept.to_vec().unwrap().iter().map(|n| n - 3).collect(),
        }
    }

    pub fn oracle(&self) -> oracle::ScanResult {
        let [batch, len, heads, head_dim, groups, d_state] = self.dims;
        let args = Ssd::new(Arguments {
            x: View::new(&self.x, [batch, len, heads, head_dim]).unwrap(),
            dt_raw: View::new(&self.dt_raw, [batch, len, heads]).unwrap(),
            a: &self.a,
            b: View::new(&self.b, [batch, len, groups, d_state]).unwrap(),
            c: View::new(&self.c, [batch, len, groups, d_state]).unwrap(),
            d: self.d.as_deref(),
            dt_bias: self.dt_bias.as_deref(),
            delta_min: self.delta_min.as_deref(),
            dt_limits: self.dt_limits,
            lengths: self.lengths.as_deref(),
        });
        let state: Vec<f64> = self.state.iter().map(|&h| h.into()).collect();
        oracle::ssd(&args.unwrap(), &state)
    }

    /// What the tensor cores see of the inputs.
    pub fn rounded<T: Element>(&self) -> Self {
        let round = |values: &[f32]| values.iter().map(|&x| T::operand(x)).collect();
        Problem { x: round(&self.x), b: round(&self.b), c: round(&self.c), ..self.clone() }
    }

    /// Everything positive: how large the terms are of which the result is the sum.
    fn sizes(&self) -> oracle::ScanResult {
        let size = |values: &[f32]| values.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let problem = Problem {
            x: size(&self.x),
            b: size(&self.b),
            c: size(&self.c),
            d: self.d.as_deref().map(size),
            state: size(&self.state),
            ..self.clone()
        };
        problem.oracle()
    }

    /// Compares with the oracle. `Exact`: to 1e-5 of the largest element and of each. `Tensor`: a term
    /// of y has met at most two roundings to an operand, one of Δ·x or of the scores and one of the
    /// state, and a term of the state one; with what f32 costs, 2.1 and 1.1 roundings of the sum of all
    /// terms' sizes. Beside that the rounding of y to T.
    pub fn check<T: Element>(&self, precision: Precision, outcome: &Outcome) {
        let what = |of: &str| {
            format!("{of} of {} {precision:?} {:?} {:?}", T::NAME, self.dims, self.storage)
        };
        // Without the tensor cores for it, it is exact in any case.
        let precision = match device().capability() >= (8, 0) {
            true => precision,
            false => Precision::Exact,
        };
        let expected = match precision {
            Precision::Exact => self.oracle(),
            Precision::Tensor => self.rounded::<T>().oracle(),
        };
        let exact = |values: &[f64]| {
            let largest = values.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            values.iter().map(|v| 1e-5 * (largest + v.abs())).collect::<Vec<f64>>()
        };
        let [mut y, mut state] = [exact(&expected.y), exact(&expected.state)];
        if precision == Precision::Tensor {
            let sizes = self.rounded::<T>().sizes();
            let add = |to: &mut [f64], sizes: &[f64], roundings: f64| {
                for (to, size) in to.iter_mut().zip(sizes) {
                    *to += roundings * T::OPERAND_ROUNDING * size;
                    // A term for each state and each token of a chunk.
                    *to += roundings * T::OPERAND_UNDERFLOW * 2.0 * 192.0;
                }
            };
            add(&mut y, &sizes.y, 2.1);
            add(&mut state, &sizes.state, 1.1);
        }
        for (tolerance, y) in y.iter_mut().zip(&expected.y) {
            *tolerance += T::ROUNDING * y.abs() + 3e-8;
        }
        assert_within(&what("y"), &outcome.y, &expected.y, &y);
        assert_within(&what("state"), &outcome.state, &expected.state, &state);
        let sums = |of: &str, actual: &[f64], expected: &[f64]| {
            let actual: Vec<f32> = actual.iter().map(|&v| v as f32).collect();
            let tolerances: Vec<f64> = expected.iter().map(|v| 2e-6 * (1.0 + v.abs())).collect();
            assert_within(&what(of), &actual, expected, &tolerances);
        };
        sums("sum of delta", &outcome.delta_sum, &expected.delta_sum);
        sums("kept sum", &outcome.kept_sum, &expected.kept_sum);
        assert_eq!(outcome.kept, expected.kept, "{}", what("kept"));
    }

    /// Runs it whole and compares.
    pub fn agrees<T: Element>(&self, precision: Precision) -> Outcome {
        let outcome = self.run::<T>(precision, &[]);
        self.check::<T>(precision, &outcome);
        outcome
    }
}

/// Rows on the device.
struct Stored<T> {
    buffer: Buffer<T>,
    first: usize,
    width: usize,
    stride: usize,
}

impl<T: Element> Stored<T> {
    fn new(device: &Device, values: &[f32], width: usize, storage: Storage) -> Self {
        let (first, gap) = match storage {
            Storage::Plain => (0, 0),
            Storage::Strided => (1, 3),
        };
        let stride = width + gap;
        let rows = values.len().checked_div(width).unwrap_or(0);
        let mut host = vec![T::round(f32::NAN); first + rows * stride];
        for (i, &value) in values.iter().enumerate() {
            host[first + i / width * stride + i % width] = T::round(value);
        }
        Stored { buffer: device.upload(&host).unwrap(), first, width, stride }
    }

    fn rows(&self) -> Rows<'_, T> {
        let Stored { ref buffer, first, width, stride } = *self;
        Rows { buffer, first, width, stride }
    }

    fn rows_mut(&mut self) -> RowsMut<'_, T> {
        let Stored { ref mut buffer, first, width, stride } = *self;
        RowsMut { buffer, first, width, stride }
    }

    /// Back on the host; fails where a gap was written to.
    fn values(&self) -> Vec<f32> {
        let mut values = Vec::new();
        for (i, value) in self.buffer.to_vec().unwrap().into_iter().enumerate() {
            let at = i.checked_sub(self.first).map(|i| i % self.stride);
            match at {
                Some(column) if column < self.width => values.push(value.widen()),
                _ => assert!(value.widen().is_nan(), "a gap was written to"),
            }
        }
        values
    }
}

/// Tokens `tokens` of every sequence.
fn cut(values: &[f32], batch: usize, len: usize, width: usize, tokens: &Range<usize>) -> Vec<f32> {
    let rows = |sequence: usize| {
        let first = sequence * len;
        &values[(first + tokens.start) * width..(first + tokens.end) * width]
    };
    (0..batch).flat_map(rows).copied().collect()
}

/// Of matrices in row-major order.
fn transposed(values: &[f32], [count, rows, columns]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for matrix in 0..count {
        for column in 0..columns {
            out.extend((0..rows).map(|row| values[(matrix * rows + row) * columns + column]));
        }
    }
    out
}

/// A threshold that drops about half of the values and lies in the widest gap near there, so that no
/// rounding of a value can decide.
fn threshold(mut values: Vec<f64>) -> f32 {
    values.sort_by(f64::total_cmp);
    let centre = values.len() / 2;
    let near = centre.saturating_sub(8)..(centre + 8).min(values.len().saturating_sub(1));
    let widest =
        near.max_by(|&i, &j| (values[i + 1] - values[i]).total_cmp(&(values[j + 1] - values[j])));
    widest.map_or(0.0, |i| ((values[i] + values[i + 1]) / 2.0) as f32)
}
