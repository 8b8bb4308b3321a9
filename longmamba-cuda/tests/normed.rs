//! A norm, a product and the convolution of some outputs in one launch, against the same in f64.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use longmamba_core::{DType, Error as ArgumentError, View, oracle};
use longmamba_cuda::{Buffer, Device, Error, InputNorm, Matrix, NewInputs, Rows, RowsMut};
use proptest::prelude::*;
use rows::{Random, Stored, assert_same, assert_within, weight};

const EPS: f32 = 1e-5;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The channels of a convolution.
#[derive(Clone, Copy, Debug)]
struct Taps {
    first: usize,
    channels: usize,
    width: usize,
    silu: bool,
    bias: bool,
}

/// A product, and what goes with it.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    /// Groups, and inputs of each.
    groups: usize,
    group: usize,
    outputs: usize,
    dtype: DType,
    /// Elements between rows of x, and of the outputs.
    gap: usize,
    bias: bool,
    accumulate: bool,
    taps: Option<Taps>,
    seed: u64,
}

impl Case {
    fn new(rows: usize, group: usize, outputs: usize) -> Self {
        let (dtype, gap, bias) = (DType::F32, 0, false);
        Case {
            rows,
            groups: 1,
            group,
            outputs,
            dtype,
            gap,
            bias,
            accumulate: false,
            taps: None,
            seed: 1,
        }
    }

