//! What this machine can do, measured, and how long that makes some work take at least.
//!
//! ```
//! use longmamba_cpu::limits::{Effort, Limits, Work};
//! let limits = Limits::measure(Effort::SMOKE);
//! // A product of 256 × 768 by 768 × 768 takes at least so many seconds here.
//! let bytes = 4.0 * 3.0 * 768.0 * 768.0;
//! let work = Work { flops: 2.0 * 256.0 * 768.0 * 768.0, bytes, resident: bytes, ..Work::default() };
//! assert!(limits.floor(work) > 0.0);
//! ```

mod peak;

use crate::{Cpu, SSD_BF16_CHUNK, SSD_CHUNKED_FROM};
use longmamba_core::AlignedVec;
use rayon::prelude::*;
use std::hint::black_box;
use std::ops::Add;
use std::time::{Duration, Instant};

/// The least work that a result takes, however it is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiplications and additions in `f32`; a fused pair counts as two.
    pub flops: f64,
    /// The same of `bf16` values that may be taken in pairs.
    pub pair_flops: f64,
    /// Exponentials.
    pub exps: f64,
    /// Every input read once and every output written once.
    pub bytes: f64,
    /// The storage that successive runs go through; it decides which cache they can come from.
    pub resident: f64,
    /// More bytes, which come from memory in any case: weights.
    pub streamed: f64,
}

impl Work {
    /// What the scan of Mamba-2 computes, without its bytes, for `[tokens, heads, head_dim, groups, d_state]`: two exponentials
    /// (decay, softplus) per token and head, and `4 · head_dim · d_state` multiplications and additions, which any
    /// method needs to bring the input into the state and the state out.
    ///
    /// Pairs are multiplied chunk by chunk, as [`Cpu::ssd_bf16`] does from [`SSD_CHUNKED_FROM`] tokens on. Whoever does that
    /// needs as well, for every two tokens of a chunk of [`SSD_BF16_CHUNK`], or one twice, `2 · head_dim` for each head
    /// and `2 · d_state` for each group.
    pub fn ssd([tokens, heads, head_dim, groups, d_state]: [usize; 5], pairs: bool) -> Work {
        let with_state = 4 * tokens * heads * head_dim * d_state;
        let exps = (2 * tokens * heads) as f64;
        if !pairs || tokens < SSD_CHUNKED_FROM {
            return Work { flops: with_state as f64, exps, ..Work::default() };
        }
        let (chunks, last) = (tokens / SSD_BF16_CHUNK, tokens % SSD_BF16_CHUNK);
        let twice = chunks * SSD_BF16_CHUNK * (SSD_BF16_CHUNK + 1) + last * (last + 1);
        let between = twice * (heads * head_dim + groups * d_state);
        Work { pair_flops: (with_state + between) as f64, exps, ..Work::default() }
    }
}

/// One after the other.
impl Add for Work {
    type Output = Work;

    fn add(self, other: Work) -> Work {
        Work {
            flops: self.flops + other.flops,
            pair_flops: self.pair_flops + other.pair_flops,
            exps: self.exps + other.exps,
            bytes: self.bytes + other.bytes,
            resident: self.resident.max(other.resident),
            streamed: self.streamed + other.streamed,
        }
    }
}

/// How long one measurement may take, and how often it is repeated at least.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Time for all repeats together.
    pub time: Duration,
    /// The fewest repeats.
    pub repeats: usize,
}

impl Effort {
    /// Enough for a median.
    pub const FULL: Effort = Effort { time: Duration::from_millis(300), repeats: 15 };
    /// Just to see that it runs.
    pub const SMOKE: Effort = Effort { time: Duration::ZERO, repeats: 1 };
}

/// Times of one call, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Half of the calls took longer.
    pub median: f64,
    /// The fastest: on a machine with other work to do, nearer to what the code needs.
    pub best: f64,
}

/// Times `call` again and again. Calls that are short are timed many at once.
pub fn time(effort: Effort, mut call: impl FnMut()) -> Times {
    let start = Instant::now();
    call();
    let once = start.elapsed().max(Duration::from_nanos(20));
    let calls = if effort.repeats == 1 { 1.0 } else { (200e-6 / once.as_secs_f64()).ceil() };
    let calls = calls as usize;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < effort.repeats || start.elapsed() < effort.time {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        times.push(start.elapsed().as_secs_f64() / calls as f64);
    }
    times.sort_unstable_by(f64::total_cmp);
    Times { median: times[times.len() / 2], best: times[0] }
}

/// The fastest of many calls: a limit is what the machine can do, not what it does while it is busy.
fn fastest(effort: Effort, call: impl FnMut()) -> f64 {
    time(effort, call).best
}

/// The rates of the machine with a number of threads, all threads together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many threads.
    pub threads: usize,
    /// Reading: bytes of storage gone through, and bytes a second.
    pub read: Vec<(f64, f64)>,
    /// Copying from and to memory: bytes read plus bytes written a second.
    pub copy: f64,
    /// Multiplications and additions of `f32` a second with the best instruction set.
    pub flops: f64,
    /// The same of pairs of `bf16`.
    pub pair_flops: f64,
    /// Exponentials a second, of values in the nearest cache, by the library's own function.
    pub exps: f64,
}

