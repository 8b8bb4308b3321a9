use arbitrary::Arbitrary;
use longmamba_core::{Layout, View, ViewMut};
use std::collections::HashSet;

/// A layout and what is done to it.
#[derive(Arbitrary, Debug)]
pub struct Steps {
    shape: [usize; 3],
    strides: [usize; 3],
    /// Take sizes and strides as they are, or keep them so small that every element can be visited.
    huge: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Slice { dim: u8, start: usize, end: usize },
    Permute([u8; 3]),
}

/// The same, by the definition, in integers that do not overflow.
struct Naive {
    offset: i128,
    shape: [i128; 3],
    strides: [i128; 3],
}

impl Naive {
    fn elements(&self) -> i128 {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }

    fn offset(&self, index: [usize; 3]) -> i128 {
        self.offset + (0..3).map(|d| index[d] as i128 * self.strides[d]).sum::<i128>()
    }

    fn indexes(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [a, b, c] = self.shape.map(|n| n as usize);
        (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| [i, j, k])))
    }
}

/// [`Layout`], [`View`] and [`ViewMut`] against index arithmetic.
pub fn against_index_arithmetic(Steps { mut shape, mut strides, huge, steps }: Steps) {
    if !huge {
        shape = shape.map(|n| n % 8);
        strides = strides.map(|s| s % 50);
    }
    let Ok(mut layout) = Layout::strided(shape, strides) else { return };
    let wide = |values: [usize; 3]| values.map(|v| v as i128);
    let mut naive = Naive { offset: 0, shape: wide(shape), strides: wide(strides) };
    let mut offset = 0usize;
    for step in steps.iter().take(8) {
        match *step {
            Step::Slice { dim, start, end } => {
                let dim = usize::from(dim % 4);
                let limit = shape.get(dim).map_or(2, |_| layout.shape()[dim % 3].saturating_add(2));
                let (start, end) = (start % limit.max(1), end % limit.max(1));
                let inside = dim < 3 && start <= end && end <= layout.shape()[dim];
                match layout.slice(dim, start..end) {
                    Ok((by, sliced)) => {
                        assert!(inside);
                        (offset, layout) = (offset + by, sliced);
                        naive.shape[dim] = (end - start) as i128;
                        if naive.elements() > 0 {
                            naive.offset += start as i128 * naive.strides[dim];
                        }
                    }
                    Err(_) => assert!(!inside),
                }
            }
            Step::Permute(order) => {
                let order = order.map(|d| usize::from(d % 4));
                let right = HashSet::from(order) == HashSet::from([0, 1, 2]);
                match layout.permute(order) {
                    Ok(permuted) => {
                        assert!(right);
                        layout = permuted;
                        naive.shape = order.map(|d| naive.shape[d]);
                        naive.strides = order.map(|d| naive.strides[d]);
                    }
                    Err(_) => assert!(!right),
                }
            }
        }
    }
    assert_eq!((wide(layout.shape()), wide(layout.strides())), (naive.shape, naive.strides));
    assert_eq!(layout.elements() as i128, naive.elements());
    let last = layout.shape().map(|n| n.wrapping_sub(1));
    match layout.offset(last) {
        None => assert_eq!((naive.elements(), layout.span()), (0, 0)),
        Some(at) => {
            assert_eq!((at + offset) as i128, naive.offset(last));
            assert_eq!(at + 1, layout.span());
        }
    }
    assert_eq!(layout.offset(layout.shape()), None);
    // Every element, where there are few.
    if huge || naive.elements() == 0 {
        return;
    }
    let data: Vec<f32> = (0..layout.span()).map(|i| i as f32).collect();
    assert!(View::with_layout(&data[1..], layout).is_err());
    let view = View::with_layout(&data, layout).unwrap();
    let mut seen = HashSet::new();
    let mut distinct = true;
    for index in naive.indexes() {
        let at = naive.offset(index) - naive.offset;
        assert_eq!(view.get(index), Some(at as f32));
        if layout.rows_contiguous() {
            assert_eq!(view.row(index)[0], at as f32);
        }
        distinct &= seen.insert(at);
    }
    assert!(distinct || !layout.is_injective());
    let mut copy = data.clone();
    match ViewMut::with_layout(&mut copy, layout) {
        Err(_) => assert!(!layout.is_injective()),
        Ok(mut view) => {
            naive.indexes().for_each(|index| view.set(index, -1.0));
            let written = copy.iter().zip(&data).filter(|(new, old)| new != old).count();
            assert_eq!(written as i128, naive.elements());
        }
    }
}
