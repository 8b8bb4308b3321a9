//! What the SSD kernels are given, as in `kernels/ssd/arguments.cuh`.

use crate::arguments::Strided;
use crate::launch::Pointer;
use bytemuck::{Pod, Zeroable};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Arguments {
    pub x: Strided,
    pub dt_raw: Strided,
    pub b: Strided,
    pub c: Strided,
    pub y: Strided,
    pub state: Pointer,
    pub a: Pointer,
    pub d: Pointer,
    pub dt_bias: Pointer,
    pub delta_min: Pointer,
    pub lengths: Pointer,
    pub sums: [Pointer; 3],
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
    pub parts: [Pointer; 3],
    pub sums: [Pointer; 3],
    pub lines: u64,
    pub segments: u32,
    pub padding: u32,
}
