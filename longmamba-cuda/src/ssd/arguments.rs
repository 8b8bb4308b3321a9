//! What the SSD kernels are given, as in `kernels/ssd/arguments.cuh`.

use crate::buffer::DeviceElement;
use crate::launch::Pointer;
use crate::{Buffer, ChannelSums, Result, Rows, RowsMut};
use bytemuck::{Pod, Zeroable};
use longmamba_core::{DtLimits, Error as ArgumentError};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RowsArgument {
    data: Pointer,
    stride: u64,
}

impl RowsArgument {
    pub(super) fn new<T: DeviceElement>(
        tensor: &'static str,
        rows: &Rows<'_, T>,
        count: usize,
        width: usize,
    ) -> Result<Self> {
        let data = rows.pointer(tensor, count, width)?;
        Ok(RowsArgument { data, stride: rows.stride as u64 })
    }

    pub(super) fn output<T: DeviceElement>(
        tensor: &'static str,
        rows: &mut RowsMut<'_, T>,
        count: usize,
        width: usize,
    ) -> Result<Self> {
        let data = rows.pointer(tensor, count, width)?;
        Ok(RowsArgument { data, stride: rows.stride as u64 })
    }
}

#[derive(Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SumsArgument {
    delta_sum: Pointer,
    kept_sum: Pointer,
    kept: Pointer,
}

impl SumsArgument {
    pub(super) const NONE: SumsArgument =
        SumsArgument { delta_sum: Pointer::NULL, kept_sum: Pointer::NULL, kept: Pointer::NULL };

    /// `len` of each.
    pub(super) fn new(sums: &mut ChannelSums<'_>, len: usize) -> Result<Self> {
        Ok(SumsArgument {
            delta_sum: sums.delta_sum.pointer(0, len)?,
            kept_sum: sums.kept_sum.pointer(0, len)?,
            kept: sums.kept.pointer(0, len)?,
        })
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Arguments {
    pub x: RowsArgument,
    pub dt_raw: RowsArgument,
    pub b: RowsArgument,
    pub c: RowsArgument,
    pub y: RowsArgument,
    pub state: Pointer,
    pub a: Pointer,
    pub d: Pointer,
    pub dt_bias: Pointer,
    pub delta_min: Pointer,
    pub lengths: Pointer,
    pub sums: SumsArgument,
    pub carries: Pointer,
    pub decays: Pointer,
    pub len: u64,
    pub segment: u64,
    pub dt_min: f32,
    pub dt_max: f32,
    pub batch: u32,
    pub heads: u32,
    pub heads_per_group: u32,
    pub head_dim: u32,
    pub d_state: u32,
    pub d_per_element: u32,
    pub segments: u32,
    pub padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AddSumsArguments {
    pub parts: SumsArgument,
    pub sums: SumsArgument,
    pub lines: u64,
    pub segments: u32,
    pub padding: u32,
}

/// The address of all of a buffer, which has to have the shape `expected`.
pub(super) fn whole<T: DeviceElement, const R: usize>(
    tensor: &'static str,
    buffer: &Buffer<T>,
    expected: [usize; R],
) -> Result<Pointer> {
    expect(tensor, buffer.len(), expected)?;
    buffer.pointer(0, buffer.len())
}

/// As [`whole`], and null for `None`.
pub(super) fn optional<T: DeviceElement>(
    tensor: &'static str,
    buffer: Option<&Buffer<T>>,
    len: usize,
) -> Result<Pointer> {
    buffer.map_or(Ok(Pointer::NULL), |buffer| whole(tensor, buffer, [len]))
}

/// Whether Δ can be limited so.
pub(super) fn expect_limits(limits: DtLimits) -> Result<()> {
    let DtLimits { min, max } = limits;
    let fail = |index, value: f32, allowed| {
        let (tensor, value) = ("dt limits", value.into());
        Err(ArgumentError::Value { tensor, index, value, allowed }.into())
    };
    match () {
        () if !(min >= 0.0 && min.is_finite()) => fail(0, min, "a finite number ≥ 0"),
        () if max.is_nan() || max < min => fail(1, max, "at least the lower limit"),
        () => Ok(()),
    }
}

/// Whether `len` elements are of shape `expected`.
pub(super) fn expect<const R: usize>(
    tensor: &'static str,
    len: usize,
    expected: [usize; R],
) -> Result<()> {
    let elements = expected.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if elements != Some(len) {
        let (expected, actual) = (expected.into(), [len].into());
        return Err(ArgumentError::Shape { tensor, expected, actual }.into());
    }
    Ok(())
}
