//! Mamba-1's scan of a decode step with dt_proj in front, in one launch; and the same stage by stage.

use super::filter::Sums;
use super::product::Weight;
use crate::Work;
use crate::gpu::check::{close, read};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use longmamba_core::{
    AlignedVec, DType, DtLimits, SelectiveScan, SelectiveScanInputs as HostInputs,
    SelectiveScanOut, View, ViewMut,
};
use longmamba_cpu::{Accumulate, Cpu, Scratch};
use longmamba_cuda::{
    Buffer, Device, Matrix, Precision, Rows, RowsMut, SelectiveScanInputs, SelectiveStepInputs,
    StepSequence,
};
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone, Copy)]
struct Shape {
    sequences: usize,
    d_inner: usize,
    d_state: usize,
    dt_rank: usize,
}

impl Shape {
    /// Columns of what x_proj selects: Δ, B and C.
    fn selected(&self) -> usize {
        self.dt_rank + 2 * self.d_state
    }
}

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let models = match options.quick {
        true => vec![("tiny", 70, 5)],
        false => vec![("mamba-130m", 1536, 48), ("mamba-1.4b", 4096, 128)],
    };
    let mut all = Vec::new();
    for (model, d_inner, dt_rank) in models {
        for sequences in [1, 8] {
            let shape = Shape { sequences, d_inner, d_state: 16, dt_rank };
            all.push(entry(model, DType::BF16, shape));
            all.push(entry(model, DType::F32, shape));
        }
    }
    all
}

fn entry(model: &str, dtype: DType, shape: Shape) -> Entry {
    let Shape { sequences, d_inner, d_state, dt_rank } = shape;
    Entry {
        kernel: "selective_scan step, projected".into(),
        dtype: dtype.to_string(),
        shape: format!("{model}: {sequences} × {dt_rank} → {d_inner}, {d_state} states"),
        make: Box::new(move |device, options| {
            let fused = Step::new(device, options, dtype, shape)?;
            let apart = fused.stage_by_stage();
            Ok(vec![Box::new(fused), Box::new(apart)])
        }),
    }
}

const X: Numbers = Numbers::unit(1);
const SELECTED: Numbers = Numbers::unit(2);
const Z: Numbers = Numbers::wide(3);

fn a() -> Numbers {
    Numbers::between(6, -8.0, -0.1)
}

fn d() -> Numbers {
    Numbers::between(7, -1.0, 1.0)
}

fn dt_bias() -> Numbers {
    Numbers::between(8, -4.0, -2.0)
}

/// What a launch reads and writes.
struct Set {
    x: Buffer<f32>,
    selected: Buffer<f32>,
    z: Buffer<f32>,
    dt_proj: Matrix,
    dt_raw: Buffer<f32>,
    y: Buffer<f32>,
    /// Of each sequence.
    memories: Vec<(Buffer<f32>, Sums)>,
}

struct Parameters {
    a: Buffer<f32>,
    d: Buffer<f32>,
    dt_bias: Buffer<f32>,
}

struct Step {
    shape: Shape,
    dtype: DType,
    host: Rc<Weight>,
    /// Both cases of an entry use them.
    sets: Rc<RefCell<Sets<Set>>>,
    parameters: Rc<Parameters>,
    apart: bool,
}

impl Step {
    fn new(device: &Device, options: &Options, dtype: DType, shape: Shape) -> Result<Self> {
        let Shape { sequences, d_inner, d_state, dt_rank } = shape;
        let host = Rc::new(Weight::new(dtype, d_inner * dt_rank));
        let parameters = Parameters {
            a: a().upload(device, d_state * d_inner)?,
            d: d().upload(device, d_inner)?,
            dt_bias: dt_bias().upload(device, d_inner)?,
        };
        let sets = Sets::new(options.quick, work(dtype, shape).bytes, || {
            let memory = |_| Ok((device.zeros(d_state * d_inner)?, Sums::new(device, d_inner)?));
            Ok(Set {
                x: X.upload(device, sequences * d_inner)?,
                selected: SELECTED.upload(device, sequences * shape.selected())?,
                z: Z.upload(device, sequences * d_inner)?,
                dt_proj: Matrix::upload(device, host.view([d_inner, dt_rank])?)?,
                dt_raw: device.zeros(sequences * d_inner)?,
                y: device.zeros(sequences * d_inner)?,
                memories: (0..sequences).map(memory).collect::<Result<_>>()?,
            })
        })?;
        let (sets, parameters) = (Rc::new(RefCell::new(sets)), Rc::new(parameters));
        Ok(Step { shape, dtype, host, sets, parameters, apart: false })
    }

    /// The same work, in as many launches as it takes without the fused kernel.
    fn stage_by_stage(&self) -> Self {
        let (sets, parameters) = (self.sets.clone(), self.parameters.clone());
        Step { host: self.host.clone(), sets, parameters, apart: true, ..*self }
    }

