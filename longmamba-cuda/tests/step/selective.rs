//! A step of Mamba-1, on the device and by the oracle.

use super::{Memory, part, scan};
use crate::rows::{Random, Stored, assert_close, weight};
use longmamba_core::{DType, DtLimits, View, oracle};
use longmamba_cuda::{Device, SelectNorms, SelectiveStepInputs};

/// A step of Mamba-1.
#[derive(Clone, Copy, Debug)]
pub struct Selective {
    pub sequences: usize,
    pub d_inner: usize,
    pub d_state: usize,
    pub dt_rank: usize,
    pub dtype: DType,
    pub normed: bool,
    /// Elements between rows.
    pub gap: usize,
    pub dt_limits: DtLimits,
    pub seed: u64,
}

const EPS: [f32; 2] = [1e-6, 1e-5];

impl Selective {
    pub fn new(sequences: usize, d_inner: usize, d_state: usize, dt_rank: usize) -> Self {
        let (dtype, dt_limits) = (DType::F32, DtLimits::default());
        Selective {
            sequences,
            d_inner,
            d_state,
            dt_rank,
            dtype,
            normed: false,
            gap: 0,
            dt_limits,
            seed: 1,
        }
    }

    /// Two tokens, one after the other, so that the second meets what the first left.
    pub fn check(&self, device: &Device) {
        let Selective { sequences, d_inner, d_state, dt_rank, dtype, gap, seed, .. } = *self;
        let mut random = Random::new(seed);
        let (dt_proj, matrix) = weight(device, &mut random, dtype, [d_inner, dt_rank]);
        let [low_norm, state_norm] = [dt_rank, d_state].map(|n| random.vec(n, 0.5, 1.5));
        let upload = |values: &[f32]| device.upload(values).unwrap();
        let (low_on_device, state_on_device) = (upload(&low_norm), upload(&state_norm));
        // Parameters, and states before the first token.
        let scan = scan::Problem {
            dt_limits: self.dt_limits,
            ..scan::Problem::new::<f32>([sequences, 1, d_inner, d_state], 0, seed)
        };
        let (a, d) = (upload(&scan.a), scan.d.as_deref().map(upload));
        let dt_bias = scan.dt_bias.as_deref().map(upload);
        let mut states: Vec<Vec<f32>> =
            (0..sequences).map(|s| part(&scan.state, s, d_state * d_inner).to_vec()).collect();
        let mut memories: Vec<Memory> = Vec::new();
        for token in 0..2 {
            let mut rows = |width: usize, size: f32| random.vec(sequences * width, -size, size);
            let (x, z, low) = (rows(d_inner, 2.0), rows(d_inner, 3.0), rows(dt_rank, 1.5));
            let (b, c) = (rows(d_state, 1.0), rows(d_state, 1.0));
            // What the scan is given.
            let normed =
                |values: &[f32], norm: &[f32], eps: f32| match self.normed && !norm.is_empty() {
                    false => values.iter().map(|&v| f64::from(v)).collect(),
                    true => {
                        let shape = [sequences, norm.len()];
                        oracle::rms_norm(&View::new(values, shape).unwrap(), norm, eps)
                    }
                };
            let chosen = normed(&low, &low_norm, EPS[0]);
            let dt_raw: Vec<f32> = (0..sequences * d_inner)
                .map(|i| {
                    let row = &dt_proj[i % d_inner * dt_rank..][..dt_rank];
                    let low = &chosen[i / d_inner * dt_rank..][..dt_rank];
                    row.iter().zip(low).map(|(&w, x)| f64::from(w) * x).sum::<f64>() as f32
                })
                .collect();
            let narrow = |values: Vec<f64>| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
            let scanned = scan::Problem {
                x: x.clone(),
                z: Some(z.clone()),
                dt_raw: dt_raw.clone(),
                b: narrow(normed(&b, &state_norm, EPS[1])),
                c: narrow(normed(&c, &state_norm, EPS[1])),
                state: states.concat(),
                ..scan.clone()
            };
            if memories.is_empty() {
                // Of three sequences one keeps every token, one drops that of some channels, one of all.
                memories = (0..sequences)
                    .map(|s| {
                        let thresholds = self.thresholds(&scanned, s);
                        Memory::new(device, &states[s], thresholds.as_deref(), d_inner)
                    })
                    .collect();
                if let Some(last) = memories.get_mut(3) {
                    last.counted = false;
                }
            }

            let stored = |values: &[f32], width| Stored::<f32>::new(device, values, width, gap);
            let [x, z] = [&x, &z].map(|v| stored(v, d_inner));
            let [b, c] = [&b, &c].map(|v| stored(v, d_state));
            let low = stored(&low, dt_rank);
            let nothing = vec![f32::NAN; sequences * d_inner];
            let (mut y, mut raw) = (stored(&nothing, d_inner), stored(&nothing, d_inner));
            let inputs = SelectiveStepInputs {
                x: x.rows(),
                low: low.rows(),
                b: b.rows(),
                c: c.rows(),
                z: z.rows(),
                norms: self.normed.then_some(SelectNorms {
                    low: (&low_on_device, EPS[0]),
                    state: (&state_on_device, EPS[1]),
                }),
                dt_proj: &matrix,
                a: &a,
                d: d.as_ref(),
                dt_bias: dt_bias.as_ref(),
                dt_limits: self.dt_limits,
            };
            let steps = memories.iter_mut().map(Memory::step);
            device.selective_step(sequences, inputs, raw.rows_mut(), y.rows_mut(), steps).unwrap();

            let what = format!("token {token} of {self:?}");
            let wide = |values: &[f32]| values.iter().map(|&v| v.into()).collect::<Vec<f64>>();
            assert_close(&format!("{what} dt_raw"), &raw.values(), &wide(&dt_raw), 1e-5, 1e-5);
            let y = y.values();
            for (s, memory) in memories.iter().enumerate() {
                let what = format!("{what} sequence {s}");
                // Of one sequence, with its own thresholds; all counts are of this token.
                let alone = scan::Problem {
                    dims: [1, 1, d_inner, d_state],
                    x: part(&scanned.x, s, d_inner).to_vec(),
                    z: scanned.z.as_deref().map(|z| part(z, s, d_inner).to_vec()),
                    dt_raw: part(&dt_raw, s, d_inner).to_vec(),
                    b: part(&scanned.b, s, d_state).to_vec(),
                    c: part(&scanned.c, s, d_state).to_vec(),
                    state: states[s].clone(),
                    delta_min: memory.delta_min.as_ref().map(|d| d.to_vec().unwrap()),
                    ..scan.clone()
                };
                let expected = alone.expected();
                assert_close(&format!("{what} y"), part(&y, s, d_inner), &expected.y, 2e-5, 2e-5);
                let state = memory.state.to_vec().unwrap();
                assert_close(&format!("{what} state"), &state, &expected.state, 2e-5, 2e-5);
                if token == 0 {
                    memory.check_sums(&what, &expected);
                }
                states[s] = state;
            }
        }
    }

    /// Those of sequence `s`, far from every delta of its first token.
    fn thresholds(&self, scanned: &scan::Problem, s: usize) -> Option<Vec<f32>> {
        let delta = |channel: usize| {
            let bias = scanned.dt_bias.as_ref().map_or(0.0, |bias| bias[channel]);
            oracle::delta(scanned.dt_raw[s * self.d_inner + channel], bias, self.dt_limits) as f32
        };
        match s % 3 {
            0 => None,
            1 => {
                let factor = |c: usize| [0.0, 0.5, 2.0][c % 3];
                Some((0..self.d_inner).map(|c| factor(c) * delta(c)).collect())
            }
            _ => Some(vec![f32::INFINITY; self.d_inner]),
        }
    }
}
