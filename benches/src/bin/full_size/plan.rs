//! A LongMamba plan for a model that was never trained, so that the filter has something to do.

use crate::Result;
use longmamba_model::policy::{Aggregate, CalibrationSettings, LayerTable, Plan, PlanParts};
use longmamba_model::{Backend, Session};

/// Every other channel is global and drops the tokens whose Δ is not above its own mean in what the plain
/// `session` has read.
pub fn plan<B: Backend>(session: &Session<B>) -> Result<Plan> {
    let (config, len) = (session.model().config(), session.position());
    let mut layers = Vec::new();
    for layer in 0..config.recurrent_layers() {
        let sums = session.delta_sums(layer)?.delta_sum;
        // 1 is a decay of nothing, 10⁻¹⁰⁰ of everything.
        let log_score = |channel: usize| if channel.is_multiple_of(2) { 0.0 } else { -230.0 };
        layers.push(LayerTable {
            log_scores: (0..sums.len()).map(log_score).collect(),
            thresholds: sums.iter().map(|sum| (sum / len as f64) as f32).collect(),
        });
    }
    let train_len = (len / 4).max(1);
    Ok(Plan::new(PlanParts {
        fingerprint: session.model().fingerprint().clone(),
        settings: CalibrationSettings::new(train_len, 5.0, Aggregate::Max, vec![len])?,
        windows: 1,
        theta: 1e-30,
        min_total_len: 1,
        layers,
    })?)
}

/// The share of tokens that the filter dropped, over all channels.
pub fn dropped<B: Backend>(session: &Session<B>, len: usize) -> Result<f64> {
    let (mut kept, mut all) = (0, 0);
    for layer in 0..session.model().config().recurrent_layers() {
        let of_layer = session.delta_sums(layer)?.kept;
        kept += of_layer.iter().sum::<u64>();
        all += of_layer.len() * len;
    }
    Ok(1.0 - kept as f64 / all as f64)
}
