use crate::common::{Random, Strided, assert_sums, widen};
use arbitrary::Arbitrary;
use longmamba_core::oracle::{self, ScanResult};
use longmamba_core::{
    ChannelStats, DtLimits, SelectiveScan, SelectiveScanInputs, SelectiveScanOut, Ssd, SsdInputs,
    SsdOut,
};
use longmamba_cpu::{Cpu, Scratch};

/// The shape of a scan; its numbers come from a seed.
#[derive(Arbitrary, Debug)]
pub struct Scan {
    ssd: bool,
    batch: u8,
    len: u8,
    channels: u8,
    head_dim: u8,
    groups: u8,
    d_state: u8,
    seed: u64,
    /// Where the sequence is cut in two.
    cut: u8,
    /// Of each sequence, beyond which it is padded.
    lengths: Option<[u8; 3]>,
    mask: Option<u8>,
    gap: u8,
    dt_range: u8,
    limits: Option<(u8, u8)>,
    gate: bool,
    skip: bool,
    bias: bool,
    /// The state with neighbouring states, rather than channels, side by side.
    states_inside: bool,
}

/// Δ before softplus: as in models, at the ends of softplus, and between.
const DT_RANGES: [(f32, f32); 4] = [(-7.0, 2.0), (-100.0, 100.0), (-1.0, 1.0), (15.0, 90.0)];

/// State updates of one scan, at most: a few milliseconds of the oracle's.
const WORK: usize = 1 << 17;
/// Around vectors, a line of channels (16) and groups of states (8).
const SIZES: [u8; 14] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 40];

/// What both scans have in common.
struct Shared {
    batch: usize,
    len: usize,
    channels: usize,
    head_dim: usize,
    d_state: usize,
    gap: usize,
    cut: usize,
    dt_raw: Vec<f32>,
    bias: Option<Vec<f32>>,
    skip: Option<Vec<f32>>,
    delta_min: Option<Vec<f32>>,
    limits: DtLimits,
    lengths: Option<Vec<usize>>,
}

/// What a kernel leaves behind.
struct Outcome {
    y: Vec<f32>,
    state: Vec<f32>,
    delta_sum: Vec<f64>,
    kept_sum: Vec<f64>,
    kept: Vec<u64>,
}

/// Every instruction set of this processor against the oracle, whole and in two parts.
pub fn against_oracle(case: &Scan) {
    let mut random = Random::new(case.seed);
    let shared = Shared::new(case, &mut random);
    if case.ssd { ssd(case, &shared, &mut random) } else { selective(case, &shared, &mut random) }
}

fn selective(case: &Scan, shared: &Shared, random: &mut Random) {
    let &Shared { batch, len, channels, d_state, gap, .. } = shared;
    let mut rows = |width: usize, scale: f32| {
        let values = random.vec(batch * len * width, -scale, scale);
        Strided::rows(&values, [batch, len, width], gap)
    };
    let (x, z) = (rows(channels, 2.0), rows(channels, 3.0));
    let (b, c) = (rows(d_state, 1.0), rows(d_state, 1.0));
    let dt_raw = Strided::rows(&shared.dt_raw, [batch, len, channels], gap);
    let (a_order, order) =
        if case.states_inside { ([0, 1], [0, 1, 2]) } else { ([1, 0], [0, 2, 1]) };
    let a = random.vec(channels * d_state, -8.0, -0.01);
    let a = Strided::new(&a, [channels, d_state], a_order, gap);
    let initial = random.vec(batch * channels * d_state, -1.0, 1.0);
    fn tokens(rows: &Strided<3>, from: usize, to: usize) -> longmamba_core::View<'_, f32, 3> {
        rows.view().slice(1, from..to).unwrap()
    }
    let scan = |from: usize,
                to: usize,
                lengths: Option<&[usize]>,
                run: &mut dyn FnMut(&SelectiveScan<'_>)| {
        let inputs = SelectiveScanInputs {
            x: tokens(&x, from, to),
            dt_raw: tokens(&dt_raw, from, to),
            a: a.view(),
            b: tokens(&b, from, to),
            c: tokens(&c, from, to),
            z: case.gate.then(|| tokens(&z, from, to)),
            d: shared.skip.as_deref(),
            dt_bias: shared.bias.as_deref(),
            delta_min: shared.delta_min.as_deref(),
            dt_limits: shared.limits,
            lengths,
        };
        run(&SelectiveScan::new(inputs).unwrap());
    };
    let mut expected = ScanResult::default();
    scan(0, len, shared.lengths.as_deref(), &mut |args| {
        expected = oracle::selective_scan(args, &widen(&initial));
    });
    for cpu in Cpu::available() {
        for parts in [&[0, len][..], &[0, shared.cut, len]] {
            let mut state = Strided::new(&initial, [batch, channels, d_state], order, gap);
            let shape = [batch, len, channels];
            let mut y = Strided::rows(&vec![7.0; shape.iter().product()], shape, gap);
            let mut sums = shared.sums();
            for part in parts.windows(2) {
                let lengths = shared.lengths_in(part[0], part[1]);
                scan(part[0], part[1], lengths.as_deref(), &mut |args| {
                    let out = SelectiveScanOut {
                        y: y.view_mut().slice(1, part[0]..part[1]).unwrap(),
                        state: state.view_mut(),
                        stats: Some(sums.stats()),
                    };
                    cpu.selective_scan(args, out).unwrap();
                });
            }
            (sums.y, sums.state) = (y.values(), state.values());
            sums.check(&format!("{} {parts:?}", cpu.isa()), &expected);
        }
    }
}

