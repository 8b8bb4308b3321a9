//! The elementary functions of Mamba, eight or sixteen at a time.
//!
//! Each comes with its method, its bound (found by `every_float` in the tests, a sweep of all `f32`,
//! with [`IsaKind::Scalar`](crate::IsaKind), which does not fuse multiply and add, and the
//! processor's best) and a plain reference in `f64`. The polynomials are minimax fits of relative
//! error, made by Lawson's iteration in 40 digits with the coefficients rounded to `f32` one by one,
//! lowest first.

use crate::check;
use crate::dispatch::{Block, Cpu, Divide, Kernel, parallel};
use crate::isa::Isa;
use longmamba_core::{DtLimits, Error, Result, View, ViewMut};
use std::f32::consts::LOG2_E;

/// `[f(0), f(1), ..]` of as many vectors as `like` has, written out because a closure could not be
/// forced inline.
///
/// One vector at a time, the functions below would mostly wait: a polynomial is one long chain of
/// multiply-adds of four cycles each, of which two could start in every cycle, and a processor does
/// not look far enough ahead to find the next vector. So all functions take `N` independent vectors
/// and do every step for all of them.
macro_rules! each {
    ($like:expr, $i:ident => $value:expr) => {{
        let mut out = $like;
        let mut $i = 0;
        while $i < N {
            out[$i] = $value;
            $i += 1;
        }
        out
    }};
}

/// Added to a number of at most 2²¹, leaves its nearest integer in the lowest bits, ready to be added to an
/// exponent; taken away again, as a float.
const MAGIC: f32 = 12_582_912.0;

/// `q` with `eʳ = 1 + r·q(r)` for |r| ≤ ln 2 / 2, of degree 5 (relative error 3.1e-9) and 4 (9.2e-8): the
/// second where what follows makes errors of its own, for it saves a multiply-add of nine, and the
/// multipliers are what these functions wait for.
const EXP: [f32; 6] =
    [1.0, 0.499_999_94, 0.166_665_21, 0.041_668_262, 0.008_368_674, 0.001_382_101_4];
const EXP_SHORT: [f32; 5] = [0.999_999_7, 0.499_991_48, 0.166_676_6, 0.041_898_146, 0.008_288_638];

/// The smallest float whose exponential is at least 2⁻¹²⁶.
const LOW: f32 = -87.336_54;

/// `eˣ` for [`LOW`] ≤ x ≤ 88.37, where it is a normal number; any value elsewhere and where x is NaN.
///
/// Cody and Waite: `n = round(x / ln 2)`, `r = x - n·ln 2` in two steps, so that the first product is
/// exact; `eʳ = 1 + r·q(r)`, whose coefficients are given.
#[inline(always)]
fn exp_normal<I: Isa, const N: usize, const K: usize>(
    isa: I,
    x: [I::V; N],
    q: &[f32; K],
) -> [I::V; N] {
    // The 15 leading bits of ln 2 and the rest: n·LN2_HIGH is exact for |n| < 512.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let shifted = each!(x, i => isa.fma(x[i], isa.splat(LOG2_E), isa.splat(MAGIC)));
    let n = each!(x, i => isa.sub(shifted[i], isa.splat(MAGIC)));
    let r = each!(x, i => isa.nfma(n[i], isa.splat(LN2_HIGH), x[i]));
    let r = each!(x, i => isa.nfma(n[i], isa.splat(LN2_LOW), r[i]));
    let q = polynomial(isa, r, q);
    let p = each!(x, i => isa.fma(q[i], r[i], isa.splat(1.0)));
    each!(x, i => isa.shift_exponent(p[i], shifted[i]))
}

/// `eˣ` for `x ≤ 0`, 0 below [`LOW`]; any value where x is NaN.
#[inline(always)]
fn exp_or_zero<I: Isa, const N: usize, const K: usize>(
    isa: I,
    x: [I::V; N],
    q: &[f32; K],
) -> [I::V; N] {
    let e = exp_normal(isa, x, q);
    each!(x, i => isa.zero_where_gt(isa.splat(LOW), x[i], e[i]))
}

/// `eˣ` for `x ≤ 0`; a positive `x` counts as 0. 0 where the result would be below 2⁻¹²⁶ (x below
/// -87.3365), exactly 1 at 0; NaN stays NaN.
///
/// Within 1.2 ULP.
#[inline(always)]
pub(crate) fn exp_nonpositive<I: Isa, const N: usize>(isa: I, x: [I::V; N]) -> [I::V; N] {
    let x = each!(x, i => isa.min(isa.zero(), x[i]));
    let e = exp_or_zero(isa, x, &EXP);
    // It is no less than x, so the maximum only brings back a NaN.
    each!(x, i => isa.max(e[i], x[i]))
}