    /// y and the state of the first sequence, by the CPU.
    fn expected(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        let Shape { d_inner, d_state, dt_rank, .. } = self.shape;
        let selected = SELECTED.first(self.shape.selected());
        let (low, states) = selected.split_at(dt_rank);
        let (b, c) = states.split_at(d_state);
        let mut dt_raw = AlignedVec::<f32>::zeros(d_inner);
        Cpu::new().matmul(
            View::new(low, [1, dt_rank])?,
            self.host.view([d_inner, dt_rank])?,
            ViewMut::new(&mut dt_raw, [1, d_inner])?,
            Accumulate::No,
            &mut Scratch::new(),
        )?;
        let (x, z) = (X.first(d_inner), Z.first(d_inner));
        let (a, d, dt_bias) =
            (a().first(d_state * d_inner), d().first(d_inner), dt_bias().first(d_inner));
        let per_channel = [1, 1, d_inner];
        let args = SelectiveScan::new(HostInputs {
            x: View::new(&x, per_channel)?,
            dt_raw: View::new(&dt_raw, per_channel)?,
            a: View::new(&a, [d_state, d_inner])?.permute([1, 0])?,
            b: View::new(b, [1, 1, d_state])?,
            c: View::new(c, [1, 1, d_state])?,
            z: Some(View::new(&z, per_channel)?),
            d: Some(&d),
            dt_bias: Some(&dt_bias),
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
        })?;
        let (mut y, mut state) = (vec![0.0; d_inner], vec![0.0; d_state * d_inner]);
        let out = SelectiveScanOut {
            y: ViewMut::new(&mut y, per_channel)?,
            state: ViewMut::new(&mut state, [1, d_state, d_inner])?.permute([0, 2, 1])?,
            stats: None,
        };
        Cpu::new().selective_scan(&args, out)?;
        Ok((y, state))
    }
}

/// The rows from `index` on.
fn row(rows: Rows<'_, f32>, index: usize) -> Rows<'_, f32> {
    Rows { first: rows.first + index * rows.stride, ..rows }
}

/// Operations of dt_proj, and as the scan counts them. Bytes: dt_proj's weight, x, z and what was selected in, y
/// out, the states both ways, and A.
fn work(dtype: DType, shape: Shape) -> Work {
    let [sequences, d_inner, d_state, dt_rank, selected] =
        [shape.sequences, shape.d_inner, shape.d_state, shape.dt_rank, shape.selected()]
            .map(|n| n as f64);
    let pairs = sequences * d_inner;
    Work {
        flops: pairs * (2.0 * dt_rank + 6.0 * (d_state + 1.0)),
        exps: pairs * (d_state + 3.0),
        bytes: dtype.size() as f64 * d_inner * dt_rank
            + 4.0 * (3.0 * pairs + sequences * selected)
            + 4.0 * d_inner * d_state * (2.0 * sequences + 1.0),
        ..Work::default()
    }
}

impl Case for Step {
    fn variant(&self) -> &'static str {
        if self.apart { ", stage by stage" } else { "" }
    }

    fn work(&self) -> Work {
        work(self.dtype, self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::None
    }

    fn sets(&self) -> usize {
        self.sets.borrow().len()
    }

    /// The first sequence, from a state of zero.
    fn check(&mut self) -> Result<f64> {
        self.sets.borrow_mut().rewind().memories[0].0.clear()?;
        self.launch()?;
        let Shape { d_inner, d_state, .. } = self.shape;
        let (y, state) = self.expected()?;
        let sets = self.sets.borrow();
        let set = sets.first();
        let found = read(&set.y, 0..1, d_inner, 0..d_inner)?;
        let worst = close("y", &found, &y, 1e-4)?;
        let found = read(&set.memories[0].0, 0..d_state, d_inner, 0..d_inner)?;
        Ok(worst.max(close("the state", &found, &state, 1e-4)?))
    }

    fn launch(&mut self) -> Result<()> {
        let Shape { sequences, d_inner, d_state, dt_rank } = self.shape;
        let mut sets = self.sets.borrow_mut();
        let Set { x, selected, z, dt_proj, dt_raw, y, memories } = sets.turn();
        let Parameters { a, d, dt_bias } = &*self.parameters;
        let device = x.device().clone();
        let selected = Rows::all(selected, self.shape.selected());
        let (low, b) = (selected.part(0, dt_rank), selected.part(dt_rank, d_state));
        let c = selected.part(dt_rank + d_state, d_state);
        let (x, z) = (Rows::all(x, d_inner), Rows::all(z, d_inner));
        let dt_limits = DtLimits::default();
        if self.apart {
            let to = RowsMut::all(&mut *dt_raw, d_inner);
            device.matmul(sequences, low, dt_proj, None, false, Precision::Exact, to)?;
            let dt_raw = Rows::all(&*dt_raw, d_inner);
            for (s, (state, sums)) in memories.iter_mut().enumerate() {
                let inputs = SelectiveScanInputs {
                    batch: 1,
                    x: row(x, s),
                    dt_raw: row(dt_raw, s),
                    b: row(b, s),
                    c: row(c, s),
                    z: Some(row(z, s)),
                    a,
                    d: Some(d),
                    dt_bias: Some(dt_bias),
                    delta_min: None,
                    dt_limits,
                    lengths: None,
                };
                let (first, width, stride) = (s * d_inner, d_inner, d_inner);
                let to = RowsMut { buffer: &mut *y, first, width, stride };
                device.selective_scan(1, inputs, to, state, Some(sums.all()))?;
            }
            return Ok(());
        }
        let inputs = SelectiveStepInputs {
            x,
            low,
            b,
            c,
            z,
            norms: None,
            dt_proj,
            a,
            d: Some(d),
            dt_bias: Some(dt_bias),
            dt_limits,
        };
        let all = memories.iter_mut().map(|(state, sums)| StepSequence {
            state,
            delta_min: None,
            sums: Some(sums.all()),
        });
        let (dt_raw, y) = (RowsMut::all(dt_raw, d_inner), RowsMut::all(y, d_inner));
        Ok(device.selective_step(sequences, inputs, dt_raw, y, all)?)
    }
}
