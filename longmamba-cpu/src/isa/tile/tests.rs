use super::*;
use crate::dispatch::Cpu;
use crate::isa::{MOST_LANES, Pair};
use half::bf16;
use longmamba_core::{Layout, ViewMut};

/// Small integers, so that every sum is exact and the comparison can be `==`.
fn integers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + seed * 13 + i / 5) % 17) as f32 - 8.0).collect()
}

/// One product, of which more of the same is said to come.
fn product<const STREAMED: bool, F: Factor, E: Ending>(
    cpu: Cpu,
    left: Left<'_, F>,
    right: Right<'_, F>,
    depth: usize,
    mut out: Block<'_, f32, 2>,
    ending: E,
) {
    let (out, coming) = (&mut out, Coming::after(right.data));
    cpu.call(Multiply::<_, _, _, STREAMED> { left, right, depth, out, ending, coming });
}

/// All shapes around a tile, slices without a spare element at the end.
#[test]
fn products_of_every_shape_are_exact() {
    let depths = [0, 1, 3, 4, 5, 9, STRETCH - 1, STRETCH, STRETCH + 1, 2 * STRETCH + 1];
    for cpu in Cpu::available() {
        for rows in [0, 1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 20, 23] {
            for columns in [0, 1, 3, 4, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 50] {
                for depth in depths {
                    check(cpu, rows, columns, depth);
                }
            }
        }
    }
}

fn check(cpu: Cpu, rows: usize, columns: usize, depth: usize) {
    let (row_stride, depth_stride) = (depth + 1, columns + 3);
    let span = |rows: usize, stride, columns| match rows * columns {
        0 => 0,
        _ => (rows - 1) * stride + columns,
    };
    let l = integers(span(rows, row_stride, depth), 1);
    let r = integers(span(depth, depth_stride, columns), 2);
    let layout = Layout::strided([rows, columns], [columns + 1, 1]).unwrap();
    for accumulate in [false, true] {
        let before = integers(layout.span(), 3);
        let mut out = before.clone();
        let (left, right) =
            (Left { data: &l[..], row_stride }, Right { data: &r[..], depth_stride });
        let block = Block::new(ViewMut::with_layout(&mut out, layout).unwrap());
        product::<true, _, _>(cpu, left, right, depth, block, Add(accumulate));
        for (at, (&found, &before)) in out.iter().zip(&before).enumerate() {
            let (i, j) = (at / (columns + 1), at % (columns + 1));
            let product = |k| l[i * row_stride + k] * r[k * depth_stride + j];
            let expected = match (j < columns, accumulate) {
                (true, false) => (0..depth).map(product).sum::<f32>(),
                (true, true) => before + (0..depth).map(product).sum::<f32>(),
                (false, _) => before,
            };
            let shape = (rows, columns, depth, accumulate);
            assert_eq!(found, expected, "{cpu:?} {shape:?} [{i}, {j}]");
        }
    }
}

/// A product that is added to another.
#[derive(Clone, Copy)]
struct Second<'a, F> {
    left: Left<'a, F>,
    right: Right<'a, F>,
    depth: usize,
}

impl<F: Factor> Ending for Second<'_, F> {
    #[inline(always)]
    fn add<I: Isa, const MR: usize, const NV: usize>(
        self,
        isa: I,
        at: [usize; 2],
        sums: &mut Sums<I, MR, NV>,
    ) {
        add_product(isa, self.left, self.right, self.depth, at, sums);
    }

    #[inline(always)]
    fn add_block<I: Isa>(self, isa: I, tiles: &Tiles, at: [usize; 2], sums: &mut BlockSums) {
        add_product_of_block(isa, tiles, self.left, self.right, self.depth, at, sums);
    }

    #[inline(always)]
    fn end<I: Isa>(self, _: I, _: [usize; 2], sums: I::V, _: &[f32]) -> I::V {
        sums
    }
}