/// `2ᵘ` for `u ≤ 0`, the decay of the scans, which is what they do most: with `u = Δ·(A·log₂e)` it is
/// `exp(Δ·A)`. 2⁻¹²⁶ for u below -126, exactly 1 at 0. Where u is NaN, any value: Δ then reaches the state as
/// Δ·x, too.
///
/// `n = round(u)`, `r = u - n` exactly, `2ʳ = 1 + r·p(r)` for |r| ≤ 1/2, with a `p` of degree 4
/// (relative error 9.4e-8).
///
/// Within 2.2 ULP. (Where `u` is itself a rounded product, that weighs |u|·4e-8 more.)
#[inline(always)]
pub(crate) fn exp2_nonpositive<I: Isa, const N: usize>(isa: I, u: [I::V; N]) -> [I::V; N] {
    // The first is ln 2 less three units of the last place, which is where the fit is best.
    #[allow(clippy::approx_constant)]
    const P: [f32; 5] = [0.693_147, 0.240_222_46, 0.055_507_08, 0.009_671_361, 0.001_327_089_7];
    let u = each!(u, i => isa.max(isa.splat(-126.0), u[i]));
    let n = each!(u, i => isa.add(u[i], isa.splat(MAGIC)));
    let r = each!(u, i => isa.sub(u[i], isa.sub(n[i], isa.splat(MAGIC))));
    let p = polynomial(isa, r, &P);
    let p = each!(u, i => isa.fma(p[i], r[i], isa.splat(1.0)));
    each!(u, i => isa.shift_exponent(p[i], n[i]))
}

/// The least decay that [`exp2_or_zero`] gives, as a power of two.
pub(crate) const LEAST_DECAY: f32 = -64.0;

/// [`exp2_nonpositive`], but 0 for u below -64: far less than what a sum of `f32` keeps of anything, and far more than
/// 2⁻¹²⁶, so that its products with what the scans meet are no subnormal numbers. With those SSD took an Intel core up
/// to thirty times as long (`benches/record/2026-11-30-cpu-xeon.md`).
#[inline(always)]
pub(crate) fn exp2_or_zero<I: Isa, const N: usize>(isa: I, u: [I::V; N]) -> [I::V; N] {
    let raised = exp2_nonpositive(isa, u);
    each!(u, i => isa.zero_where_gt(isa.splat(LEAST_DECAY), u[i], raised[i]))
}

/// `ln(1 + u)` for `0 ≤ u ≤ 1`, with a small relative error however small `u` is.
///
/// `u + u²·q(u)` with a `q` of degree 7 (relative error 3.3e-8): a few more multiply-adds than by way of
/// atanh, but no division.
///
/// Within 1.9 ULP.
#[inline(always)]
pub(crate) fn log1p_unit<I: Isa, const N: usize>(isa: I, u: [I::V; N]) -> [I::V; N] {
    const Q: [f32; 8] = [
        -0.499_996_48,
        0.333_213_27,
        -0.248_571_77,
        0.191_536_47,
        -0.137_536_96,
        0.079_202_5,
        -0.030_064_184,
        0.005_364_353_3,
    ];
    let q = polynomial(isa, u, &Q);
    each!(u, i => isa.fma(isa.mul(u[i], u[i]), q[i], u[i]))
}

/// `ln(1 + eˣ)` as `max(x, 0) + ln(1 + e^-|x|)`: it overflows nowhere and keeps its relative accuracy
/// for very negative `x`, where candidates for dropping live. 0 below -87.3365; NaN stays NaN.
///
/// Within 3.1 ULP.
#[inline(always)]
pub(crate) fn softplus<I: Isa, const N: usize>(isa: I, x: [I::V; N]) -> [I::V; N] {
    let tail = each!(x, i => isa.neg(isa.abs(x[i])));
    let tail = log1p_unit(isa, exp_or_zero(isa, tail, &EXP_SHORT));
    // Where x is NaN, so is the maximum.
    each!(x, i => isa.add(isa.max(isa.zero(), x[i]), tail[i]))
}

/// `x / (1 + e⁻ˣ)`. Below -87, also at -∞, the value at -87, -1.4e-36: for all that it is added to or
/// multiplied by, 0. NaN stays NaN.
///
/// Within 4 ULP.
#[inline(always)]
pub(crate) fn silu<I: Isa, const N: usize>(isa: I, x: [I::V; N]) -> [I::V; N] {
    // Within ±LIMIT the exponential neither overflows nor underflows. Above, it has long been nothing
    // beside 1; below, x itself stops with it, so that the quotient stays small however large x is.
    const LIMIT: f32 = 87.0;
    let one = isa.splat(1.0);
    let x = each!(x, i => isa.max(isa.splat(-LIMIT), x[i]));
    let e = each!(x, i => isa.neg(isa.min(isa.splat(LIMIT), x[i])));
    let e = exp_normal(isa, e, &EXP_SHORT);
    each!(x, i => isa.div(x[i], isa.add(one, e[i])))
}

