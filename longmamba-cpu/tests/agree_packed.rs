//! Products with rearranged weights against those with weights as they are, from 12 rows on: the same sums in the
//! same order, so that not a bit may differ, whatever the number of rows. Those are held against the oracle in
//! `agree_matmul`.

mod common;

use common::{Random, Strided, assert_same, cpus, with_threads};
use half::{bf16, f16};
use longmamba_core::{AlignedVec, AnyView, DType, Error, Layout, View, ViewMut};
use longmamba_cpu::{Accumulate, Cpu, Normed, Packed, Scratch};

/// Rows that take the method for many.
const MANY: usize = 12;

/// A product's arguments: x of at least [`MANY`] rows, and the weights in both types.
struct Problem {
    shape: [usize; 3],
    x: Vec<f32>,
    w: Vec<f32>,
    pairs: Vec<bf16>,
    before: Vec<f32>,
}

impl Problem {
    fn new(shape: [usize; 3]) -> Self {
        let [rows, inputs, outputs] = shape;
        let mut random = Random::new((rows * 1_000_003 + inputs * 1009 + outputs) as u64);
        let x = random.vec(rows.max(MANY) * inputs, -1.0, 1.0);
        let w = random.vec(outputs * inputs, -1.0, 1.0);
        let pairs = w.iter().map(|&w| bf16::from_f32(w)).collect();
        let before = random.vec(rows.max(MANY) * outputs, -1.0, 1.0);
        Problem { shape, x, w, pairs, before }
    }

    fn weights(&self, dtype: DType) -> AnyView<'_, 2> {
        let [_, inputs, outputs] = self.shape;
        match dtype {
            DType::F32 => AnyView::F32(View::new(&self.w, [outputs, inputs]).unwrap()),
            _ => AnyView::BF16(View::new(&self.pairs, [outputs, inputs]).unwrap()),
        }
    }

    fn packed(&self, cpu: Cpu, kind: Kind) -> Packed {
        let w = self.weights(kind.dtype);
        if let (true, AnyView::BF16(w)) = (kind.compact, w) {
            let mut room = AlignedVec::<u8>::zeros(cpu.compact_bytes(w.shape()).unwrap());
            room.fill(0xff);
            if let Some(packed) = cpu.pack_compact(w, room).unwrap() {
                assert!(packed.is_compact());
                return packed;
            }
        }
        let dtype = kind.dtype;
        let mut room = AlignedVec::<u8>::zeros(cpu.packed_bytes(dtype, w.shape()).unwrap());
        // What was there before must not show.
        room.fill(0xff);
        cpu.pack(w, room).unwrap()
    }

    /// The first rows of the product with the weights as they are, where those are `bf16` with x rounded or not.
    fn expected(&self, cpu: Cpu, kind: Kind, accumulate: Accumulate) -> Vec<f32> {
        let [rows, inputs, outputs] = self.shape;
        let many = rows.max(MANY);
        let mut out = self.before.clone();
        let x = View::new(&self.x, [many, inputs]).unwrap();
        let at = ViewMut::new(&mut out, [many, outputs]).unwrap();
        match (kind.rounds, self.weights(kind.dtype)) {
            (true, AnyView::BF16(w)) => cpu.matmul_bf16(x, w, at, accumulate, &mut Scratch::new()),
            (_, w) => cpu.matmul(x, w, at, accumulate, &mut Scratch::new()),
        }
        .unwrap();
        out.truncate(rows * outputs);
        out
    }

    /// The product with `packed`, rows of x and the output `gap` apart.
    fn found(
        &self,
        cpu: Cpu,
        packed: &Packed,
        rounds: bool,
        gap: usize,
        accumulate: Accumulate,
    ) -> Vec<f32> {
        let [rows, inputs, outputs] = self.shape;
        let x = Strided::rows(&self.x[..rows * inputs], [rows, inputs], gap);
        let mut out = Strided::rows(&self.before[..rows * outputs], [rows, outputs], gap);
        let scratch = &mut Scratch::new();
        match rounds {
            false => cpu.matmul_packed(x.view(), packed, out.view_mut(), accumulate, scratch),
            true => cpu.matmul_packed_bf16(x.view(), packed, out.view_mut(), accumulate, scratch),
        }
        .unwrap();
        out.values()
    }
}

