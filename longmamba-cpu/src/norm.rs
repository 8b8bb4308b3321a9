//! The norms: one in front of every block, one inside every Mamba-2 mixer.

use crate::check;
use crate::dispatch::{Block, Cpu};
use crate::elementwise::gate;
use crate::isa::Isa;
use crate::rows::{RowKernel, for_each_row};
use longmamba_core::{Error, Result, View, ViewMut};

/// Elements that are worth a thread: some 20 µs.
const LEAST: usize = 1 << 16;

/// The same where each needs an exponential and a division.
const LEAST_GATED: usize = 1 << 14;

/// The rows of a norm, made when they are needed: [`Cpu::normed`] writes them down,
/// [`Cpu::matmul_normed_bf16`] multiplies with them.
#[derive(Clone, Copy)]
pub struct Normed<'a> {
    shape: [usize; 2],
    kind: Kind<'a>,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Rms(RmsNorm<'a>),
    Layer(LayerNorm<'a>),
    Gated(GatedRmsNorm<'a>),
}

impl<'a> Normed<'a> {
    /// `x / sqrt(mean(x²) + eps) · weight`, over each row.
    ///
    /// `x` is `[rows, width]` with contiguous rows, `weight` is `[width]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotContiguous`] or, for an `eps` that is negative or not finite,
    /// [`Error::Value`].
    pub fn rms(x: View<'a, f32, 2>, weight: &'a [f32], eps: f32) -> Result<Self> {
        let shape = x.shape();
        check::rows("x", &x, shape)?;
        check::shape("weight", [weight.len()], [shape[1]])?;
        check_eps(eps)?;
        Ok(Normed { shape, kind: Kind::Rms(RmsNorm { x, weight, eps }) })
    }

    /// Layer norm: `(x − mean(x)) / sqrt(var(x) + eps) · weight + bias`, over each row.
    ///
    /// `x` is `[rows, width]` with contiguous rows, `weight` and `bias` are `[width]`.
    ///
    /// # Errors
    /// As [`rms`](Normed::rms).
    pub fn layer(
        x: View<'a, f32, 2>,
        weight: &'a [f32],
        bias: &'a [f32],
        eps: f32,
    ) -> Result<Self> {
        let shape = x.shape();
        check::rows("x", &x, shape)?;
        check::shape("weight", [weight.len()], [shape[1]])?;
        check::shape("bias", [bias.len()], [shape[1]])?;
        check_eps(eps)?;
        Ok(Normed { shape, kind: Kind::Layer(LayerNorm { x, weight, bias, eps }) })
    }

    /// Mamba-2's norm: [`rms`](Normed::rms) of `y · silu(z)` within each group of `group` neighbouring channels.
    ///
    /// `y` and `z` are `[rows, width]` with contiguous rows, `weight` is `[width]`; `group` divides `width`.
    ///
    /// # Errors
    /// As [`rms`](Normed::rms), and [`Error::Value`] for a `group` that is 0 or does not divide `width`.
    pub fn gated_rms(
        y: View<'a, f32, 2>,
        z: View<'a, f32, 2>,
        weight: &'a [f32],
        group: usize,
        eps: f32,
    ) -> Result<Self> {
        let shape = y.shape();
        check::rows("y", &y, shape)?;
        check::rows("z", &z, shape)?;
        check::shape("weight", [weight.len()], [shape[1]])?;
        check_eps(eps)?;
        if group == 0 || !shape[1].is_multiple_of(group) {
            let (value, allowed) = (group as f64, "a divisor of the width");
            return Err(Error::Value { tensor: "group", index: 0, value, allowed });
        }
        Ok(Normed { shape, kind: Kind::Gated(GatedRmsNorm { y, z, weight, group, eps }) })
    }

    /// `[rows, width]`
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Elements that are worth a thread.
    pub(crate) fn least(&self) -> usize {
        match self.kind {
            Kind::Rms(_) | Kind::Layer(_) => LEAST,
            Kind::Gated(_) => LEAST_GATED,
        }
    }
}

impl RowKernel for Normed<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        match &self.kind {
            Kind::Rms(norm) => norm.row(isa, row, out),
            Kind::Layer(norm) => norm.row(isa, row, out),
            Kind::Gated(norm) => norm.row(isa, row, out),
        }
    }
}

impl Cpu {
    /// Writes the rows of a norm to `out`, `[rows, width]` with contiguous rows.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotContiguous`] for `out`.
    pub fn normed(&self, norm: Normed<'_>, out: ViewMut<'_, f32, 2>) -> Result<()> {
        check::rows("out", &out.as_view(), norm.shape)?;
        for_each_row(*self, norm, Block::new(out), norm.least());
        Ok(())
    }

    /// [`Normed::rms`], written to `out`.
    ///
    /// # Errors
    /// As there, and as [`normed`](Cpu::normed).
    pub fn rms_norm(
        &self,
        x: View<'_, f32, 2>,
        weight: &[f32],
        eps: f32,
        out: ViewMut<'_, f32, 2>,
    ) -> Result<()> {
        self.normed(Normed::rms(x, weight, eps)?, out)
    }

    /// [`Normed::layer`], written to `out`.
    ///
    /// # Errors
    /// As there, and as [`normed`](Cpu::normed).
    pub fn layer_norm(
        &self,
        x: View<'_, f32, 2>,
        weight: &[f32],
        bias: &[f32],
        eps: f32,
        out: ViewMut<'_, f32, 2>,
    ) -> Result<()> {
        self.normed(Normed::layer(x, weight, bias, eps)?, out)
    }