/// `l · r` twice, with rows of r that end with whole vectors, of which `missing` elements are not there.
fn twice(cpu: Cpu, [rows, columns, depth]: [usize; 3], missing: [usize; 2]) {
    let width = columns.next_multiple_of(MAX_COLUMNS);
    let (l, r) = (integers(rows * (depth + 1), 1), integers(depth * width, 2));
    let left = Left { data: &l[..], row_stride: depth + 1 };
    let right = Right { data: &r[..], depth_stride: width };
    let ending = Second {
        left: Left { data: &l[..(rows * (depth + 1)).saturating_sub(1 + missing[0])], ..left },
        right: Right { data: &r[..r.len() - missing[1]], ..right },
        depth,
    };
    let mut out = vec![0.0; rows * columns];
    let block = Block::new(ViewMut::new(&mut out, [rows, columns]).unwrap());
    product::<false, _, _>(cpu, left, right, depth, block, ending);
    for (at, &found) in out.iter().enumerate() {
        let (i, j) = (at / columns, at % columns);
        let expected: f32 = (0..depth).map(|k| l[i * (depth + 1) + k] * r[k * width + j]).sum();
        assert_eq!(found, 2.0 * expected, "{cpu:?} {rows} x {depth} x {columns} [{i}, {j}]");
    }
}