/// Weights of a type, whether x is rounded to it, and whether they are compact.
#[derive(Clone, Copy, Debug)]
struct Kind {
    dtype: DType,
    rounds: bool,
    compact: bool,
}

const FLOATS: Kind = Kind { dtype: DType::F32, rounds: false, compact: false };
const PAIRS: Kind = Kind { dtype: DType::BF16, rounds: false, compact: false };

const KINDS: [Kind; 5] = [
    FLOATS,
    PAIRS,
    Kind { rounds: true, ..PAIRS },
    Kind { compact: true, ..PAIRS },
    Kind { rounds: true, compact: true, ..PAIRS },
];

fn check(cpu: Cpu, packer: Cpu, shape: [usize; 3], gap: usize, accumulate: Accumulate) {
    let problem = Problem::new(shape);
    for kind in KINDS {
        let packed = problem.packed(packer, kind);
        assert_eq!(packed.shape(), [shape[2], shape[1]]);
        let what = format!("{cpu:?} {packer:?} {kind:?} {shape:?} gap {gap} {accumulate:?}");
        let found = problem.found(cpu, &packed, kind.rounds, gap, accumulate);
        assert_same(&what, &found, &problem.expected(cpu, kind, accumulate));
    }
}

#[test]
fn small_shapes() {
    for cpu in cpus() {
        for rows in 0..=13 {
            for inputs in [0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33] {
                for (i, outputs) in [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 65].into_iter().enumerate()
                {
                    let accumulate = [Accumulate::No, Accumulate::Yes][(i + inputs) % 2];
                    check(cpu, cpu, [rows, inputs, outputs], i % 2 * 3, accumulate);
                }
            }
        }
    }
}

/// Around tiles, panels, stretches of a panel, and rows that a power of two apart would collide.
#[test]
fn large_shapes() {
    for cpu in cpus() {
        for shape in [
            [1, 768, 130],
            [7, 513, 41],
            [25, 1025, 17],
            [14, 512, 48],
            [24, 96, 524],
            [265, 33, 9],
            [530, 17, 33],
            [13, 2049, 34],
            [11, 1030, 70],
            [2, 1537, 65],
            [3, 4100, 40],
            [1, 4100, 40],
        ] {
            check(cpu, cpu, shape, 0, Accumulate::No);
            check(cpu, cpu, shape, 5, Accumulate::Yes);
        }
    }
}

/// Where there is one row, how far it is to the next means nothing, and may be any number.
#[test]
fn one_row_may_have_any_distance_to_the_next() {
    let [rows, inputs, outputs] = [1, 40, 33];
    let problem = Problem::new([rows, inputs, outputs]);
    for cpu in cpus() {
        for kind in KINDS {
            let packed = problem.packed(cpu, kind);
            let expected = problem.found(cpu, &packed, kind.rounds, 0, Accumulate::No);
            for stride in [0, 1 << 62, usize::MAX - 1, usize::MAX] {
                let layout = Layout::strided([rows, inputs], [stride, 1]).unwrap();
                let x = View::with_layout(&problem.x[..inputs], layout).unwrap();
                let mut out = vec![0.0; outputs];
                let at = ViewMut::new(&mut out, [rows, outputs]).unwrap();
                let (accumulate, scratch) = (Accumulate::No, &mut Scratch::new());
                match kind.rounds {
                    false => cpu.matmul_packed(x, &packed, at, accumulate, scratch),
                    true => cpu.matmul_packed_bf16(x, &packed, at, accumulate, scratch),
                }
                .unwrap();
                assert_same(&format!("{cpu:?} {kind:?} {stride}"), &out, &expected);
            }
        }
    }
}

