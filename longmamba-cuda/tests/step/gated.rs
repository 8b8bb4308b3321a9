//! A step of Mamba-2, on the device and by the oracle.

use super::{Memory, part, ssd};
use crate::rows::{Random, Stored, assert_close};
use longmamba_core::{DtLimits, oracle};
use longmamba_cuda::{Device, Precision, SsdInputs};

/// A step of Mamba-2.
#[derive(Clone, Debug)]
pub struct Gated {
    /// sequences, heads, head_dim, groups, d_state
    pub dims: [usize; 5],
    pub gap: usize,
    pub per_element: bool,
    pub dt_limits: DtLimits,
    pub seed: u64,
}

impl Gated {
    pub fn new(dims: [usize; 5]) -> Self {
        Gated { dims, gap: 0, per_element: false, dt_limits: DtLimits::default(), seed: 1 }
    }

    pub fn check(&self, device: &Device) {
        let [sequences, heads, head_dim, groups, d_state] = self.dims;
        let (width, states) = (heads * head_dim, groups * d_state);
        let dims = [sequences, 1, heads, head_dim, groups, d_state];
        let mut random = Random::new(self.seed + 1);
        let all = ssd::Problem {
            dt_limits: self.dt_limits,
            ..ssd::Problem::new::<f32>(dims, ssd::Storage::Plain, self.seed)
        };
        let d = match self.per_element {
            true => Some(random.vec(width, -1.0, 1.0)),
            false => all.d.clone(),
        };
        let z = random.vec(sequences * width, -4.0, 4.0);
        let upload = |values: &[f32]| device.upload(values).unwrap();
        let thresholds = |s: usize| -> Option<Vec<f32>> {
            let delta = |k: usize| {
                let bias = all.dt_bias.as_ref().map_or(0.0, |bias| bias[k]);
                oracle::delta(all.dt_raw[s * heads + k], bias, self.dt_limits) as f32
            };
            match s % 3 {
                0 => None,
                1 => Some((0..heads).map(|k| [0.5, 2.0, 0.0][k % 3] * delta(k)).collect()),
                _ => Some(vec![f32::INFINITY; heads]),
            }
        };
        // The state of a head lies the other way round on the device.
        let state = |s: usize| {
            let state = &all.state[s * width * d_state..][..width * d_state];
            transposed(state, head_dim, d_state)
        };
        let mut memories: Vec<Memory> = (0..sequences)
            .map(|s| Memory::new(device, &state(s), thresholds(s).as_deref(), heads))
            .collect();
        if let Some(last) = memories.get_mut(3) {
            last.counted = false;
        }
        let stored = |values: &[f32], width| Stored::<f32>::new(device, values, width, self.gap);
        let (x, on_z, dt_raw) =
            (stored(&all.x, width), stored(&z, width), stored(&all.dt_raw, heads));
        let (b, c) = (stored(&all.b, states), stored(&all.c, states));
        let mut y = stored(&vec![f32::NAN; sequences * width], width);
        let (a, on_d) = (upload(&all.a), d.as_deref().map(upload));
        let dt_bias = all.dt_bias.as_deref().map(upload);
        let inputs = SsdInputs {
            batch: sequences,
            heads,
            groups,
            x: x.rows(),
            dt_raw: dt_raw.rows(),
            b: b.rows(),
            c: c.rows(),
            a: &a,
            d: on_d.as_ref(),
            dt_bias: dt_bias.as_ref(),
            delta_min: None,
            dt_limits: self.dt_limits,
            lengths: None,
            precision: Precision::Exact,
        };
        let steps = memories.iter_mut().map(Memory::step);
        device.ssd_step(inputs, on_z.rows(), y.rows_mut(), steps).unwrap();

        let y = y.values();
        for (s, memory) in memories.iter().enumerate() {
            let what = format!("sequence {s} of {self:?}");
            let alone = ssd::Problem {
                dims: [1, 1, heads, head_dim, groups, d_state],
                x: part(&all.x, s, width).to_vec(),
                dt_raw: part(&all.dt_raw, s, heads).to_vec(),
                b: part(&all.b, s, states).to_vec(),
                c: part(&all.c, s, states).to_vec(),
                state: part(&all.state, s, width * d_state).to_vec(),
                // The oracle's D is one a head; the rest is added below.
                d: if self.per_element { None } else { d.clone() },
                delta_min: thresholds(s),
                ..all.clone()
            };
            let result = alone.oracle();
            let gated = |i: usize| {
                let skip = match (&d, self.per_element) {
                    (Some(d), true) => f64::from(d[i]) * f64::from(all.x[s * width + i]),
                    _ => 0.0,
                };
                (result.y[i] + skip) * oracle::silu(z[s * width + i].into())
            };
            let expected: Vec<f64> = (0..width).map(gated).collect();
            assert_close(&format!("{what} y"), part(&y, s, width), &expected, 1e-5, 1e-5);
            let state = transposed(&memory.state.to_vec().unwrap(), d_state, head_dim);
            assert_close(&format!("{what} state"), &state, &result.state, 1e-5, 1e-5);
            memory.check_sums(&what, &result);
        }
    }
}

/// Matrices of `rows` × `columns`, one after the other.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for matrix in values.chunks((rows * columns).max(1)) {
        for column in 0..columns {
            out.extend((0..rows).map(|row| matrix[row * columns + column]));
        }
    }
    out
}