#[test]
fn a_second_product_is_added() {
    for cpu in Cpu::available() {
        for rows in [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 23] {
            for columns in [1, 7, 8, 9, 16, 17, 31, 32, 33, 50] {
                for depth in [0, 1, 2, 5, 9] {
                    twice(cpu, [rows, columns, depth], [0, 0]);
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "left factor is too short")]
fn a_short_left_factor_is_not_added() {
    twice(Cpu::new(), [13, 32, 5], [1, 0]);
}

#[test]
#[should_panic(expected = "right factor is too short")]
fn a_short_right_factor_is_not_added() {
    twice(Cpu::new(), [13, 32, 5], [0, 1]);
}

#[test]
#[should_panic(expected = "right factor is too short")]
fn short_factors_are_refused() {
    let (data, mut out) = ([0.0; 8], [0.0; 4]);
    let left = Left { data: &data[..], row_stride: 3 };
    let right = Right { data: &data[..], depth_stride: 4 };
    let block = Block::new(ViewMut::new(&mut out, [2, 2]).unwrap());
    product::<false, _, _>(Cpu::new(), left, right, 3, block, Add(false));
}

/// Pairs of small integers; NaN between rows, so that reading one would show.
fn pairs(rows: usize, width: usize, stride: usize, seed: usize) -> Vec<Pair> {
    let values = integers(2 * rows * stride, seed);
    let mut pairs: Vec<Pair> = values.as_chunks().0.iter().map(|p| p.map(bf16::from_f32)).collect();
    for row in pairs.chunks_exact_mut(stride) {
        row[width..].fill([bf16::NAN; 2]);
    }
    pairs
}

/// The element of a product of pairs.
fn element(l: &[Pair], r: impl Fn(usize) -> Pair) -> f32 {
    let product = |k: usize| (0..2).map(|i| l[k][i].to_f32() * r(k)[i].to_f32()).sum::<f32>();
    (0..l.len()).map(product).sum()
}

/// Products of pairs around tiles and blocks, and twice their sum, with nothing read that is not theirs.
fn check_pairs(cpu: Cpu, [rows, columns, depth]: [usize; 3], twice: bool) {
    // Vectors may end past the last column.
    let (row_stride, depth_stride) = (depth + 3, columns.next_multiple_of(MAX_COLUMNS) + 16);
    let l = pairs(rows, depth, row_stride, 1);
    let r = pairs(depth, columns, depth_stride, 2);
    let (left, right) = (Left { data: &l[..], row_stride }, Right { data: &r[..], depth_stride });
    let mut out = integers(rows * columns, 3);
    let before = out.clone();
    let block = Block::new(ViewMut::new(&mut out, [rows, columns]).unwrap());
    if twice {
        let ending = Second { left, right, depth };
        product::<false, _, _>(cpu, left, right, depth, block, ending);
    } else {
        product::<true, _, _>(cpu, left, right, depth, block, Add(true));
    }
    for (at, (&found, &before)) in out.iter().zip(&before).enumerate() {
        let (i, j) = (at / columns, at % columns);
        let product = element(&l[i * row_stride..][..depth], |k| r[k * depth_stride + j]);
        let expected = if twice { 2.0 * product } else { before + product };
        let shape = [rows, columns, depth];
        assert_eq!(found, expected, "{cpu:?} {shape:?} [{i}, {j}], twice: {twice}");
    }
}

#[test]
fn products_of_pairs_are_exact() {
    for cpu in Cpu::available() {
        for rows in [0, 1, 4, 5, 11, 12, 15, 16, 17, 31, 32, 33, 49] {
            for columns in [0, 1, 8, 15, 16, 17, 31, 32, 33, 50] {
                for depth in [0, 1, 15, 16, 17, 33] {
                    for twice in [false, true] {
                        check_pairs(cpu, [rows, columns, depth], twice);
                    }
                }
            }
        }
    }
}

/// [`join`] and then [`multiply`], or both at once.
struct Floats<'a, 'o> {
    left: Left<'a, Pair>,
    right: Right<'a>,
    depth: usize,
    room: &'a mut [Pair],
    out: Block<'o, f32, 2>,
    at_once: bool,
}

impl Kernel for Floats<'_, '_> {
    type Out = ();
    const PAIRS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Floats { left, right, depth, room, mut out, at_once } = self;
        let (out, ending) = (&mut out, Add(true));
        if at_once {
            return multiply_joined(isa, left, right, depth, room, out, ending);
        }
        let width = out.shape()[1].next_multiple_of(MOST_LANES);
        let right = join(isa, right, [depth, width], room);
        multiply(isa, left, right, depth.div_ceil(2), out, ending);
    }
}

/// Whole numbers and halves, most of which are rounded.
fn floats_of(depth: usize, width: usize, stride: usize) -> Vec<f32> {
    let mut floats = vec![f32::NAN; depth * stride];
    for (k, row) in floats.chunks_exact_mut(stride.max(1)).enumerate() {
        for (j, value) in row[..width].iter_mut().enumerate() {
            *value = ((k * 1031 + j * 377) % 5003) as f32 / 2.0 - 1250.0;
        }
    }
    floats
}

#[test]
fn floats_that_are_joined_on_the_way_give_the_same_bits() {
    for cpu in Cpu::available() {
        for rows in [0, 1, 5, 6, 7, 11, 12, 13, 24, 33] {
            for columns in [0usize, 1, 8, 16, 17, 31, 32, 33, 48, 50] {
                for depth in [0usize, 1, 2, 3, 16, 33] {
                    let (width, pairs_) = (columns.next_multiple_of(MOST_LANES), depth.div_ceil(2));
                    let stride = width + 16;
                    let (l, r) =
                        (pairs(rows, pairs_, pairs_ + 3, 1), floats_of(depth, width, stride));
                    let product = |at_once| {
                        let mut out = integers(rows * columns, 3);
                        let mut room = vec![[bf16::ZERO; 2]; pairs_ * width];
                        let left = Left { data: &l[..], row_stride: pairs_ + 3 };
                        let right = Right { data: &r[..], depth_stride: stride };
                        let block = ViewMut::new(&mut out, [rows, columns]).unwrap();
                        let (out_, room_) = (Block::new(block), &mut room[..]);
                        cpu.call(Floats { left, right, depth, room: room_, out: out_, at_once });
                        out
                    };
                    let (found, expected) = (product(true), product(false));
                    let what = format!("{cpu:?} {rows} x {depth} x {columns}");
                    assert!(found.iter().all(|v| v.is_finite()), "{what}");
                    assert_eq!(found, expected, "{what}");
                }
            }
        }
    }
}
