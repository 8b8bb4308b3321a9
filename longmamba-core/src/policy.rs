//! LongMamba (ICLR 2025, arXiv 2504.16053): which channels are global, and which tokens they may
//! forget so that a text longer than those of training decays their memory no further.
//!
//! Functions over slices; nothing here names a tensor, a device or a path. All sums are in `f64`.
//! Symbols: L is the training length, S the length of a text, Δ the step after softplus, A < 0 the
//! decay rate. A *channel* is one of `d_inner` in Mamba-1, whose states share one score and one
//! threshold, and a head in Mamba-2.
//!
//! Calibration, once per model, over windows of L tokens read by the unmodified model:
//!
//! | step | equation | here |
//! |---|---|---|
//! | clamp | Δ ← min(Δ, q), q the smallest of the top C % | [`clamp_top_percent`] |
//! | decay, Mamba-2 | exp(A·ΣΔ) | [`log_score_per_head`] |
//! | decay, Mamba-1 | Π_t mean_n exp(Δ_t·A_n) | [`log_score_per_state`] |
//! | target | σ = Σ Δ | [`Profile::target`] |
//! | threshold g(S) | the sorted Δ stretched to S samples; the one after that at which their sum exceeds σ | [`Profile::threshold`] |
//! | windows | maximum or mean of scores and of thresholds | [`Aggregate`], [`Calibration`] |
//!
//! Inference, for a text of S tokens, S known before the first:
//!
//! | step | equation | here |
//! |---|---|---|
//! | global channels | score > θ | [`classify`], [`Gap`] and [`ThetaReport`] for the choice of θ |
//! | threshold | b·g(S) from the table | [`Lookup`], [`Plan::delta_min`] |
//! | filter | Δ ← 0 where Δ ≤ b·g(S) | [`kept`], [`mask`] |
//!
//! What calibration finds is a [`Plan`]; feature `plan-file` adds `Plan::to_bytes` and
//! `Plan::from_bytes`.
//!
//! Where the paper and its code leave a choice: g(S) is 0 for S ≤ L (the code, run there, filters
//! almost everything); scores and targets are of the clamped Δ and the filter sees the unclamped, as
//! in the code; a token at the threshold is dropped, as in the code.

mod calibrate;
mod clamp;
mod classify;
mod gaps;
mod lookup;
mod mask;
mod plan;
#[cfg(feature = "plan-file")]
mod plan_file;
mod score;
mod threshold;

pub use calibrate::{Aggregate, Calibration, CalibrationSettings, ChannelBlock, LayerTable};
pub use clamp::clamp_top_percent;
pub use classify::{
    CLIFF_DECADES, ChannelScore, Class, Histogram, THETA_MULTIPLES, ThetaReport, classify,
};
pub use gaps::Gap;
pub use lookup::{Lookup, TablePosition};
pub use mask::{kept, mask};
pub use plan::{Fingerprint, Plan, PlanParts, TIE};
#[cfg(feature = "plan-file")]
pub use plan_file::PLAN_VERSION;
pub use score::{Decay, log_score_per_head, log_score_per_state};
pub use threshold::{Profile, RELEASED_LENGTHS};
