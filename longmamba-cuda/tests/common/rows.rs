//! Rows on the device, with gaps that hold NaN, and comparison.
#![allow(dead_code, reason = "each test crate uses a part")]

use half::{bf16, f16};
use longmamba_core::{AnyView, DType, Element, View};
use longmamba_cuda::{Buffer, Device, DeviceElement, Matrix, Rows, RowsMut};

/// A small generator (xorshift), the same on every platform.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        low + (high - low) * ((self.0 >> 40) as f32 / (1u64 << 24) as f32)
    }

    pub fn vec(&mut self, len: usize, low: f32, high: f32) -> Vec<f32> {
        (0..len).map(|_| self.uniform(low, high)).collect()
    }
}

/// The values that elements of type T can hold.
pub fn rounded<T: Element>(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&v| T::from_f32(v).to_f32()).collect()
}

/// A weight `[outputs, inputs]` of random numbers on the device, and what it holds.
pub fn weight(
    device: &Device,
    random: &mut Random,
    dtype: DType,
    shape: [usize; 2],
) -> (Vec<f32>, Matrix) {
    let values = random.vec(shape[0] * shape[1], -1.0, 1.0);
    let upload = |view: AnyView<'_, 2>| Matrix::upload(device, view).unwrap();
    match dtype {
        DType::F32 => {
            let matrix = upload(AnyView::F32(View::new(&values, shape).unwrap()));
            (values, matrix)
        }
        DType::F16 => {
            let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            let matrix = upload(AnyView::F16(View::new(&halves, shape).unwrap()));
            (rounded::<f16>(&values), matrix)
        }
        DType::BF16 => {
            let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            let matrix = upload(AnyView::BF16(View::new(&halves, shape).unwrap()));
            (rounded::<bf16>(&values), matrix)
        }
    }
}

/// Rows in a buffer that is larger: a kernel that reads what lies between shows it in its result, and one
/// that writes there is found out by [`Stored::values`].
pub struct Stored<T> {
    buffer: Buffer<T>,
    first: usize,
    rows: usize,
    width: usize,
    stride: usize,
}

impl<T: Element + DeviceElement> Stored<T> {
    /// `gap`: unused elements before the first row and after each.
    pub fn new(device: &Device, values: &[f32], width: usize, gap: usize) -> Self {
        let (rows, stride) = (values.len() / width.max(1), width + gap);
        let mut data = vec![T::from_f32(f32::NAN); gap + rows * stride];
        for (row, values) in values.chunks(width.max(1)).enumerate() {
            for (i, &value) in values.iter().enumerate() {
                data[gap + row * stride + i] = T::from_f32(value);
            }
        }
        Stored { buffer: device.upload(&data).unwrap(), first: gap, rows, width, stride }
    }

    pub fn rows(&self) -> Rows<'_, T> {
        let Stored { ref buffer, first, width, stride, .. } = *self;
        Rows { buffer, first, width, stride }
    }

    pub fn rows_mut(&mut self) -> RowsMut<'_, T> {
        let Stored { ref mut buffer, first, width, stride, .. } = *self;
        RowsMut { buffer, first, width, stride }
    }

    /// The elements, row after row; fails where a gap was written to.
    pub fn values(&self) -> Vec<f32> {
        let data = self.buffer.to_vec().unwrap();
        let mut values = Vec::new();
        for (i, value) in data.iter().map(|v| v.to_f32()).enumerate() {
            let column = i.checked_sub(self.first).map(|at| at % self.stride);
            match column {
                Some(column) if column < self.width => values.push(value),
                _ => assert!(value.is_nan(), "element {i}, in a gap, was written to"),
            }
        }
        values
    }
}

/// [`assert_within`] `rtol · |expected| + atol · largest`, `largest` being the largest expected element, or 1.
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64], atol: f64, rtol: f64) {
    let largest = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    let tolerances = expected.iter().map(|v| atol * largest + rtol * v.abs());
    assert_within(what, actual, expected, &tolerances.collect::<Vec<_>>());
}

/// Fails unless every `|actual - expected|` is within its tolerance, and shows the worst element. NaN is
/// close to nothing.
pub fn assert_within(what: &str, actual: &[f32], expected: &[f64], tolerances: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths differ");
    let excess = |i: usize| {
        let error = (f64::from(actual[i]) - expected[i]).abs();
        let excess = error / tolerances[i];
        match error {
            0.0 => 0.0, // though nothing may be allowed
            _ if excess.is_nan() => f64::INFINITY,
            _ => excess,
        }
    };
    let worst = (0..actual.len()).max_by(|&i, &j| excess(i).total_cmp(&excess(j)));
    if let Some(i) = worst {
        let (a, e, x) = (actual[i], expected[i], excess(i));
        assert!(
            x <= 1.0,
            "{what}: element {i} is {a:e}, expected {e:e}: {x:.2} times the tolerance"
        );
    }
}

/// The same bits, NaN included.
pub fn assert_same(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths differ");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), e.to_bits(), "{what}: element {i} is {a:e}, expected {e:e}");
    }
}

/// Half a unit in the last place of T, relative, and a little.
pub fn rounding<T: Element>() -> f64 {
    match T::DTYPE {
        longmamba_core::DType::F32 => 1e-5,
        longmamba_core::DType::F16 => 5.5e-4,
        longmamba_core::DType::BF16 => 4.4e-3,
    }
}