/// Panels of any width can be read by all instruction sets.
#[test]
fn panels_of_another_instruction_set() {
    for cpu in cpus() {
        for packer in cpus() {
            for shape in [[1, 40, 33], [13, 40, 16], [14, 1030, 75]] {
                check(cpu, packer, shape, 0, Accumulate::No);
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    for cpu in cpus() {
        for shape in [[64, 96, 524], [600, 200, 40], [1, 500, 2003], [5, 768, 700]] {
            let problem = Problem::new(shape);
            for kind in KINDS {
                let expected = problem.expected(cpu, kind, Accumulate::Yes);
                for threads in [1, 2, 3, 7] {
                    let found = with_threads(threads, || {
                        let packed = problem.packed(cpu, kind);
                        problem.found(cpu, &packed, kind.rounds, 0, Accumulate::Yes)
                    });
                    assert_same(
                        &format!("{cpu:?} {shape:?}, {threads} threads"),
                        &found,
                        &expected,
                    );
                }
            }
        }
    }
}

/// Weights whose exponents a table has not: at the ends of panels and stretches, several in one step, infinities, NaN and
/// values below what is normal. A sum that is NaN is that with either.
#[test]
fn compact_weights_keep_every_bit() {
    let odd = [
        0x7f80_u16, 0xff80, 0x7fc1, 0x0001, 0x8000, 0x0000, 0x7f7f, 0x0080, 0x4b80, 0x3000, 0xb001,
    ];
    // Rows that meet a panel while it is unpacked, and others after that.
    let shapes = [[1, 2100, 33], [2, 1030, 64], [3, 2101, 5], [13, 2100, 65]];
    let more = (4..=12).map(|rows| [rows, 2100, 40]);
    for [rows, inputs, outputs] in shapes.into_iter().chain(more) {
        let mut problem = Problem::new([rows, inputs, outputs]);
        // Sizes that fill a table.
        for (i, w) in problem.pairs.iter_mut().enumerate() {
            *w = bf16::from_f32([1.5f32, -1.25, 1.75][i % 3] * (-((i % 16) as f32)).exp2());
        }
        let last = outputs - 1;
        let places = [0, 1, inputs / 2, inputs - 1];
        for (i, input) in places.into_iter().enumerate() {
            // Infinities and NaN in the first outputs only, so that the others are numbers.
            problem.pairs[input] = bf16::from_bits(odd[i % 3]);
            for (j, output) in [1, 2, outputs / 2, last].into_iter().enumerate() {
                let bits = odd[3 + (i * 5 + j) % 8] ^ ((i + j) as u16) << 9;
                problem.pairs[output * inputs + input] = bf16::from_bits(bits & 0xbfff);
            }
        }
        for cpu in cpus() {
            for rounds in [false, true] {
                let whole = Kind { rounds, ..PAIRS };
                let compact = problem.packed(cpu, Kind { compact: true, ..whole });
                assert!(compact.is_compact());
                let same = |found: &[f32], expected: &[f32]| {
                    let pairs = found.iter().zip(expected);
                    pairs
                        .clone()
                        .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
                        && pairs.filter(|(a, _)| a.is_finite()).count() >= rows * (outputs - 1) / 2
                };
                let found = problem.found(cpu, &compact, rounds, 0, Accumulate::Yes);
                let packed = problem.packed(cpu, whole);
                let expected = problem.found(cpu, &packed, rounds, 0, Accumulate::Yes);
                assert!(same(&found, &expected), "{cpu:?} {:?} {rounds}", problem.shape);
            }
        }
    }
}

/// Weights of all sizes are not worth it; those of few are, and take three quarters of the memory.
#[test]
fn weights_are_compact_where_that_pays() {
    let shape = [64, 96];
    let room = |cpu: Cpu| AlignedVec::<u8>::zeros(cpu.compact_bytes(shape).unwrap());
    let all: Vec<bf16> = (0..64 * 96).map(|i| bf16::from_bits((i * 263 % 65536) as u16)).collect();
    let mut random = Random::new(7);
    let few = random.vec(64 * 96, -1.0, 1.0).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
    for cpu in cpus() {
        let pack = |w: &[bf16]| cpu.pack_compact(View::new(w, shape).unwrap(), room(cpu)).unwrap();
        assert!(pack(&all).is_none());
        let packed = pack(&few).unwrap();
        assert!(packed.is_compact());
        assert_eq!((packed.shape(), packed.dtype()), (shape, DType::BF16));
        let whole = cpu.packed_bytes(DType::BF16, shape).unwrap();
        assert!(packed.bytes() * 100 < whole * 77, "{} of {whole}", packed.bytes());

        // The last panel is filled up.
        let narrow = View::new(&few[..96 * 33], [33, 96]).unwrap();
        let narrow = cpu.pack_compact(narrow, room(cpu)).unwrap();
        assert!(narrow.is_some_and(|narrow| narrow.bytes() <= packed.bytes()));

        let empty: [bf16; 0] = [];
        for shape in [[0, 5], [5, 0]] {
            let w = View::new(&empty, shape).unwrap();
            assert!(cpu.pack_compact(w, AlignedVec::<u8>::zeros(0)).unwrap().is_none());
        }
        let (needed, available) = (cpu.compact_bytes(shape).unwrap(), 64 * 96);
        let w = View::new(&few[..], shape).unwrap();
        let error = cpu.pack_compact(w, AlignedVec::<u8>::zeros(available)).unwrap_err();
        assert_eq!(error, Error::OutOfBounds { needed: Some(needed), available });
        let apart =
            View::with_layout(&few[..], Layout::strided([64, 48], [96, 2]).unwrap()).unwrap();
        assert!(matches!(cpu.pack_compact(apart, room(cpu)), Err(Error::NotContiguous { .. })));
        assert!(cpu.compact_bytes([usize::MAX, 2]).is_err());
        assert!(cpu.compact_bytes([1 << 40, 1 << 40]).is_err());
    }
}

/// A norm's rows that are rounded as they come, against those that were written down first.
#[test]
fn normed_rows() {
    for cpu in cpus() {
        for [rows, inputs, outputs] in
            [[0, 8, 3], [1, 24, 40], [5, 33, 16], [13, 768, 35], [400, 40, 33]]
        {
            let problem = Problem::new([rows, inputs, outputs]);
            let packed = problem.packed(cpu, PAIRS);
            let mut random = Random::new(rows as u64);
            let x = random.vec(rows * inputs, -3.0, 3.0);
            let (weight, bias) = (random.vec(inputs, 0.5, 1.5), random.vec(inputs, -1.0, 1.0));
            let z = random.vec(rows * inputs, -3.0, 3.0);
            let shape = [rows, inputs];
            let (x, z) = (View::new(&x, shape).unwrap(), View::new(&z, shape).unwrap());
            let group = if inputs % 4 == 0 { inputs / 4 } else { inputs };
            for (kind, norm) in [
                Normed::rms(x, &weight, 1e-5),
                Normed::layer(x, &weight, &bias, 1e-5),
                Normed::gated_rms(x, z, &weight, group, 1e-5),
            ]
            .into_iter()
            .enumerate()
            {
                let norm = norm.unwrap();
                let mut normed = vec![f32::NAN; rows * inputs];
                cpu.normed(norm, ViewMut::new(&mut normed, shape).unwrap()).unwrap();
                let normed = Problem { x: normed, ..Problem::new([rows, inputs, outputs]) };
                let expected = normed.found(cpu, &packed, true, 0, Accumulate::Yes);
                for threads in [1, 2, 5] {
                    let mut out = problem.before[..rows * outputs].to_vec();
                    let view = ViewMut::new(&mut out, [rows, outputs]).unwrap();
                    let scratch = &mut Scratch::new();
                    with_threads(threads, || {
                        cpu.matmul_normed_bf16(norm, &packed, view, Accumulate::Yes, scratch)
                    })
                    .unwrap();
                    let what = format!("{cpu:?} norm {kind} {shape:?}, {threads} threads");
                    assert_same(&what, &out, &expected);
                }
            }
        }
    }
}

/// An odd number of floats gets a neighbour to meet pairs, and it is zero.
#[test]
fn scratch_may_hold_anything() {
    for cpu in cpus() {
        let (wide, narrow) = (Problem::new([2, 35, 9]), Problem::new([2, 33, 9]));
        let scratch = &mut Scratch::new();
        let mut out = [0.0; 18];
        let mut run = |problem: &Problem, x: &[f32]| {
            let x = View::new(x, [2, problem.shape[1]]).unwrap();
            let view = ViewMut::new(&mut out, [2, 9]).unwrap();
            let packed = problem.packed(cpu, PAIRS);
            cpu.matmul_packed(x, &packed, view, Accumulate::No, scratch).unwrap();
            out
        };
        assert!(run(&wide, &[f32::NAN; 70]).iter().all(|v| v.is_nan()));
        let found = run(&narrow, &narrow.x[..66]);
        assert_same(&format!("{cpu:?}"), &found, &narrow.expected(cpu, PAIRS, Accumulate::No));
    }
}

#[test]
fn arguments_are_checked() {
    let cpu = Cpu::new();
    let weights = [f16::ONE; 6];
    let w = AnyView::F16(View::new(&weights, [2, 3]).unwrap());
    let no_f16 = Error::DType { expected: DType::BF16, actual: DType::F16 };
    assert_eq!(cpu.packed_bytes(DType::F16, [2, 3]), Err(no_f16.clone()));
    assert_eq!(cpu.pack(w, AlignedVec::<u8>::zeros(1 << 12)).unwrap_err(), no_f16);

    let problem = Problem::new([12, 3, 2]);
    let bytes = cpu.packed_bytes(DType::F32, [2, 3]).unwrap();
    let room = AlignedVec::<u8>::zeros(bytes - 1);
    let too_small = Error::OutOfBounds { needed: Some(bytes), available: bytes - 1 };
    assert_eq!(cpu.pack(problem.weights(DType::F32), room).unwrap_err(), too_small);
    assert!(cpu.packed_bytes(DType::F32, [usize::MAX, 2]).is_err());
    assert!(cpu.packed_bytes(DType::F32, [2, usize::MAX]).is_err());
    assert!(cpu.packed_bytes(DType::BF16, [1 << 40, 1 << 40]).is_err());

    let (floats, pairs) = (problem.packed(cpu, FLOATS), problem.packed(cpu, PAIRS));
    let (x, mut out) = ([0.0; 3], [0.0; 2]);
    let x = View::new(&x, [1, 3]).unwrap();
    let mut run = |packed, rounded| {
        let out = ViewMut::new(&mut out, [1, 2]).unwrap();
        let scratch = &mut Scratch::new();
        match rounded {
            true => cpu.matmul_packed_bf16(x, packed, out, Accumulate::No, scratch),
            false => cpu.matmul_packed(x, packed, out, Accumulate::No, scratch),
        }
    };
    assert_eq!(run(&floats, false), Ok(()));
    assert_eq!(run(&pairs, true), Ok(()));
    assert_eq!(run(&pairs, false), Ok(()));
    assert!(matches!(run(&floats, true), Err(Error::DType { .. })));
    let narrow = [0.0; 2];
    let (x, scratch) = (View::new(&narrow, [1, 2]).unwrap(), &mut Scratch::new());
    let out = ViewMut::new(&mut out, [1, 2]).unwrap();
    let error = cpu.matmul_packed(x, &floats, out, Accumulate::No, scratch).unwrap_err();
    assert_eq!(error.to_string(), "w has shape [2, 3], expected [2, 2]");
}
