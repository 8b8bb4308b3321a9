//! The scans of a decode step, each with the stages beside it, against the oracle.

mod common;
#[path = "step/gated.rs"]
mod gated;
#[path = "common/rows.rs"]
mod rows;
#[path = "scan/problem.rs"]
#[allow(dead_code, reason = "the scan's own tests use the rest")]
mod scan;
#[path = "step/selective.rs"]
mod selective;
#[path = "ssd/problem.rs"]
#[allow(dead_code, reason = "the scan's own tests use the rest")]
mod ssd;

use common::device;
use gated::Gated;
use longmamba_core::{DType, DtLimits, Error as ArgumentError, oracle};
use longmamba_cuda::{
    Buffer, ChannelSums, Device, Error, Precision, Rows, RowsMut, SelectNorms, SelectiveStepInputs,
    SsdInputs, StepSequence,
};
use proptest::prelude::*;
use rows::{Random, assert_close, assert_same, weight};
use selective::Selective;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// What a step adds to, and what was there.
const BEFORE: (f64, f64, u64) = (1.0, 2.0, 3);

/// What one sequence has on the device.
struct Memory {
    state: Buffer<f32>,
    delta_min: Option<Buffer<f32>>,
    delta_sum: Buffer<f64>,
    kept_sum: Buffer<f64>,
    kept: Buffer<u64>,
    counted: bool,
}

impl Memory {
    fn new(device: &Device, state: &[f32], delta_min: Option<&[f32]>, channels: usize) -> Self {
        Memory {
            state: device.upload(state).unwrap(),
            delta_min: delta_min.map(|d| device.upload(d).unwrap()),
            delta_sum: device.upload(&vec![BEFORE.0; channels]).unwrap(),
            kept_sum: device.upload(&vec![BEFORE.1; channels]).unwrap(),
            kept: device.upload(&vec![BEFORE.2; channels]).unwrap(),
            counted: true,
        }
    }

    fn step(&mut self) -> StepSequence<'_> {
        let Memory { state, delta_min, delta_sum, kept_sum, kept, counted } = self;
        let sums = counted.then_some(ChannelSums { delta_sum, kept_sum, kept });
        StepSequence { state, delta_min: delta_min.as_ref(), sums }
    }

    /// Compares the sums with what one token adds.
    fn check_sums(&self, what: &str, expected: &oracle::ScanResult) {
        let added = |sums: &Buffer<f64>, before: f64| -> Vec<f32> {
            sums.to_vec().unwrap().iter().map(|sum| (sum - before) as f32).collect()
        };
        if !self.counted {
            assert!(self.kept.to_vec().unwrap().iter().all(|&n| n == BEFORE.2), "{what}");
            return;
        }
        let (all, kept) = (added(&self.delta_sum, BEFORE.0), added(&self.kept_sum, BEFORE.1));
        assert_close(&format!("{what} sum of delta"), &all, &expected.delta_sum, 2e-5, 2e-5);
        assert_close(&format!("{what} kept sum"), &kept, &expected.kept_sum, 2e-5, 2e-5);
        let kept: Vec<u64> = self.kept.to_vec().unwrap().iter().map(|n| n - BEFORE.2).collect();
        assert_eq!(kept, expected.kept, "{what} kept");
    }
}

/// Row `index` of rows of `width`.
fn part(values: &[f32], index: usize, width: usize) -> &[f32] {
    &values[index * width..][..width]
}

/// A block has 32 channels, 16 warps share the states, and a lane takes 4 elements of the low rank, of 128.
#[test]
fn selective_sizes() {
    let device = device();
    for (i, d_inner) in [1, 31, 32, 33, 70].into_iter().enumerate() {
        for (j, dt_rank) in [1, 3, 4, 48, 127, 128, 133].into_iter().enumerate() {
            let d_state = [16, 1, 15, 17, 40, 0][(i + j) % 6];
            let (sequences, dtype) = ([1, 2, 4, 8][(i + j) % 4], DTYPES[(i + j) % 3]);
            let (normed, gap, seed) = (j % 2 == 0, i % 3, (i * 7 + j) as u64);
            let case = Selective::new(sequences, d_inner, d_state, dt_rank);
            Selective { dtype, normed, gap, seed, ..case }.check(&device);
        }
    }
}