/// `x · Φ(x)`, Φ the distribution function of the normal distribution, as `erfc(|x|/√2) / 2` or what
/// that leaves of 1, so that nothing cancels where x is negative.
///
/// `erfc(a) = p(t) · e^(−a²)` with `t = 1 / (1 + 0.3275911·a)` and a `p` of degree 5: formula 7.1.26
/// of Abramowitz and Stegun, within 1.5e-7 absolutely. -0 below -13.22; NaN stays NaN,
/// and so is the value at -∞.
///
/// Within 2e-7·|x| and 2 ULP; from -6 to 0 also within 0.5 % of itself.
#[inline(always)]
pub(crate) fn gelu<I: Isa, const N: usize>(isa: I, x: [I::V; N]) -> [I::V; N] {
    // The coefficients of half of erfc.
    const P: [f32; 5] = [0.127_414_8, -0.142_248_37, 0.710_706_9, -0.726_576, 0.530_702_7];
    let one = isa.splat(1.0);
    let a = each!(x, i => isa.mul(isa.abs(x[i]), isa.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let t = each!(x, i => isa.div(one, isa.fma(isa.splat(0.327_591_1), a[i], one)));
    let e = each!(x, i => isa.neg(isa.mul(a[i], a[i])));
    let e = exp_or_zero(isa, e, &EXP);
    let p = polynomial(isa, t, &P);
    let tail = each!(x, i => isa.mul(isa.mul(p[i], t[i]), e[i]));
    each!(x, i => {
        // Where x is NaN, Φ may be anything.
        let phi = isa.select_gt(isa.zero(), x[i], tail[i], isa.sub(one, tail[i]));
        isa.mul(x[i], phi)
    })
}

/// `Σ coefficients[k]·xᵏ` by Horner's rule.
#[inline(always)]
fn polynomial<I: Isa, const N: usize, const K: usize>(
    isa: I,
    x: [I::V; N],
    coefficients: &[f32; K],
) -> [I::V; N] {
    let mut sum = [isa.splat(coefficients[K - 1]); N];
    let mut k = K - 1;
    while k > 0 {
        k -= 1;
        sum = each!(x, i => isa.fma(sum[i], x[i], isa.splat(coefficients[k])));
    }
    sum
}

/// Δ before the mask.
#[inline(always)]
pub(crate) fn delta<I: Isa, const N: usize>(
    isa: I,
    raw_plus_bias: [I::V; N],
    limits: DtLimits,
) -> [I::V; N] {
    let delta = softplus(isa, raw_plus_bias);
    let (low, high) = (isa.splat(limits.min), isa.splat(limits.max));
    each!(delta, i => isa.min(high, isa.max(low, delta[i])))
}

/// A function that is applied to every element.
pub(crate) trait Elementwise: Copy + Send {
    fn apply<I: Isa, const N: usize>(self, isa: I, x: [I::V; N]) -> [I::V; N];
}

macro_rules! elementwise {
    ($($name:ident = $function:ident;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name;
        impl Elementwise for $name {
            #[inline(always)]
            fn apply<I: Isa, const N: usize>(self, isa: I, x: [I::V; N]) -> [I::V; N] {
                $function(isa, x)
            }
        }
    )*};
}
elementwise! {
    ExpNonpositive = exp_nonpositive;
    Exp2OrZero = exp2_or_zero;
    Softplus = softplus;
    Silu = silu;
}

/// Δ before the mask, of `dt_raw + dt_bias`.
#[derive(Clone, Copy)]
pub(crate) struct Delta(pub(crate) DtLimits);
impl Elementwise for Delta {
    #[inline(always)]
    fn apply<I: Isa, const N: usize>(self, isa: I, x: [I::V; N]) -> [I::V; N] {
        delta(isa, x, self.0)
    }
}

/// `function` of every element, in place, four vectors at a time.
#[inline(always)]
pub(crate) fn map<I: Isa, F: Elementwise>(isa: I, function: F, values: &mut [f32]) {
    let mut blocks = values.chunks_exact_mut(4 * I::LANES);
    for block in &mut blocks {
        let mut x = [isa.zero(); 4];
        for (v, x) in x.iter_mut().enumerate() {
            *x = isa.load(&block[v * I::LANES..]);
        }
        let y = function.apply(isa, x);
        for (v, &y) in y.iter().enumerate() {
            isa.store(y, &mut block[v * I::LANES..]);
        }
    }
    for part in blocks.into_remainder().chunks_mut(I::LANES) {
        let [y] = function.apply(isa, [isa.load_part(part)]);
        isa.store_part(y, part);
    }
}

/// One function over one slice.
struct Map<'a, F> {
    cpu: Cpu,
    function: F,
    values: &'a mut [f32],
}

impl<F: Elementwise> Kernel for Map<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        map(isa, self.function, self.values);
    }
}

