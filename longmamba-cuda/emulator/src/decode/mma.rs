//! Matrix products of a warp, and the loads that feed them.
//!
//! A GPU adds the products of one instruction in an order, and with a width, that is not documented.
//! Here each product is exact (it fits f32), and they are added to the accumulator one after the
//! other, in the order of k, each sum rounded to f32.

use super::memory::addresses;
use super::mods::{Mods, Ty};
use super::{Builder, Decoded};
use crate::error::LoadError;
use crate::exec::code::{Action, Members};
use crate::exec::regs::{LANES, Reg};
use crate::exec::warp::Warp;
use crate::memory::SHARED_WINDOW;
use crate::num::Half;
use crate::ptx::{Operand, Statement};

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    if !m.take("sync") || !m.take("aligned") {
        return Err(m.unsupported());
    }
    match s.opcode[0].as_str() {
        "ldmatrix" => ldmatrix(b, s, m),
        "movmatrix" => movmatrix(b, s, m),
        _ => mma(b, s, m),
    }
}

fn vector(
    b: &mut Builder<'_>,
    operand: &Operand,
    count: usize,
    dest: bool,
    ty: Ty,
) -> Result<Vec<Reg>, LoadError> {
    let parts = match operand {
        Operand::Vector(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    if parts.len() != count {
        return Err(b.error(format!("{} registers, {count} wanted", parts.len())));
    }
    parts.iter().map(|part| if dest { b.dest(part, ty) } else { b.source(part, ty) }).collect()
}

/// Where lane and index within the fragment lie in the upper left of an 8 by 8 tile of 16-bit
/// elements: lane `4 r + c` holds columns `2 c` and `2 c + 1` of row `r`.
fn ldmatrix(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let count = match m.any(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        Some(_) => 4,
        None => return Err(m.unsupported()),
    };
    let trans = m.take("trans");
    if !m.take("m8n8") || m.any(&["shared", "shared::cta"]).is_none() || m.ty()? != Ty::B(16) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[2])?;
    let regs = vector(b, &s.operands[0], count, true, Ty::B(32))?;
    let address = b.address(&s.operands[1])?;
    Ok(Action::Collective(
        Members::Warp,
        Box::new(move |warp, cta, _| {
            let addresses = addresses(warp, &address);
            for (matrix, reg) in regs.iter().enumerate() {
                let mut rows = [[0; 4]; 8];
                for (row, words) in rows.iter_mut().enumerate() {
                    let lane = matrix * 8 + row;
                    let site = cta.site(warp.index, lane as u32, false);
                    let at = addresses[lane];
                    let at = if at >= SHARED_WINDOW { at - SHARED_WINDOW } else { at };
                    *words = cta.shared.load(at, 16, site)?;
                }
                warp.regs.words[reg.index as usize] = fragment(&rows, trans);
            }
            Ok(())
        }),
    ))
}

/// The lanes' shares of eight rows of eight 16-bit elements.
fn fragment(rows: &[[u32; 4]; 8], trans: bool) -> [u32; LANES] {
    let element = |row: usize, column: usize| rows[row][column / 2] >> (column % 2 * 16) & 0xffff;
    std::array::from_fn(|lane| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        if trans {
            element(column, row) | element(column + 1, row) << 16
        } else {
            rows[row][column / 2]
        }
    })
}

fn movmatrix(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    if !m.take("m8n8") || !m.take("trans") || m.ty()? != Ty::B(16) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[2])?;
    let d = b.dest(&s.operands[0], Ty::B(32))?;
    let a = b.source(&s.operands[1], Ty::B(32))?;
    Ok(Action::Collective(
        Members::Warp,
        Box::new(move |warp, _, _| {
            let from = warp.regs.words[a.index as usize];
            let rows = std::array::from_fn(|row| std::array::from_fn(|word| from[row * 4 + word]));
            warp.regs.words[d.index as usize] = fragment(&rows, true);
            Ok(())
        }),
    ))
}

/// What the elements of A and B are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Half(Half),
    /// The upper 19 bits of an f32.
    Tf32,
}

impl Input {
    /// Elements in a register.
    fn packed(self) -> usize {
        if self == Input::Tf32 { 1 } else { 2 }
    }
}