#[test]
fn selective_options() {
    let device = device();
    let case = Selective::new(3, 40, 16, 6);
    Selective { dt_limits: DtLimits { min: 0.05, max: 0.4 }, ..case }.check(&device);
    Selective { normed: true, dtype: DType::BF16, ..case }.check(&device);
    Selective::new(0, 40, 16, 6).check(&device);
    Selective::new(2, 0, 16, 6).check(&device);
    Selective::new(2, 5, 16, 0).check(&device);
}

/// A block has 32 elements of a head, a warp 16 states of them, or 32.
#[test]
fn gated_sizes() {
    let device = device();
    for (i, head_dim) in [1, 31, 32, 33, 64].into_iter().enumerate() {
        for (j, d_state) in [1, 15, 16, 17, 128, 129, 256, 0].into_iter().enumerate() {
            let (heads, groups) = [(1, 1), (2, 2), (4, 2), (6, 3)][(i + j) % 4];
            let dims = [[1, 2, 4, 8][(i * 3 + j) % 4], heads, head_dim, groups, d_state];
            let (per_element, seed) = (j % 2 == 0 && head_dim > 1, (i * 8 + j) as u64);
            Gated { gap: i % 3, per_element, seed, ..Gated::new(dims) }.check(&device);
        }
    }
}

#[test]
fn gated_options() {
    let device = device();
    let dt_limits = DtLimits { min: 0.05, max: 0.4 };
    Gated { dt_limits, ..Gated::new([3, 4, 8, 2, 16]) }.check(&device);
    Gated::new([0, 4, 8, 2, 16]).check(&device);
}

/// A NaN in delta reaches its own channel and is seen there, whatever the threshold.
#[test]
fn nothing_that_is_no_number_is_dropped() {
    let device = device();
    let (heads, head_dim, d_state) = (2, 8, 4);
    let width = heads * head_dim;
    let ones = |len: usize| device.upload(&vec![1.0f32; len]).unwrap();
    let (x, b, a) = (ones(width), ones(d_state), device.upload(&[-1.0f32, -1.0]).unwrap());
    let dt_raw = device.upload(&[f32::NAN, 1.0]).unwrap();
    let mut memory = Memory::new(&device, &vec![1.0; width * d_state], Some(&[9.0, 9.0]), heads);
    let mut y = device.zeros(width).unwrap();
    let inputs = gated_inputs(&x, &dt_raw, &b, &a, (heads, head_dim, d_state));
    let z = Rows::all(&x, width);
    let to = RowsMut::all(&mut y, width);
    device.ssd_step(inputs, z, to, [memory.step()]).unwrap();
    let y = y.to_vec().unwrap();
    assert!(y[..head_dim].iter().all(|v| v.is_nan()), "{y:?}");
    assert!(y[head_dim..].iter().all(|v| v.is_finite()), "{y:?}");
    assert_eq!(memory.kept.to_vec().unwrap(), [BEFORE.2 + 1, BEFORE.2]);
    assert_same("the state", &memory.state.to_vec().unwrap()[width * d_state / 2..], &[1.0; 32]);
}

