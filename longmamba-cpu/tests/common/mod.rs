//! What the agreement tests share: seeded data, strided storage, comparison.
#![allow(dead_code, reason = "each test crate uses a part")]

use longmamba_core::{Layout, View, ViewMut};
use longmamba_cpu::Cpu;

/// Every instruction set of this processor; says which, so that the log shows what was tested.
pub fn cpus() -> Vec<Cpu> {
    let cpus: Vec<Cpu> = Cpu::available().collect();
    println!("ran on {}", cpus.iter().map(|c| c.isa().to_string()).collect::<Vec<_>>().join(", "));
    cpus
}

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

/// Storage in any order of the dimensions, with gaps that hold NaN: a kernel that reads one shows it
/// in its result, and one that writes one is found out by [`Strided::values`].
#[derive(Clone)]
pub struct Strided<const R: usize> {
    data: Vec<f32>,
    layout: Layout<R>,
}

impl<const R: usize> Strided<R> {
    /// `values` in row-major order, stored with dimension `order[0]` outermost and `gap` unused
    /// elements after each run of the innermost and of the next dimension.
    pub fn new(values: &[f32], shape: [usize; R], order: [usize; R], gap: usize) -> Self {
        let mut strides = [0; R];
        let mut step = 1;
        for (depth, &dim) in order.iter().rev().enumerate() {
            strides[dim] = step;
            step = step * shape[dim] + if depth < 2 { gap } else { 0 };
        }
        let layout = Layout::strided(shape, strides).unwrap();
        let mut strided = Strided { data: vec![f32::NAN; layout.span()], layout };
        assert_eq!(values.len(), layout.elements());
        let mut view = strided.view_mut();
        for (i, &value) in values.iter().enumerate() {
            view.set(unravel(i, shape), value);
        }
        strided
    }

    pub fn rows(values: &[f32], shape: [usize; R], gap: usize) -> Self {
        Self::new(values, shape, std::array::from_fn(|d| d), gap)
    }

    pub fn view(&self) -> View<'_, f32, R> {
        View::with_layout(&self.data, self.layout).unwrap()
    }

    pub fn view_mut(&mut self) -> ViewMut<'_, f32, R> {
        ViewMut::with_layout(&mut self.data, self.layout).unwrap()
    }

    /// The elements in row-major order; fails where a gap was written to.
    pub fn values(&self) -> Vec<f32> {
        let shape = self.layout.shape();
        let mut used = vec![false; self.data.len()];
        let values = (0..self.layout.elements())
            .map(|i| {
                let at = self.layout.offset(unravel(i, shape)).unwrap();
                used[at] = true;
                self.data[at]
            })
            .collect();
        let clean = self.data.iter().zip(used).all(|(v, used)| used || v.is_nan());
        assert!(clean, "a gap was written to");
        values
    }
}

/// The index of element `i` in row-major order.
pub fn unravel<const R: usize>(mut i: usize, shape: [usize; R]) -> [usize; R] {
    let mut index = [0; R];
    for d in (0..R).rev() {
        index[d] = i % shape[d];
        i /= shape[d];
    }
    index
}

/// Fails unless every `|actual - expected| ≤ atol + rtol·|expected|`, and shows the worst element. NaN
/// is close to nothing.
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64], atol: f64, rtol: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths differ");
    let excess = |i: usize| {
        let error = (f64::from(actual[i]) - expected[i]).abs();
        let excess = error / (atol + rtol * expected[i].abs());
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

/// [`assert_close`] for sums: the absolute part is `tolerance` of the largest expected element, or of
/// 1, and so is the relative one.
pub fn assert_sums(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    let largest = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    assert_close(what, actual, expected, tolerance * largest, tolerance);
}

/// The same bits, NaN included.
pub fn assert_same(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths differ");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), e.to_bits(), "{what}: element {i} is {a:e}, expected {e:e}");
    }
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// A threshold that drops about `share` of the values and lies in the widest gap near there, so that
/// no rounding of a value can decide.
pub fn threshold(mut values: Vec<f64>, share: f64) -> f32 {
    values.sort_by(f64::total_cmp);
    let centre = (values.len() as f64 * share) as usize;
    let near = centre.saturating_sub(8)..(centre + 8).min(values.len().saturating_sub(1));
    let widest =
        near.max_by(|&i, &j| (values[i + 1] - values[i]).total_cmp(&(values[j + 1] - values[j])));
    widest.map_or(0.0, |i| ((values[i] + values[i + 1]) / 2.0) as f32)
}

/// Runs `work` on a pool of `threads`.
pub fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}