fn mma(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let Some(shape) = m.any(&["m16n8k4", "m16n8k8", "m16n8k16"]) else {
        return Err(m.unsupported());
    };
    let depth: usize = match shape {
        "m16n8k4" => 4,
        "m16n8k8" => 8,
        _ => 16,
    };
    // Both are in the name, in this order, whatever the types.
    if m.rest().first() != Some(&"row") || m.rest().get(1) != Some(&"col") {
        return Err(m.unsupported());
    }
    m.take("row");
    m.take("col");
    let (input, wide) = match m.rest() {
        ["f32", "f16", "f16", "f32"] => (Input::Half(Half::F16), true),
        ["f32", "bf16", "bf16", "f32"] => (Input::Half(Half::Bf16), true),
        ["f32", "tf32", "tf32", "f32"] => (Input::Tf32, true),
        ["f16", "f16", "f16", "f16"] => (Input::Half(Half::F16), false),
        _ => return Err(m.unsupported()),
    };
    if (input == Input::Tf32) != (depth == 4) && depth != 8 {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[4])?;
    let (sums, sum_ty) = if wide { (4, Ty::F32) } else { (2, Ty::B(32)) };
    let a_count = 16 * depth / LANES / input.packed();
    let d = vector(b, &s.operands[0], sums, true, sum_ty)?;
    let x = vector(b, &s.operands[1], a_count, false, Ty::B(32))?;
    let y = vector(b, &s.operands[2], a_count / 2, false, Ty::B(32))?;
    let c = vector(b, &s.operands[3], sums, false, sum_ty)?;
    Ok(Action::Collective(
        Members::Warp,
        Box::new(move |warp, _, _| {
            let mut sum = accumulators(warp, &c, wide);
            multiply(warp, &x, &y, input, depth, &mut sum);
            for lane in 0..LANES {
                let (row, column) = (lane / 4, lane % 4 * 2);
                for half in 0..2 {
                    let pair = [sum[row + 8 * half][column], sum[row + 8 * half][column + 1]];
                    if wide {
                        for (i, value) in pair.into_iter().enumerate() {
                            let reg = d[2 * half + i];
                            warp.regs.words[reg.index as usize][lane] = value.to_bits();
                        }
                    } else {
                        let [low, high] = pair.map(|value| u32::from(Half::F16.nearest(value)));
                        warp.regs.words[d[half].index as usize][lane] = low | high << 16;
                    }
                }
            }
            Ok(())
        }),
    ))
}

fn accumulators(warp: &Warp, c: &[Reg], wide: bool) -> [[f32; 8]; 16] {
    let mut sum = [[0.0; 8]; 16];
    for lane in 0..LANES {
        let (row, column) = (lane / 4, lane % 4 * 2);
        for half in 0..2 {
            for i in 0..2 {
                sum[row + 8 * half][column + i] = if wide {
                    f32::from_bits(warp.regs.words[c[2 * half + i].index as usize][lane])
                } else {
                    let bits = warp.regs.words[c[half].index as usize][lane];
                    Half::F16.decode((bits >> (16 * i)) as u16)
                };
            }
        }
    }
    sum
}

/// One loop for each type, so that which it is is not asked for each element.
fn multiply(
    warp: &Warp,
    x: &[Reg],
    y: &[Reg],
    input: Input,
    depth: usize,
    sum: &mut [[f32; 8]; 16],
) {
    match input {
        Input::Half(Half::F16) => multiply_as::<2>(warp, x, y, depth, sum, |bits, i| {
            Half::F16.decode((bits >> (i * 16)) as u16)
        }),
        Input::Half(Half::Bf16) => multiply_as::<2>(warp, x, y, depth, sum, |bits, i| {
            Half::Bf16.decode((bits >> (i * 16)) as u16)
        }),
        Input::Tf32 => {
            multiply_as::<1>(warp, x, y, depth, sum, |bits, _| f32::from_bits(bits & 0xffff_e000))
        }
    }
}

/// Registers of A hold, in this order: the upper and the lower eight rows of the first columns, then
/// of the columns that follow; those of B the first rows, then those that follow.
#[inline(always)]
fn multiply_as<const PACKED: usize>(
    warp: &Warp,
    x: &[Reg],
    y: &[Reg],
    depth: usize,
    sum: &mut [[f32; 8]; 16],
    decode: impl Fn(u32, usize) -> f32,
) {
    let mut left = [[0.0; 16]; 16];
    let mut right = [[0.0; 8]; 16];
    for (index, reg) in x.iter().enumerate() {
        let words = &warp.regs.words[reg.index as usize];
        for (lane, word) in words.iter().enumerate() {
            for i in 0..PACKED {
                let row = lane / 4 + index % 2 * 8;
                let k = lane % 4 * PACKED + i + index / 2 * 4 * PACKED;
                left[row][k] = decode(*word, i);
            }
        }
    }
    for (index, reg) in y.iter().enumerate() {
        let words = &warp.regs.words[reg.index as usize];
        for (lane, word) in words.iter().enumerate() {
            for i in 0..PACKED {
                right[lane % 4 * PACKED + i + index * 4 * PACKED][lane / 4] = decode(*word, i);
            }
        }
    }
    for (sums, left) in sum.iter_mut().zip(&left) {
        let mut kept = *sums;
        for (left, right) in left.iter().zip(&right).take(depth) {
            for (sum, right) in kept.iter_mut().zip(right) {
                *sum += left * right;
            }
        }
        *sums = kept;
    }
}