    /// [`Normed::gated_rms`], written to `out`.
    ///
    /// # Errors
    /// As there, and as [`normed`](Cpu::normed).
    pub fn gated_rms_norm(
        &self,
        y: View<'_, f32, 2>,
        z: View<'_, f32, 2>,
        weight: &[f32],
        group: usize,
        eps: f32,
        out: ViewMut<'_, f32, 2>,
    ) -> Result<()> {
        self.normed(Normed::gated_rms(y, z, weight, group, eps)?, out)
    }
}

fn check_eps(eps: f32) -> Result<()> {
    if eps >= 0.0 && eps.is_finite() {
        return Ok(());
    }
    let allowed = "a finite number ≥ 0";
    Err(Error::Value { tensor: "eps", index: 0, value: eps.into(), allowed })
}

#[derive(Clone, Copy)]
struct RmsNorm<'a> {
    x: View<'a, f32, 2>,
    weight: &'a [f32],
    eps: f32,
}

impl RowKernel for RmsNorm<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        let x = self.x.row([row, 0]);
        let scale = scale(isa, sum_of_squares(isa, x), x.len(), self.eps);
        let (x, weight) = (&x[..out.len()], &self.weight[..out.len()]);
        let mut at = 0;
        while out.len() - at >= I::LANES {
            let value = isa.mul(isa.mul(isa.load(&x[at..]), scale), isa.load(&weight[at..]));
            isa.store(value, &mut out[at..]);
            at += I::LANES;
        }
        if at < out.len() {
            let (x, weight) = (isa.load_part(&x[at..]), isa.load_part(&weight[at..]));
            isa.store_part(isa.mul(isa.mul(x, scale), weight), &mut out[at..]);
        }
    }
}

#[derive(Clone, Copy)]
struct LayerNorm<'a> {
    x: View<'a, f32, 2>,
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl RowKernel for LayerNorm<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        let x = &self.x.row([row, 0])[..out.len()];
        // Two passes: a mean that is large beside the deviations would eat their digits otherwise.
        let mean = isa.splat(sum(isa, x) / x.len() as f32);
        let mut at = 0;
        while at < out.len() {
            isa.store_at(isa.sub(isa.load_at(x, at), mean), out, at);
            at += I::LANES;
        }
        let scale = scale(isa, sum_of_squares(isa, out), out.len(), self.eps);
        let mut at = 0;
        while at < out.len() {
            let value = isa.mul(isa.load_at(out, at), scale);
            let (weight, bias) = (isa.load_at(self.weight, at), isa.load_at(self.bias, at));
            isa.store_at(isa.fma(value, weight, bias), out, at);
            at += I::LANES;
        }
    }
}

#[derive(Clone, Copy)]
struct GatedRmsNorm<'a> {
    y: View<'a, f32, 2>,
    z: View<'a, f32, 2>,
    weight: &'a [f32],
    group: usize,
    eps: f32,
}

impl RowKernel for GatedRmsNorm<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        let (y, z) = (self.y.row([row, 0]), self.z.row([row, 0]));
        let mut first = 0;
        while first < out.len() {
            let group = first..first + self.group;
            first = group.end;
            let (y, z) = (&y[group.clone()], &z[group.clone()]);
            let (weight, out) = (&self.weight[group.clone()], &mut out[group]);
            // The gated values wait in the output for their norm.
            gate(isa, y, z, out);
            let scale = scale(isa, sum_of_squares(isa, out), out.len(), self.eps);
            let mut at = 0;
            while out.len() - at >= I::LANES {
                let value = isa.mul(isa.mul(isa.load(&out[at..]), scale), isa.load(&weight[at..]));
                isa.store(value, &mut out[at..]);
                at += I::LANES;
            }
            if at < out.len() {
                let (x, weight) = (isa.load_part(&out[at..]), isa.load_part(&weight[at..]));
                isa.store_part(isa.mul(isa.mul(x, scale), weight), &mut out[at..]);
            }
        }
    }
}

/// `Σ x`
#[inline(always)]
fn sum<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut sum = isa.zero();
    let mut at = 0;
    while at < x.len() {
        sum = isa.add(sum, isa.load_at(x, at));
        at += I::LANES;
    }
    isa.reduce_sum(sum)
}

/// `Σ x²`: four chains of multiply-adds, to hide their latency.
#[inline(always)]
fn sum_of_squares<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let mut sums = [isa.zero(); 4];
    let mut blocks = x.chunks_exact(4 * I::LANES);
    for block in &mut blocks {
        for (v, sum) in sums.iter_mut().enumerate() {
            let x = isa.load(&block[v * I::LANES..]);
            *sum = isa.fma(x, x, *sum);
        }
    }
    for (part, sum) in blocks.remainder().chunks(I::LANES).zip(&mut sums) {
        let x = isa.load_part(part);
        *sum = isa.fma(x, x, *sum);
    }
    isa.reduce_sum(isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3])))
}

/// `1 / sqrt(sum / width + eps)` in every lane.
#[inline(always)]
fn scale<I: Isa>(isa: I, sum: f32, width: usize, eps: f32) -> I::V {
    let mean = sum / width as f32;
    isa.div(isa.splat(1.0), isa.sqrt(isa.splat(mean + eps)))
}