fn ssd(case: &Scan, shared: &Shared, random: &mut Random) {
    let &Shared { batch, len, channels: heads, head_dim, d_state, gap, .. } = shared;
    let divisors: Vec<usize> = (1..=heads.max(1)).filter(|g| heads.is_multiple_of(*g)).collect();
    let groups = divisors[usize::from(case.groups) % divisors.len()];
    let mut rows = |width: [usize; 2], scale: f32| {
        let shape = [batch, len, width[0], width[1]];
        Strided::rows(&random.vec(shape.iter().product(), -scale, scale), shape, gap)
    };
    let x = rows([heads, head_dim], 2.0);
    let (b, c) = (rows([groups, d_state], 1.0), rows([groups, d_state], 1.0));
    let dt_raw = Strided::rows(&shared.dt_raw, [batch, len, heads], gap);
    let a = random.vec(heads, -8.0, -0.01);
    let order = if case.states_inside { [0, 1, 2, 3] } else { [0, 1, 3, 2] };
    let initial = random.vec(batch * heads * head_dim * d_state, -1.0, 1.0);
    fn tokens(rows: &Strided<4>, from: usize, to: usize) -> longmamba_core::View<'_, f32, 4> {
        rows.view().slice(1, from..to).unwrap()
    }
    let scan =
        |from: usize, to: usize, lengths: Option<&[usize]>, run: &mut dyn FnMut(&Ssd<'_>)| {
            let inputs = SsdInputs {
                x: tokens(&x, from, to),
                dt_raw: dt_raw.view().slice(1, from..to).unwrap(),
                a: &a,
                b: tokens(&b, from, to),
                c: tokens(&c, from, to),
                d: shared.skip.as_deref(),
                dt_bias: shared.bias.as_deref(),
                delta_min: shared.delta_min.as_deref(),
                dt_limits: shared.limits,
                lengths,
            };
            run(&Ssd::new(inputs).unwrap());
        };
    let mut expected = ScanResult::default();
    scan(0, len, shared.lengths.as_deref(), &mut |args| {
        expected = oracle::ssd(args, &widen(&initial));
    });
    let mut scratch = Scratch::new();
    for cpu in Cpu::available() {
        for parts in [&[0, len][..], &[0, shared.cut, len]] {
            let shape = [batch, heads, head_dim, d_state];
            let mut state = Strided::new(&initial, shape, order, gap);
            let shape = [batch, len, heads, head_dim];
            let mut y = Strided::rows(&vec![7.0; shape.iter().product()], shape, gap);
            let mut sums = shared.sums();
            for part in parts.windows(2) {
                let lengths = shared.lengths_in(part[0], part[1]);
                scan(part[0], part[1], lengths.as_deref(), &mut |args| {
                    let out = SsdOut {
                        y: y.view_mut().slice(1, part[0]..part[1]).unwrap(),
                        state: state.view_mut(),
                        stats: Some(sums.stats()),
                    };
                    cpu.ssd(args, out, &mut scratch).unwrap();
                });
            }
            (sums.y, sums.state) = (y.values(), state.values());
            sums.check(&format!("{} {parts:?}", cpu.isa()), &expected);
        }
    }
}

