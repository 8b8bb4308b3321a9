//! Inputs, the same in every run, and comparison with the oracle.

use half::{bf16, f16};
use longmamba_core::{AlignedVec, AnyView, DType, Element, View, ViewMut};

/// Seeded uniform numbers.
pub(crate) fn uniform(seed: u64, len: usize, low: f32, high: f32) -> AlignedVec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut values = AlignedVec::zeros(len);
    values.fill_with(|| low + (high - low) * random.f32());
    values
}

/// Inputs that live as long as the program, for arguments that borrow them.
pub(crate) fn leaked(seed: u64, len: usize, low: f32, high: f32) -> &'static [f32] {
    Box::leak(Box::new(uniform(seed, len, low, high)))
}

pub(crate) fn view<const R: usize>(data: &[f32], shape: [usize; R]) -> View<'_, f32, R> {
    View::new(data, shape).expect("the data fits its shape")
}

pub(crate) fn view_mut<const R: usize>(data: &mut [f32], shape: [usize; R]) -> ViewMut<'_, f32, R> {
    ViewMut::new(data, shape).expect("the data fits its shape")
}

/// Weights of one of the element types.
pub(crate) enum Weights {
    F32(AlignedVec<f32>),
    F16(AlignedVec<f16>),
    BF16(AlignedVec<bf16>),
}

impl Weights {
    pub(crate) fn new(dtype: DType, values: &[f32]) -> Self {
        fn narrow<T: Element>(values: &[f32]) -> AlignedVec<T> {
            let mut out = AlignedVec::zeros(values.len());
            out.iter_mut().zip(values).for_each(|(o, &v)| *o = T::from_f32(v));
            out
        }
        match dtype {
            DType::F32 => Weights::F32(narrow(values)),
            DType::F16 => Weights::F16(narrow(values)),
            DType::BF16 => Weights::BF16(narrow(values)),
        }
    }

    pub(crate) fn view(&self, shape: [usize; 2]) -> AnyView<'_, 2> {
        let fits = "the data fits its shape";
        match self {
            Weights::F32(w) => AnyView::F32(View::new(w, shape).expect(fits)),
            Weights::F16(w) => AnyView::F16(View::new(w, shape).expect(fits)),
            Weights::BF16(w) => AnyView::BF16(View::new(w, shape).expect(fits)),
        }
    }
}

/// Panics unless every value is within `tolerance`, of the largest expected one, of what it should
/// be. NaN is close to nothing.
pub(crate) fn assert_close(
    what: &str,
    tolerance: f64,
    pairs: impl IntoIterator<Item = (f32, f64)>,
) {
    let pairs: Vec<(f32, f64)> = pairs.into_iter().collect();
    let largest = pairs.iter().fold(1e-30f64, |m, (_, e)| m.max(e.abs()));
    assert!(!pairs.is_empty(), "{what}: nothing was compared");
    for (i, (found, expected)) in pairs.into_iter().enumerate() {
        let close = (f64::from(found) - expected).abs() <= tolerance * largest;
        assert!(close, "{what}: compared value {i} is {found:e}, expected {expected:e}");
    }
}