/// Floats read as one: small enough for any cache, and long enough to be timed.
const NEAR: usize = 4096;

impl Limits {
    /// Measures them on the current rayon pool.
    pub fn measure(effort: Effort) -> Self {
        let threads = rayon::current_num_threads();
        let cpu = Cpu::new();
        let largest = if effort.repeats == 1 { 1 << 18 } else { 1 << 26 };
        // Written once: untouched zeros would all be the system's one page of them.
        let mut data = AlignedVec::<f32>::zeros(largest);
        data.fill(1.0);
        let mut read = Vec::new();
        let mut floats = NEAR;
        while floats <= largest {
            let bytes = (floats * 4) as f64;
            // What fits the caches of one core is read again and again by each.
            let shared = floats >= NEAR * threads * 64;
            let time = fastest(effort, || {
                if shared {
                    data[..floats].par_chunks(floats.div_ceil(threads)).for_each(|data| {
                        cpu.call(peak::Read { data, times: 1, from_afar: true });
                    });
                } else {
                    let (data, times) = (&data[..floats], (1 << 22) / floats);
                    (0..threads).into_par_iter().for_each(|_| {
                        cpu.call(peak::Read { data, times, from_afar: false });
                    });
                }
            });
            let factor = if shared { 1 } else { threads * ((1 << 22) / floats) };
            read.push((bytes, bytes * factor as f64 / time));
            floats *= 4;
        }
        let (half, mut to) = (largest / 2, AlignedVec::<f32>::zeros(largest / 2));
        let share = half.div_ceil(threads);
        let time = fastest(effort, || {
            let parts = data[..half].par_chunks(share).zip(to.par_chunks_mut(share));
            parts.for_each(|(from, to)| to.copy_from_slice(from));
            black_box(&mut to);
        });
        let copy = (half * 8) as f64 / time;
        let flops = multiply_add_rate(cpu, threads, effort);
        let rounds = if effort.repeats == 1 { 1 << 10 } else { 1 << 18 };
        let pair_flops = rate(threads, effort, || cpu.call(peak::Pairs(rounds)));
        let mut values: Vec<_> = (0..threads).map(|_| AlignedVec::zeros(NEAR)).collect();
        let time = fastest(effort, || {
            values.par_iter_mut().for_each(|values| {
                for _ in 0..64 {
                    values.fill(-1.5);
                    cpu.exp_nonpositive(values);
                }
            });
        });
        let exps = (threads * NEAR * 64) as f64 / time;
        Limits { threads, read, copy, flops, pair_flops, exps }
    }

    /// The read bandwidth of the largest storage measured that is not above `resident`: the
    /// cache that the data could come from.
    pub fn bandwidth(&self, resident: f64) -> f64 {
        let mut below =
            self.read.iter().filter(|(bytes, _)| *bytes <= resident.max(self.read[0].0));
        below.next_back().map_or(f64::INFINITY, |&(_, rate)| rate)
    }

    /// The least time in seconds that `work` takes: the largest of bytes over bandwidth, operations
    /// over their peak and exponentials over theirs.
    pub fn floor(&self, work: Work) -> f64 {
        let streamed = work.streamed / self.bandwidth(f64::INFINITY);
        let bytes = work.bytes / self.bandwidth(work.resident) + streamed;
        // The two kinds of multiply-adds share the multipliers.
        let products = work.flops / self.flops + work.pair_flops / self.pair_flops;
        bytes.max(products).max(work.exps / self.exps)
    }
}

/// Multiplications and additions of `f32` a second of one instruction set, on the current pool.
pub fn multiply_add_rate(cpu: Cpu, threads: usize, effort: Effort) -> f64 {
    let rounds = if effort.repeats == 1 { 1 << 10 } else { 1 << 18 };
    rate(threads, effort, || cpu.call(peak::Floats(rounds)))
}

/// Operations a second where all threads do `work`, which gives how many it does.
fn rate(threads: usize, effort: Effort, work: impl Fn() -> f64 + Sync) -> f64 {
    let mut count = 0.0;
    let time = fastest(effort, || {
        count = (0..threads).into_par_iter().map(|_| work()).sum();
    });
    count / time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_tokens_are_counted() {
        let [heads, head_dim, groups, d_state] = [6, 8, 2, 16];
        for tokens in [0, 4, 5, 63, 64, 65, 200] {
            let with_state = (4 * tokens * heads * head_dim * d_state) as f64;
            let shape = [tokens, heads, head_dim, groups, d_state];
            let floats = Work::ssd(shape, false);
            assert_eq!((floats.flops, floats.pair_flops), (with_state, 0.0));
            let pairs = Work::ssd(shape, true);
            if tokens < SSD_CHUNKED_FROM {
                assert_eq!(pairs, floats);
                continue;
            }
            // Of each token with itself and those before it in its chunk.
            let met: usize = (0..tokens).map(|t| t % SSD_BF16_CHUNK + 1).sum();
            let between = (2 * met * (heads * head_dim + groups * d_state)) as f64;
            assert_eq!((pairs.flops, pairs.pair_flops), (0.0, with_state + between));
        }
    }
}