impl Shared {
    fn new(case: &Scan, random: &mut Random) -> Self {
        let size = |value: u8, limit: u8| usize::from(value % limit);
        let edge = |value: u8| usize::from(SIZES[size(value, 14)]);
        let (batch, channels, d_state) =
            (size(case.batch, 4), edge(case.channels), edge(case.d_state));
        let head_dim = if case.ssd { edge(case.head_dim) } else { 1 };
        let width = (batch * channels * head_dim * d_state).max(1);
        let len = size(case.len, 140).min(WORK / width);
        let (low, high) = DT_RANGES[size(case.dt_range, 4)];
        let limits = case.limits.map_or_else(DtLimits::default, |(min, extra)| {
            let min = f32::from(min) / 100.0;
            DtLimits { min, max: min + f32::from(extra) / 50.0 }
        });
        let mut shared = Shared {
            batch,
            len,
            channels,
            head_dim,
            d_state,
            gap: size(case.gap, 4),
            cut: size(case.cut, 140).min(len),
            dt_raw: random.vec(batch * len * channels, low, high),
            bias: case.bias.then(|| random.vec(channels, -1.0, 1.0)),
            skip: case.skip.then(|| random.vec(channels, -1.0, 1.0)),
            delta_min: None,
            limits,
            lengths: case.lengths.map(|l| (0..batch).map(|b| size(l[b], 140).min(len)).collect()),
        };
        shared.delta_min = case.mask.map(|share| {
            (0..channels)
                .map(|c| if c % 3 == 2 { 0.0 } else { shared.threshold(c, share) })
                .collect()
        });
        shared
    }

    /// One that drops some of a channel's tokens, and is so far from every Δ that no rounding decides.
    fn threshold(&self, channel: usize, share: u8) -> f32 {
        let bias = self.bias.as_ref().map_or(0.0, |bias| bias[channel]);
        let raw = self.dt_raw.iter().skip(channel).step_by(self.channels);
        let mut delta: Vec<f64> = raw.map(|&raw| oracle::delta(raw, bias, self.limits)).collect();
        delta.sort_by(f64::total_cmp);
        let from = delta.len() * usize::from(share) / 256;
        let gap = |pair: &&[f64]| pair[1] - pair[0] > 1e-4 * pair[1] && pair[1] > 1e-30;
        let pair = delta.get(from..).and_then(|delta| delta.windows(2).find(gap));
        pair.map_or(0.0, |pair| f64::midpoint(pair[0], pair[1]) as f32)
    }

    /// Of the tokens in a part.
    fn lengths_in(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let part = |&length: &usize| length.clamp(from, to) - from;
        self.lengths.as_ref().map(|lengths| lengths.iter().map(part).collect())
    }

    fn sums(&self) -> Outcome {
        let channels = self.batch * self.channels;
        Outcome {
            y: vec![],
            state: vec![],
            delta_sum: vec![0.0; channels],
            kept_sum: vec![0.0; channels],
            kept: vec![0; channels],
        }
    }
}

impl Outcome {
    fn stats(&mut self) -> ChannelStats<'_> {
        let Outcome { delta_sum, kept_sum, kept, .. } = self;
        ChannelStats { delta_sum, kept_sum, kept }
    }

    fn check(&self, what: &str, expected: &ScanResult) {
        let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
        assert_eq!(self.kept, expected.kept, "{what}: tokens kept");
        assert_sums(&format!("{what} Σ Δ"), &narrow(&self.delta_sum), &expected.delta_sum, 2e-6);
        assert_sums(&format!("{what} kept"), &narrow(&self.kept_sum), &expected.kept_sum, 2e-6);
        assert_sums(&format!("{what} y"), &self.y, &expected.y, 1e-5);
        assert_sums(&format!("{what} state"), &self.state, &expected.state, 1e-5);
    }
}
