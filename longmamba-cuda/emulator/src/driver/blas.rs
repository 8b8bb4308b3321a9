//! A stand-in for cuBLASLt, in the same shared library: what a program needs to multiply matrices of f32, f16
//! or bf16 with a bias, and nothing else. It takes sums in f64, and is for tests of how it is called: handles,
//! attributes, layouts, alignments, the algorithm and the workspace are those that were agreed on, or the
//! call fails and says why on stderr.
//!
//! Matrices are counted in columns, as Fortran does.

use super::entries;
use super::ffi::{Host, Out};
use super::operation::{Operation, submit};
use super::state::{Handle, state};
use crate::device::{Emulator, lock};
use crate::error::MemoryError;
use crate::num::Half;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// `cublasStatus_t`.
const INVALID_VALUE: i32 = 7;
const EXECUTION_FAILED: i32 = 13;
const NOT_SUPPORTED: i32 = 15;

/// Bytes that every product needs, so that programs cannot forget them.
const WORKSPACE: usize = 4096;
/// What an algorithm begins with.
const MAGIC: u64 = 0x6c6f_6e67_6d61_6d62;

fn refuse<T>(code: i32, why: &str) -> Result<T, i32> {
    eprintln!("emulator: cuBLASLt: {why}");
    Err(code)
}