impl<F: Elementwise> Divide for Map<'_, F> {
    fn units(&self) -> usize {
        self.values.len()
    }
    fn divide(self, at: usize) -> (Self, Self) {
        let Map { cpu, function, values } = self;
        let (first, rest) = values.split_at_mut(at);
        (Map { cpu, function, values: first }, Map { cpu, function, values: rest })
    }
    fn run(self) {
        self.cpu.call(self)
    }
}

/// Elements that are worth a thread.
const LEAST: usize = 1 << 15;

/// The rows of Δ.
struct DeltaRows<'a> {
    cpu: Cpu,
    dt_raw: View<'a, f32, 3>,
    bias: Option<&'a [f32]>,
    limits: DtLimits,
    out: Block<'a, f32, 3>,
    /// The index in `dt_raw` of the first of `out`'s tokens; out is cut along tokens.
    first: usize,
}

impl Kernel for DeltaRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [batch, len, channels] = self.out.shape();
        for b in 0..batch {
            for t in 0..len {
                let raw = self.dt_raw.row([b, self.first + t, 0]);
                let out = self.out.row_mut([b, t, 0], channels);
                match self.bias {
                    Some(bias) => {
                        for c in (0..channels).step_by(I::LANES) {
                            let sum = isa.add(isa.load_at(raw, c), isa.load_at(bias, c));
                            isa.store_at(sum, out, c);
                        }
                    }
                    None => out.copy_from_slice(raw),
                }
                map(isa, Delta(self.limits), out);
            }
        }
    }
}

impl Divide for DeltaRows<'_> {
    fn units(&self) -> usize {
        self.out.shape()[1]
    }
    fn divide(self, at: usize) -> (Self, Self) {
        let (head, tail) = self.out.split_at(1, at);
        let first = self.first;
        (DeltaRows { out: head, ..self }, DeltaRows { out: tail, first: first + at, ..self })
    }
    fn run(self) {
        self.cpu.call(self)
    }
}

impl Cpu {
    /// `eˣ` of every element, in place, for `x ≤ 0`; a positive `x` counts as 0. Results below 2⁻¹²⁶
    /// are 0; NaN stays NaN. Within 1.2 ULP.
    pub fn exp_nonpositive(&self, values: &mut [f32]) {
        parallel(Map { cpu: *self, function: ExpNonpositive, values }, LEAST);
    }

    /// `ln(1 + eˣ)` of every element, in place. Within 3.1 ULP; 0 below -87.3365.
    pub fn softplus(&self, values: &mut [f32]) {
        parallel(Map { cpu: *self, function: Softplus, values }, LEAST);
    }

    /// `x · sigmoid(x)` of every element, in place. Within 4 ULP; below -87 the value there, -1.4e-36.
    pub fn silu(&self, values: &mut [f32]) {
        parallel(Map { cpu: *self, function: Silu, values }, LEAST);
    }

    /// Δ before any mask: `clamp(softplus(dt_raw + dt_bias), limits)`, as the scans compute it, bit
    /// for bit. `dt_raw` and `out` are `[batch, len, channels]` with contiguous rows, `dt_bias` is
    /// `[channels]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotContiguous`] or, for limits that are no range,
    /// [`Error::Value`].
    pub fn delta(
        &self,
        dt_raw: View<'_, f32, 3>,
        dt_bias: Option<&[f32]>,
        limits: DtLimits,
        out: ViewMut<'_, f32, 3>,
    ) -> Result<()> {
        let [batch, _, channels] = dt_raw.shape();
        check::rows("dt_raw", &dt_raw, dt_raw.shape())?;
        check::rows("out", &out.as_view(), dt_raw.shape())?;
        if let Some(bias) = dt_bias {
            check::shape("dt_bias", [bias.len()], [channels])?;
        }
        if !(limits.min >= 0.0 && limits.max >= limits.min) {
            let (value, allowed) = (limits.max.into(), "at least the lower limit, which is ≥ 0");
            return Err(Error::Value { tensor: "dt limits", index: 1, value, allowed });
        }
        let out = Block::new(out);
        let rows = DeltaRows { cpu: *self, dt_raw, bias: dt_bias, limits, out, first: 0 };
        parallel(rows, LEAST.div_ceil((batch * channels).max(1)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