fn gated_inputs<'a>(
    x: &'a Buffer<f32>,
    dt_raw: &'a Buffer<f32>,
    b: &'a Buffer<f32>,
    a: &'a Buffer<f32>,
    (heads, head_dim, d_state): (usize, usize, usize),
) -> SsdInputs<'a, f32> {
    SsdInputs {
        batch: 1,
        heads,
        groups: 1,
        x: Rows::all(x, heads * head_dim),
        dt_raw: Rows::all(dt_raw, heads),
        b: Rows::all(b, d_state),
        c: Rows::all(b, d_state),
        a,
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
        precision: Precision::Exact,
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = device();
    let (heads, head_dim, d_state) = (2, 8, 4);
    let width = heads * head_dim;
    let [x, b, dt_raw, a] = [width, d_state, heads, heads].map(|n| device.zeros(n).unwrap());
    let mut y = device.zeros(width).unwrap();
    let inputs = || gated_inputs(&x, &dt_raw, &b, &a, (heads, head_dim, d_state));
    let mut step = |inputs: SsdInputs<'_, f32>, states: &[usize]| {
        let mut memories: Vec<_> =
            states.iter().map(|&len| Memory::new(&device, &vec![0.0; len], None, heads)).collect();
        let steps = memories.iter_mut().map(Memory::step);
        device.ssd_step(inputs, Rows::all(&x, width), RowsMut::all(&mut y, width), steps)
    };
    step(inputs(), &[64]).unwrap();
    assert!(matches!(
        step(inputs(), &[63]),
        Err(Error::Argument(ArgumentError::Shape { tensor: "state", .. }))
    ));
    for states in [&[][..], &[64, 64]] {
        assert!(matches!(
            step(inputs(), states),
            Err(Error::Argument(ArgumentError::Shape { .. }))
        ));
    }
    let many = SsdInputs { batch: 9, ..inputs() };
    let many = step(many, &[64; 9]).unwrap_err();
    assert!(matches!(many, Error::Unsupported { what: "sequences of a step", limit: 8, .. }));
    let lengths = device.upload(&[1u32]).unwrap();
    let ragged = SsdInputs { lengths: Some(&lengths), ..inputs() };
    assert!(matches!(step(ragged, &[64]), Err(Error::Unsupported { what: "lengths", .. })));

    let (d_inner, d_state, dt_rank) = (8, 4, 3);
    let (_, matrix) = weight(&device, &mut Random::new(1), DType::F32, [d_inner, dt_rank]);
    let (_, other) = weight(&device, &mut Random::new(1), DType::F32, [d_inner, dt_rank + 1]);
    let [x, a, low, norm] =
        [d_inner, d_state * d_inner, dt_rank, d_state].map(|n| device.zeros::<f32>(n).unwrap());
    let norm_of_low = device.zeros(dt_rank).unwrap();
    let inputs = SelectiveStepInputs {
        x: Rows::all(&x, d_inner),
        low: Rows::all(&low, dt_rank),
        b: Rows::all(&b, d_state),
        c: Rows::all(&b, d_state),
        z: Rows::all(&x, d_inner),
        norms: Some(SelectNorms { low: (&norm_of_low, 1e-5), state: (&norm, 1e-5) }),
        dt_proj: &matrix,
        a: &a,
        d: None,
        dt_bias: None,
        dt_limits: DtLimits::default(),
    };
    let [mut y, mut raw] = [(); 2].map(|()| device.zeros(d_inner).unwrap());
    let mut step = |inputs: SelectiveStepInputs<'_>, states: &[usize]| {
        let mut memories: Vec<_> = states
            .iter()
            .map(|&len| Memory::new(&device, &vec![0.0; len], None, d_inner))
            .collect();
        let (raw, y) = (RowsMut::all(&mut raw, d_inner), RowsMut::all(&mut y, d_inner));
        device.selective_step(states.len(), inputs, raw, y, memories.iter_mut().map(Memory::step))
    };
    step(inputs, &[32]).unwrap();
    assert!(step(inputs, &[31]).is_err(), "a short state");
    // Rows that are not there.
    assert!(matches!(
        step(inputs, &[32; 2]),
        Err(Error::Argument(ArgumentError::OutOfBounds { .. }))
    ));
    assert!(matches!(step(inputs, &[32; 9]), Err(Error::Unsupported { actual: 9, .. })));
    let error = step(SelectiveStepInputs { dt_proj: &other, ..inputs }, &[32]).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::Shape { tensor: "dt_proj", .. })));
    let swapped = SelectNorms { low: (&norm, 1e-5), state: (&norm_of_low, 1e-5) };
    assert!(step(SelectiveStepInputs { norms: Some(swapped), ..inputs }, &[32]).is_err());
    let negative = SelectNorms { low: (&norm_of_low, -1.0), state: (&norm, 1e-5) };
    let error = step(SelectiveStepInputs { norms: Some(negative), ..inputs }, &[32]).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::Value { tensor: "eps", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_selective_step(
        (sequences, d_inner, d_state, dt_rank) in (1usize..=8, 1usize..80, 1usize..40, 1usize..150),
        dtype in prop::sample::select(DTYPES.to_vec()),
        normed: bool,
        gap in 0usize..9,
        seed in 0u64..1 << 40,
    ) {
        let case = Selective::new(sequences, d_inner, d_state, dt_rank);
        Selective { dtype, normed, gap, seed, ..case }.check(&device());
    }

    #[test]
    fn any_gated_step(
        (sequences, per_group, groups) in (1usize..=8, 1usize..4, 1usize..4),
        (head_dim, d_state) in (2usize..70, 1usize..=256),
        per_element: bool,
        gap in 0usize..9,
        seed in 0u64..1 << 40,
    ) {
        let dims = [sequences, per_group * groups, head_dim, groups, d_state];
        Gated { gap, per_element, seed, ..Gated::new(dims) }.check(&device());
    }
}