fn demand(holds: bool, code: i32, why: &str) -> Result<(), i32> {
    if holds { Ok(()) } else { refuse(code, why) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F32,
    F16,
    BF16,
}

impl Element {
    fn new(kind: i32) -> Result<Self, i32> {
        match kind {
            0 => Ok(Element::F32),
            2 => Ok(Element::F16),
            14 => Ok(Element::BF16),
            _ => refuse(NOT_SUPPORTED, &format!("type {kind} of elements")),
        }
    }

    fn size(self) -> u64 {
        if self == Element::F32 { 4 } else { 2 }
    }

    fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let short = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        match self {
            Element::F32 => {
                bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Element::F16 => bytes.chunks(2).map(|b| Half::F16.decode(short(b))).collect(),
            Element::BF16 => bytes.chunks(2).map(|b| Half::Bf16.decode(short(b))).collect(),
        }
    }
}

/// Columns of neighbouring elements.
#[derive(Clone, Copy, Debug)]
struct Layout {
    element: Element,
    rows: u64,
    columns: u64,
    /// Elements between columns.
    stride: u64,
}

impl Layout {
    /// The elements of a column.
    fn column(&self, emulator: &Emulator, from: u64, column: u64) -> Result<Vec<f32>, MemoryError> {
        let mut bytes = vec![0; (self.rows * self.element.size()) as usize];
        emulator.read(from + column * self.stride * self.element.size(), &mut bytes)?;
        Ok(self.element.widen(&bytes))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Description {
    transposes_a: bool,
    has_bias: bool,
    bias: u64,
}

#[derive(Clone, Copy, Debug)]
struct Preference {
    workspace: u64,
    /// Of A, B, C and D.
    alignments: [u32; 4],
}

#[derive(Clone, Copy, Debug)]
enum Object {
    Library,
    Description(Description),
    Layout(Layout),
    Preference(Preference),
}

static OBJECTS: Mutex<Option<(Handle, HashMap<Handle, Object>)>> = Mutex::new(None);

fn objects<R>(work: impl FnOnce(&mut Handle, &mut HashMap<Handle, Object>) -> R) -> R {
    let mut objects = lock(&OBJECTS);
    // Handles of the driver are elsewhere, so that the two cannot be taken for each other.
    let (next, all) = objects.get_or_insert_with(|| (0x7000_0000_0000, HashMap::new()));
    work(next, all)
}

fn create(out: &Out<Handle>, object: Object) -> Result<(), i32> {
    let handle = objects(|next, all| {
        *next += 16;
        all.insert(*next, object);
        *next
    });
    out.set(handle)
}

fn find<T>(handle: Handle, what: &str, kind: impl FnOnce(Object) -> Option<T>) -> Result<T, i32> {
    match objects(|_, all| all.get(&handle).copied()).and_then(kind) {
        Some(found) => Ok(found),
        None => refuse(INVALID_VALUE, &format!("{handle:#x} is no {what}")),
    }
}

fn destroy<T>(
    handle: Handle,
    what: &str,
    kind: impl FnOnce(Object) -> Option<T>,
) -> Result<(), i32> {
    find(handle, what, kind)?;
    objects(|_, all| all.remove(&handle));
    Ok(())
}

fn library(object: Object) -> Option<()> {
    matches!(object, Object::Library).then_some(())
}

fn description(object: Object) -> Option<Description> {
    if let Object::Description(found) = object { Some(found) } else { None }
}

fn layout(object: Object) -> Option<Layout> {
    if let Object::Layout(found) = object { Some(found) } else { None }
}

fn preference(object: Object) -> Option<Preference> {
    if let Object::Preference(found) = object { Some(found) } else { None }
}

/// The value of an attribute that has `N` bytes.
fn value<const N: usize>(from: Host, size: usize) -> Result<[u8; N], i32> {
    demand(size == N, INVALID_VALUE, &format!("an attribute of {N} bytes is given {size}"))?;
    let mut bytes = [0; N];
    from.read(N, |from| bytes.copy_from_slice(from))?;
    Ok(bytes)
}

/// What a description and layouts say of a product.
#[derive(Clone, Copy, Debug)]
struct Problem {
    description: Description,
    a: Layout,
    b: Layout,
    d: Layout,
}

impl Problem {
    fn new(handles: [Handle; 5]) -> Result<Self, i32> {
        let [operation, a, b, c, d] = handles;
        let description = find(operation, "description of a product", description)?;
        let find = |handle| find(handle, "layout", layout);
        let (a, b, c, d) = (find(a)?, find(b)?, find(c)?, find(d)?);
        demand(description.transposes_a, NOT_SUPPORTED, "A is not transposed")?;
        demand(a.element == b.element, NOT_SUPPORTED, "A and B are of different types")?;
        demand(d.element == Element::F32, NOT_SUPPORTED, "the result is not f32")?;
        let same = |e: Layout, f: Layout| {
            (e.element, e.rows, e.columns, e.stride) == (f.element, f.rows, f.columns, f.stride)
        };
        demand(same(c, d), NOT_SUPPORTED, "C and D are laid out in different ways")?;
        demand(a.rows == b.rows, INVALID_VALUE, "A and B have different inner sizes")?;
        demand(
            (a.columns, b.columns) == (d.rows, d.columns),
            INVALID_VALUE,
            "the result has not the sizes of A and B",
        )?;
        Ok(Problem { description, a, b, d })
    }

    /// What identifies it, with what was agreed on about addresses.
    fn algorithm(&self, alignments: [u32; 4]) -> [u64; 8] {
        let Problem { description, a, b, d } = self;
        let kind = a.element.size() << 1 | u64::from(description.has_bias);
        let strides = a.stride.wrapping_mul(31).wrapping_add(b.stride).wrapping_mul(31);
        let [e, f, g, h] = alignments.map(u64::from);
        let alignments = e | f << 16 | g << 32 | h << 48;
        [MAGIC, d.rows, d.columns, a.rows, strides.wrapping_add(d.stride), kind, alignments, 0]
    }
}

/// A product that is ready to be taken.
#[derive(Clone, Debug)]
pub(super) struct Product {
    problem: Problem,
    alpha: f32,
    beta: f32,
    a: u64,
    b: u64,
    d: u64,
    workspace: u64,
}

impl Product {
    pub(super) fn run(&self, emulator: &Emulator) -> Result<(), MemoryError> {
        let Problem { description, a, b, d } = self.problem;
        if emulator.config().trace {
            let (m, n, k) = (d.rows, d.columns, a.rows);
            eprintln!("emulator: cuBLASLt {m} x {n} x {k} of {:?}", a.element);
        }
        // Whatever was there is gone, as it would be.
        emulator.fill(self.workspace, &[0xff], WORKSPACE as u64)?;
        let bias = Layout { element: Element::F32, rows: d.rows, columns: 1, stride: d.rows };
        let bias = match description.has_bias {
            true => bias.column(emulator, description.bias, 0)?,
            false => vec![0.0; d.rows as usize],
        };
        let a: Vec<Vec<f32>> =
            (0..a.columns).map(|i| a.column(emulator, self.a, i)).collect::<Result<_, _>>()?;
        for column in 0..d.columns {
            let b = b.column(emulator, self.b, column)?;
            let before = match self.beta == 0.0 {
                true => vec![0.0; d.rows as usize],
                false => d.column(emulator, self.d, column)?,
            };
            let mut bytes = Vec::with_capacity(before.len() * 4);
            for ((a, before), bias) in a.iter().zip(&before).zip(&bias) {
                let sum: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let sum = (f64::from(self.alpha) * sum) as f32;
                bytes.extend((sum + self.beta * before + bias).to_le_bytes());
            }
            emulator.write(self.d + column * d.stride * 4, &bytes)?;
        }
        Ok(())
    }
}

entries! {
    fn cublasLtCreate(handle: Out<Handle>) {
        // A context must be current.
        state()?.here()?;
        create(&handle, Object::Library)
    }

    fn cublasLtDestroy(handle: Handle) {
        destroy(handle, "handle of the library", library)
    }

    fn cublasLtMatmulDescCreate(handle: Out<Handle>, compute: i32, scale: i32) {
        demand((compute, scale) == (68, 0), NOT_SUPPORTED, "products and sums are not f32")?;
        create(&handle, Object::Description(Description::default()))
    }

    fn cublasLtMatmulDescDestroy(handle: Handle) {
        destroy(handle, "description of a product", description)
    }

    fn cublasLtMatmulDescSetAttribute(handle: Handle, attribute: i32, from: Host, size: usize) {
        let mut found = find(handle, "description of a product", description)?;
        match attribute {
            3 => found.transposes_a = i32::from_le_bytes(value(from, size)?) == 1,
            7 => match i32::from_le_bytes(value(from, size)?) {
                1 => found.has_bias = false,
                4 => found.has_bias = true,
                other => return refuse(NOT_SUPPORTED, &format!("epilogue {other}")),
            },
            8 => found.bias = u64::from_le_bytes(value(from, size)?),
            _ => return refuse(NOT_SUPPORTED, &format!("attribute {attribute} of a product")),
        }
        objects(|_, all| all.insert(handle, Object::Description(found)));
        Ok(())
    }

    fn cublasLtMatrixLayoutCreate(
        handle: Out<Handle>,
        kind: i32,
        rows: u64,
        columns: u64,
        stride: i64,
    ) {
        let element = Element::new(kind)?;
        let stride = u64::try_from(stride).unwrap_or(0);
        demand(rows > 0 && columns > 0, INVALID_VALUE, "a matrix without elements")?;
        demand(stride >= rows, INVALID_VALUE, "columns overlap")?;
        create(&handle, Object::Layout(Layout { element, rows, columns, stride }))
    }

    fn cublasLtMatrixLayoutDestroy(handle: Handle) {
        destroy(handle, "layout", layout)
    }

    fn cublasLtMatmulPreferenceCreate(handle: Out<Handle>) {
        create(&handle, Object::Preference(Preference { workspace: 0, alignments: [256; 4] }))
    }

    fn cublasLtMatmulPreferenceDestroy(handle: Handle) {
        destroy(handle, "preference", preference)
    }

    fn cublasLtMatmulPreferenceSetAttribute(
        handle: Handle,
        attribute: i32,
        from: Host,
        size: usize,
    ) {
        let mut found = find(handle, "preference", preference)?;
        match attribute {
            1 => found.workspace = u64::from_le_bytes(value(from, size)?),
            5..=8 => {
                let bytes = u32::from_le_bytes(value(from, size)?);
                demand(bytes.is_power_of_two() && bytes <= 256, INVALID_VALUE, "an alignment")?;
                found.alignments[attribute as usize - 5] = bytes;
            }
            _ => return refuse(NOT_SUPPORTED, &format!("preference {attribute}")),
        }
        objects(|_, all| all.insert(handle, Object::Preference(found)));
        Ok(())
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        handle: Handle,
        operation: Handle,
        a: Handle,
        b: Handle,
        c: Handle,
        d: Handle,
        preferred: Handle,
        asked: i32,
        results: Host,
        count: Out<i32>,
    ) {
        find(handle, "handle of the library", library)?;
        let problem = Problem::new([operation, a, b, c, d])?;
        let preferred = find(preferred, "preference", preference)?;
        demand(asked > 0, INVALID_VALUE, "no algorithm is asked for")?;
        if preferred.workspace < WORKSPACE as u64 {
            return count.set(0);
        }
        let algorithm = problem.algorithm(preferred.alignments);
        let bytes: Vec<u8> = algorithm
            .into_iter()
            .chain([WORKSPACE as u64])
            .flat_map(u64::to_le_bytes)
            .chain([0; 4])
            .chain(1.0f32.to_le_bytes())
            .chain([0; 16])
            .collect();
        results.write(bytes.len(), |to| to.copy_from_slice(&bytes))?;
        count.set(1)
    }

    fn cublasLtMatmul(
        handle: Handle,
        operation: Handle,
        alpha: Host,
        a: u64,
        a_layout: Handle,
        b: u64,
        b_layout: Handle,
        beta: Host,
        c: u64,
        c_layout: Handle,
        d: u64,
        d_layout: Handle,
        algorithm: Host,
        workspace: u64,
        workspace_size: usize,
        stream: Handle,
    ) {
        find(handle, "handle of the library", library)?;
        let problem = Problem::new([operation, a_layout, b_layout, c_layout, d_layout])?;
        demand(c == d, NOT_SUPPORTED, "C and D are different matrices")?;
        let agreed = algorithm.read(64, |bytes| {
            let number = |b: &[u8]| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
            bytes.chunks(8).map(number).collect::<Vec<u64>>()
        })?;
        let alignments = [0, 16, 32, 48].map(|shift| (agreed[6] >> shift) as u16);
        let right = agreed == problem.algorithm(alignments.map(u32::from));
        demand(right, INVALID_VALUE, "the algorithm was chosen for another product")?;
        for (address, alignment) in [a, b, c, d].into_iter().zip(alignments) {
            let holds = address.is_multiple_of(u64::from(alignment.max(1)));
            demand(holds, INVALID_VALUE, &format!("{address:#x} is no multiple of {alignment}"))?;
        }
        let biased = problem.description.has_bias;
        let bias = problem.description.bias;
        demand(!biased || bias != 0 && bias.is_multiple_of(16), INVALID_VALUE, "the bias is not aligned")?;
        demand(workspace_size >= WORKSPACE, INVALID_VALUE, "the workspace is too small")?;
        demand(workspace.is_multiple_of(256), INVALID_VALUE, "the workspace is not aligned")?;
        let number = |from: Host| from.read(4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let (alpha, beta) = (number(alpha)?, number(beta)?);
        let product = Product { problem, alpha, beta, a, b, d, workspace };
        submit(stream, Operation::Product(Arc::new(product))).map_err(|_| EXECUTION_FAILED)
    }
}