    /// Compares everything that the kernel writes with f64.
    fn check(&self, device: &Device) {
        let Case { rows, groups, group, outputs, dtype, gap, .. } = *self;
        let inputs = groups * group;
        let mut random = Random::new(self.seed);
        let x = random.vec(rows * inputs, -3.0, 3.0);
        let norm = random.vec(inputs, -2.0, 2.0);
        let (values, matrix) = weight(device, &mut random, dtype, [outputs, inputs]);
        let bias = random.vec(outputs, -1.0, 1.0);
        let old = random.vec(rows * outputs, -1.0, 1.0);

        // Every output before the convolution, and how far off f32 may be: an addition for each input, the
        // norm's few operations, and the squares', of all of which it takes the root.
        let mut expected = old.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let mut allowed = vec![0.0; rows * outputs];
        let normed = normed(self, &x, &norm);
        for (i, (expected, allowed)) in expected.iter_mut().zip(&mut allowed).enumerate() {
            let (row, output) = (i / outputs, i % outputs);
            let terms = normed[row * inputs..][..inputs].iter().zip(&values[output * inputs..]);
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for (x, &w) in terms {
                sum += x * f64::from(w);
                magnitude += (x * f64::from(w)).abs();
            }
            let bias = if self.bias { f64::from(bias[output]) } else { 0.0 };
            *expected = if self.accumulate { *expected } else { 0.0 } + sum + bias;
            *allowed = (1.5 * inputs as f64 + 12.0) * 2f64.powi(-23) * (magnitude + 2.0);
        }

        let stored = |values: &[f32], width: usize| Stored::<f32>::new(device, values, width, gap);
        let (x, mut out) = (stored(&x, inputs), stored(&old, outputs));
        let (norm, bias) = (upload(device, &norm), upload(device, &bias));
        let bias = self.bias.then_some(&bias);
        let norm = InputNorm { weight: &norm, group, eps: EPS };
        assert!(norm.takes(rows, x.rows()), "{self:?}");
        match self.taps {
            None => {
                let to = out.rows_mut();
                let accumulate = self.accumulate;
                device.normed_matmul(rows, x.rows(), norm, &matrix, bias, accumulate, to).unwrap();
                assert_within(&format!("{self:?}"), &out.values(), &expected, &allowed);
            }
            Some(taps) => {
                let operands = (x.rows(), norm, &matrix, bias);
                self.check_convolved(device, taps, operands, out, &old, &expected, &allowed);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what was made for all cases")]
    fn check_convolved(
        &self,
        device: &Device,
        taps: Taps,
        (x, norm, matrix, bias): (Rows<'_, f32>, InputNorm<'_>, &Matrix, Option<&Buffer<f32>>),
        mut out: Stored<f32>,
        old: &[f32],
        inputs: &[f64],
        allowed: &[f64],
    ) {
        let Case { rows, outputs, gap, .. } = *self;
        let Taps { first, channels, width, silu, bias: with_bias } = taps;
        let mut random = Random::new(self.seed + 1);
        let weight = random.vec(width * channels, -1.0, 1.0);
        let conv_bias = random.vec(channels, -1.0, 1.0);
        let before: Vec<Vec<f32>> =
            (0..rows).map(|_| random.vec((width - 1) * channels, -2.0, 2.0)).collect();
        let mut histories: Vec<_> = before.iter().map(|values| upload(device, values)).collect();
        let (on_device, bias_on_device) = (upload(device, &weight), upload(device, &conv_bias));
        let nan = vec![f32::NAN; rows * channels];
        let mut conv_out = Stored::<f32>::new(device, &nan, channels, gap);
        let conv = NewInputs {
            first,
            width,
            weight: &on_device,
            bias: with_bias.then_some(&bias_on_device),
            silu,
            out: conv_out.rows_mut(),
        };
        let to = out.rows_mut();
        let all = histories.iter_mut();
        device.normed_matmul_conv1d(rows, x, norm, matrix, bias, to, conv, all).unwrap();

        // Outputs that are not channels; those that are stay.
        let is_channel = |i: usize| (first..first + channels).contains(&(i % outputs));
        let expected: Vec<f64> = (0..inputs.len())
            .map(|i| if is_channel(i) { old[i].into() } else { inputs[i] })
            .collect();
        assert_within(&format!("out of {self:?}"), &out.values(), &expected, allowed);

        let found = conv_out.values();
        for (row, before) in before.iter().enumerate() {
            let what = format!("row {row} of {self:?}");
            let at = |channel: usize| row * outputs + first + channel;
            let after = histories[row].to_vec().unwrap();
            let (mut expected, mut tolerances) = (Vec::new(), Vec::new());
            for channel in 0..channels {
                let column = |k: usize| f64::from(weight[k * channels + channel]);
                let seen =
                    (0..width - 1).map(|k| column(k) * f64::from(before[k * channels + channel]));
                let seen: f64 = seen.sum();
                let bias = if with_bias { f64::from(conv_bias[channel]) } else { 0.0 };
                let sum = bias + seen + column(width - 1) * inputs[at(channel)];
                expected.push(if silu { oracle::silu(sum) } else { sum });
                // The slope of SiLU is at most 1.1.
                tolerances.push(1.1 * allowed[at(channel)] + 1e-6 * (width + 4) as f64);
            }
            assert_within(&what, &found[row * channels..][..channels], &expected, &tolerances);
            if width > 1 {
                // What was there moves on by a token to the last bit.
                let kept = (width - 2) * channels;
                assert_same(&what, &after[..kept], &before[channels..]);
                let newest = &inputs[at(0)..][..channels];
                assert_within(&what, &after[kept..], newest, &allowed[at(0)..][..channels]);
            }
        }
    }
}

/// Each group of each row through its norm.
fn normed(case: &Case, x: &[f32], weight: &[f32]) -> Vec<f64> {
    let Case { groups, group, .. } = *case;
    let parts = x.chunks(group).enumerate().flat_map(|(i, part)| {
        let weight = &weight[i % groups * group..][..group];
        oracle::rms_norm(&View::new(part, [1, group]).unwrap(), weight, EPS)
    });
    parts.collect()
}

fn upload(device: &Device, values: &[f32]) -> Buffer<f32> {
    device.upload(values).unwrap()
}

/// Around a vector, the inputs of a warp's lanes, those that a warp takes at a time, and all of a block.
#[test]
fn every_size() {
    let device = device();
    for (i, group) in [4, 8, 124, 128, 132, 508, 512, 516, 1024, 4100].into_iter().enumerate() {
        for (j, outputs) in [1, 7, 8, 9, 33].into_iter().enumerate() {
            let (rows, dtype) = ([1, 2, 3, 4, 5, 8][(i + j) % 6], DTYPES[(i + 2 * j) % 3]);
            let (bias, accumulate) = (j % 2 == 0, i % 2 == 0);
            let gap = [0, 4][i % 2];
            Case { dtype, bias, accumulate, gap, ..Case::new(rows, group, outputs) }.check(&device);
        }
    }
}

#[test]
fn every_kernel() {
    let device = device();
    for dtype in DTYPES {
        for rows in 1..=8 {
            for groups in [1, 3, 8] {
                let case = Case { groups, dtype, seed: rows as u64, ..Case::new(rows, 36, 21) };
                case.check(&device);
            }
        }
    }
}

/// Channels at the beginning, in the middle and at the end; one tap to more than the convolution's own kernel
/// takes.
#[test]
fn some_outputs_are_convolved() {
    let device = device();
    for (i, width) in [1, 2, 3, 4, 5, 9].into_iter().enumerate() {
        for (j, (first, channels)) in
            [(0, 40), (0, 11), (13, 20), (39, 1), (9, 31)].into_iter().enumerate()
        {
            let (rows, dtype) = ([1, 8, 3, 2][(i + j) % 4], DTYPES[(i + j) % 3]);
            let taps = Some(Taps { first, channels, width, silu: i % 3 != 1, bias: j % 2 == 0 });
            let (bias, gap) = (i % 2 == 0, [0, 4][j % 2]);
            let seed = (i * 5 + j) as u64;
            Case { dtype, bias, gap, taps, seed, ..Case::new(rows, 24, 40) }.check(&device);
        }
    }
}

#[test]
fn nothing_to_do() {
    let device = device();
    Case::new(0, 8, 5).check(&device);
    Case::new(2, 8, 0).check(&device);
    let taps = Some(Taps { first: 5, channels: 0, width: 4, silu: true, bias: true });
    Case { taps, ..Case::new(1, 8, 5) }.check(&device);
}

/// A row of zeros is divided by the root of eps; one with a NaN is NaN, and the others are not.
#[test]
fn rows_do_not_mix() {
    let device = device();
    let (inputs, outputs) = (16, 3);
    let (_, matrix) = weight(&device, &mut Random::new(3), DType::F32, [outputs, inputs]);
    let mut x = vec![0.0; 3 * inputs];
    x[inputs + 5] = f32::NAN;
    x[2 * inputs..].fill(1.0);
    let (x, ones) = (upload(&device, &x), upload(&device, &[1.0; 16]));
    let mut out = device.zeros(3 * outputs).unwrap();
    let norm = InputNorm { weight: &ones, group: inputs, eps: EPS };
    let to = RowsMut::all(&mut out, outputs);
    device.normed_matmul(3, Rows::all(&x, inputs), norm, &matrix, None, false, to).unwrap();
    let out = out.to_vec().unwrap();
    assert!(out[..3].iter().all(|&v| v == 0.0), "{out:?}");
    assert!(out[3..6].iter().all(|v| v.is_nan()), "{out:?}");
    assert!(out[6..].iter().all(|v| v.is_finite()), "{out:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = device();
    let (inputs, outputs) = (16, 6);
    let (_, matrix) = weight(&device, &mut Random::new(3), DType::F32, [outputs, inputs]);
    let (x, ones) = (device.zeros::<f32>(200).unwrap(), upload(&device, &[1.0; 16]));
    let mut out = device.zeros(9 * outputs).unwrap();
    let norm = InputNorm { weight: &ones, group: inputs, eps: EPS };
    let mut refused = |rows: usize, x: Rows<'_, f32>, norm: InputNorm<'_>| {
        assert!(!norm.takes(rows, x), "{rows} rows of {x:?}");
        let to = RowsMut::all(&mut out, outputs);
        device.normed_matmul(rows, x, norm, &matrix, None, false, to).unwrap_err()
    };
    let all = Rows::all(&x, inputs);
    let error = refused(9, all, norm);
    assert!(matches!(error, Error::Unsupported { what: "rows", limit: 8, actual: 9, .. }));
    for group in [0, 2, 3, 6, 12, 32] {
        let error = refused(1, all, InputNorm { group, ..norm });
        assert!(matches!(error, Error::Argument(ArgumentError::Value { tensor: "group", .. })));
    }
    for x in [Rows { first: 2, ..all }, Rows { stride: 17, ..all }] {
        let error = refused(2, x, norm);
        assert!(matches!(error, Error::Argument(ArgumentError::Value { tensor: "x", .. })));
    }
    let error = refused(1, all, InputNorm { eps: f32::NAN, ..norm });
    assert!(matches!(error, Error::Argument(ArgumentError::Value { tensor: "eps", .. })));
    let wide = device.zeros::<f32>(36).unwrap();
    let error = refused(1, Rows::all(&wide, 36), InputNorm { group: 4, ..norm });
    assert!(matches!(error, Error::Unsupported { what: "groups", limit: 8, actual: 9, .. }));

    let (short, taps) = (upload(&device, &[1.0; 15]), upload(&device, &[1.0; 8]));
    let mut convolve = |first, width, weight: &Buffer<f32>, lens: &[usize]| {
        let mut conv_out = device.zeros(2 * 4).unwrap();
        let mut histories: Vec<_> = lens.iter().map(|&len| device.zeros(len).unwrap()).collect();
        let out_rows = RowsMut::all(&mut conv_out, 4);
        let conv = NewInputs { first, width, weight, bias: None, silu: true, out: out_rows };
        let to = RowsMut::all(&mut out, outputs);
        let all_histories = histories.iter_mut();
        device.normed_matmul_conv1d(2, all, norm, &matrix, None, to, conv, all_histories)
    };
    convolve(2, 2, &taps, &[4, 4]).unwrap();
    for (first, width, lens, what) in [
        (3, 2, &[4, 4][..], "channels past the outputs"),
        (usize::MAX, 2, &[4, 4], "channels that cannot be counted"),
        (2, 0, &[4, 4], "no tap"),
        (2, 2, &[4], "a history too few"),
        (2, 2, &[4, 4, 4], "a history too many"),
        (2, 2, &[4, 3], "a short history"),
    ] {
        let error = convolve(first, width, &taps, lens).expect_err(what);
        assert!(matches!(error, Error::Argument(_)), "{what}: {error}");
    }
    assert!(convolve(2, 2, &short, &[4, 4]).is_err(), "taps of another shape");
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1usize..=8, 1usize..=8, 1usize..70, 1usize..60);
    let dtype = prop::sample::select(DTYPES.to_vec());
    let taps = (0.0..1.0, 0.0..1.0, 1usize..7, any::<bool>(), any::<bool>());
    let options = (any::<bool>(), any::<bool>(), 0usize..3, any::<u64>());
    (sizes, dtype, prop::option::of(taps), options).prop_map(
        |((rows, groups, units, outputs), dtype, taps, (bias, accumulate, gap, seed))| {
            let taps = taps.map(|(first, share, width, silu, bias): (f64, f64, _, _, _)| {
                let first = (first * outputs as f64) as usize;
                let channels = (share * (outputs - first + 1) as f64) as usize;
                Taps { first, channels, width, silu, bias }
            });
            let accumulate = accumulate && taps.is_none();
            let (group, gap, seed) = (4 * units, 4 * gap, seed / 2);
            Case { rows, groups, group, outputs, dtype, gap, bias, accumulate, taps, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_case(case in cases()) {
        case.check(&device());
    }
}
