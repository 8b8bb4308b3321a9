//! One block: its warps in turn, and the barriers where they meet.

use super::code::{Action, Special};
use super::launch::Context;
use super::regs::{LANES, Regs};
use super::warp::{Stop, Warp};
use crate::error::{Fault, FaultKind, Place, Trouble, What};
use crate::memory::race::Party;
use crate::memory::shared::{Shared, Site};

/// What the warps of a block share.
pub(crate) struct Cta<'a> {
    pub context: &'a Context<'a>,
    pub shared: Shared,
    /// The place of the instruction that runs.
    pub pc: u32,
    /// The block as others are concerned with it.
    pub party: Party,
    barriers: [Arrived; 16],
}

/// Warps that passed a barrier without waiting.
#[derive(Clone, Debug, Default)]
struct Arrived {
    threads: u32,
    count: Option<u32>,
    known: Vec<u32>,
}

impl Cta<'_> {
    /// The access of a lane at the instruction that runs.
    #[inline(always)]
    pub fn site(&self, warp: u32, lane: u32, strong: bool) -> Site {
        Site { warp, lane, pc: self.pc, strong }
    }

    /// An access, to an address of global memory, that is in order with its like in other blocks.
    #[inline]
    pub fn meet(&mut self, address: u64) {
        if let Some(meetings) = &self.context.meetings {
            self.party.meet(address, meetings);
        }
    }

    /// `bar.arrive`.
    pub fn arrive(&mut self, warp: usize, id: u32, count: Option<u32>) {
        let arrived = &mut self.barriers[id as usize];
        arrived.threads += LANES as u32;
        arrived.count = count;
        self.shared.arrive(warp, &mut arrived.known);
    }
}

/// A worker's block: made once, begun for each block that it runs.
pub(crate) struct Block<'a> {
    pub cta: Cta<'a>,
    warps: Vec<Warp>,
    template: Regs,
    index: [u32; 3],
}

impl<'a> Block<'a> {
    pub fn new(context: &'a Context<'a>) -> Self {
        let kernel = context.kernel;
        let mut template = Regs {
            preds: vec![0; kernel.preds as usize],
            words: vec![[u32::MAX; LANES]; kernel.words as usize],
            longs: vec![[u64::MAX; LANES]; kernel.longs as usize],
        };
        for (reg, value) in &kernel.constants {
            for lane in 0..LANES {
                template.set_lane(*reg, lane, *value);
            }
        }
        let warps = context.threads().div_ceil(LANES as u32);
        let shared = Shared::new(context.shared_bytes, warps as usize, context.check_races);
        Self {
            cta: Cta {
                context,
                shared,
                pc: 0,
                party: Party::default(),
                barriers: Default::default(),
            },
            warps: (0..warps)
                .map(|index| Warp::new(index, template.clone(), kernel.local.div_ceil(4) as usize))
                .collect(),
            template,
            index: [0; 3],
        }
    }

    /// Thread instructions executed.
    pub fn count(&self) -> u64 {
        self.warps.iter().map(|warp| warp.count).sum()
    }

    /// Runs one block from beginning to end.
    pub fn run(&mut self, number: u64) -> Result<(), Box<Fault>> {
        let context = self.cta.context;
        let [x, y, _] = context.grid.map(u64::from);
        self.index = [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32];
        self.cta.party.begin(context.launch, number, context.blocks());
        self.cta.shared.begin();
        self.cta.barriers = Default::default();
        let threads = context.threads();
        for warp in &mut self.warps {
            let left = threads - warp.index * LANES as u32;
            warp.begin(&self.template, if left >= 32 { u32::MAX } else { (1 << left) - 1 });
            for (reg, special) in &context.kernel.specials {
                for lane in 0..LANES {
                    let value = value(context, self.index, number, warp.index, lane, *special);
                    warp.regs.set_lane(*reg, lane, value);
                }
            }
        }
        let limit = self.count() + context.limit;
        loop {
            let mut turns = false;
            for index in 0..self.warps.len() {
                if self.warps[index].at_barrier != 0
                    && self.warps[index].at_barrier == self.warps[index].live
                {
                    continue;
                }
                let stop = self.warps[index].run(&mut self.cta);
                turns |= stop.map_err(|trouble| self.fault(index, *trouble))? == Stop::Turn;
            }
            if self.warps.iter().all(|warp| warp.live == 0) {
                return Ok(());
            }
            let released = self.barriers()?;
            if !turns && !released {
                return Err(self.stuck());
            }
            if self.count() > limit {
                let index = self.warps.iter().position(|warp| warp.live != 0).unwrap_or(0);
                let lane = self.warps[index].live.trailing_zeros();
                self.cta.pc = self.warps[index].pcs[lane as usize];
                let kind = FaultKind::Limit(context.limit);
                return Err(self.fault(index, Trouble { lane, what: What::Plain(kind) }));
            }
        }
    }

    /// Opens the barriers that are complete.
    fn barriers(&mut self) -> Result<bool, Box<Fault>> {
        let mut released = false;
        for id in 0..16 {
            // A warp has arrived when all its lanes have, at one place.
            let mut arrived = Vec::new();
            for (index, warp) in self.warps.iter().enumerate() {
                if warp.at_barrier == 0 || warp.barrier.0 != id || warp.at_barrier != warp.live {
                    continue;
                }
                let mut pcs = super::warp::lanes(warp.live).map(|lane| warp.pcs[lane as usize]);
                let first = pcs.next();
                if pcs.any(|pc| Some(pc) != first) {
                    return Err(self.split_barrier(index));
                }
                if warp.live != warp.begun {
                    return Err(self.left_barrier(index));
                }
                arrived.push(index);
            }
            let Some(&first) = arrived.first() else { continue };
            let early = self.cta.barriers[id as usize].threads;
            let here = arrived.len() as u32 * LANES as u32 + early;
            let complete = match self.warps[first].barrier.1 {
                Some(count) => here >= count,
                None => arrived.len() == self.warps.iter().filter(|warp| warp.live != 0).count(),
            };
            if complete {
                self.open(id as usize, &arrived);
                released = true;
            }
        }
        Ok(released)
    }

    fn open(&mut self, id: usize, arrived: &[usize]) {
        let mut known = std::mem::take(&mut self.cta.barriers[id]).known;
        for &index in arrived {
            self.cta.shared.arrive(index, &mut known);
        }
        let code = &self.cta.context.kernel.code;
        let reduce = |warp: &Warp| {
            let pc = warp.pcs[warp.at_barrier.trailing_zeros() as usize];
            match &code[pc as usize].action {
                Action::Barrier(barrier) => barrier.reduce,
                _ => None,
            }
        };
        let (mut votes, mut threads) = (0, 0);
        for &index in arrived {
            let warp = &self.warps[index];
            threads += warp.at_barrier.count_ones();
            votes += reduce(warp).map_or(0, |reduce| warp.votes(&reduce));
        }
        for &index in arrived {
            self.cta.shared.leave(index, &known);
            let warp = &mut self.warps[index];
            let reduced = reduce(warp).map(|reduce| (reduce, votes, threads));
            warp.release(reduced);
        }
    }

    /// Lanes of one warp wait at different barrier instructions.
    fn split_barrier(&mut self, index: usize) -> Box<Fault> {
        let warp = &self.warps[index];
        let first = warp.live.trailing_zeros();
        let pc = warp.pcs[first as usize];
        let other = super::warp::lanes(warp.live)
            .find(|lane| warp.pcs[*lane as usize] != pc)
            .expect("called where they differ");
        let kind = FaultKind::Barrier {
            missing: warp.index * 32 + other,
            place: Place::Line(self.line(warp.pcs[other as usize])),
        };
        self.cta.pc = pc;
        self.fault(index, Trouble { lane: first, what: What::Plain(kind) })
    }

    /// Some lanes of a warp have ended while others wait at a barrier. Whole warps may end early, but
    /// barriers are for all lanes of the others.
    fn left_barrier(&mut self, index: usize) -> Box<Fault> {
        let warp = &self.warps[index];
        let lane = warp.live.trailing_zeros();
        let missing = warp.index * 32 + (warp.begun & !warp.live).trailing_zeros();
        self.cta.pc = warp.pcs[lane as usize];
        let kind = FaultKind::Barrier { missing, place: Place::Ended };
        self.fault(index, Trouble { lane, what: What::Plain(kind) })
    }

    /// Nothing can go on: says who waits for whom.
    fn stuck(&mut self) -> Box<Fault> {
        let code = &self.cta.context.kernel.code;
        for (index, warp) in self.warps.iter().enumerate() {
            let waiting = warp.gathering.trailing_zeros();
            if warp.gathering == 0 {
                continue;
            }
            if let Some((mask, missing)) = warp.missing(code, waiting) {
                let place = self.place(warp.index * 32 + missing);
                let missing = warp.index * 32 + missing;
                self.cta.pc = warp.pcs[waiting as usize];
                let kind = FaultKind::Collective { mask, missing, place };
                return self.fault(index, Trouble { lane: waiting, what: What::Plain(kind) });
            }
        }
        let index = self.warps.iter().position(|warp| warp.at_barrier != 0).unwrap_or(0);
        let warp = &self.warps[index];
        let lane = warp.at_barrier.trailing_zeros() & 31;
        let (id, pc) = (warp.barrier.0, warp.pcs[lane as usize]);
        // Someone who is not at this barrier, preferably a thread that still runs.
        let threads = self.cta.context.threads();
        let away = |thread: &u32| {
            let warp = &self.warps[*thread as usize / 32];
            warp.at_barrier >> (thread % 32) & 1 == 0 || warp.barrier.0 != id
        };
        let lives = |thread: &u32| self.warps[*thread as usize / 32].live >> (thread % 32) & 1 != 0;
        let missing = (0..threads)
            .find(|thread| away(thread) && lives(thread))
            .or_else(|| (0..threads).find(away))
            .unwrap_or(threads);
        let place = self.place(missing);
        self.cta.pc = pc;
        let kind = FaultKind::Barrier { missing, place };
        self.fault(index, Trouble { lane, what: What::Plain(kind) })
    }

    fn line(&self, pc: u32) -> u32 {
        self.cta.context.kernel.code.get(pc as usize).map_or(0, |instruction| instruction.line)
    }

    fn place(&self, thread: u32) -> Place {
        match self.warps.get(thread as usize / 32) {
            Some(warp) if warp.live >> (thread % 32) & 1 != 0 => {
                Place::Line(self.line(warp.pcs[thread as usize % 32]))
            }
            _ => Place::Ended,
        }
    }

    /// Adds the place to what happened.
    fn fault(&self, warp: usize, trouble: Trouble) -> Box<Fault> {
        let kind = match trouble.what {
            What::Plain(kind) => kind,
            What::Race { address, thread, pc, pending: true, access, .. } => {
                let other_line = self.line(pc);
                FaultKind::Pending { address, access, other_thread: thread, other_line }
            }
            What::Race { address, access, other, thread, pc, pending: false } => FaultKind::Race {
                address,
                access,
                other_access: other,
                other_thread: thread,
                other_line: self.line(pc),
            },
            What::BlockRace { address, access, other, block, pc } => FaultKind::BlockRace {
                address,
                access,
                other_access: other,
                other_block: block,
                other_line: self.line(pc),
            },
        };
        let context = self.cta.context;
        let thread = warp as u32 * 32 + trouble.lane;
        let [x, y, _] = context.block;
        let instruction = context.kernel.code.get(self.cta.pc as usize);
        Box::new(Fault {
            kernel: context.kernel.name.clone(),
            line: self.line(self.cta.pc),
            instruction: instruction.map_or(String::new(), |found| found.name.to_string()),
            block: self.index,
            thread: [thread % x, thread / x % y, thread / x / y],
            kind,
        })
    }
}

fn value(
    context: &Context<'_>,
    block: [u32; 3],
    number: u64,
    warp: u32,
    lane: usize,
    special: Special,
) -> u64 {
    let thread = warp * 32 + lane as u32;
    let [x, y, _] = context.block;
    let bit = 1_u32 << lane;
    let value = match special {
        Special::Tid(0) => thread % x,
        Special::Tid(1) => thread / x % y,
        Special::Tid(_) => thread / x / y,
        Special::Ntid(side) => context.block[side],
        Special::Ctaid(side) => block[side],
        Special::Nctaid(side) => context.grid[side],
        Special::Laneid => lane as u32,
        Special::Warpid => warp,
        Special::Nwarpid => context.threads().div_ceil(32),
        Special::Smid => (number % u64::from(crate::device::PROCESSORS)) as u32,
        Special::Nsmid => crate::device::PROCESSORS,
        Special::Gridid => return context.launch.into(),
        Special::LanemaskEq => bit,
        Special::LanemaskLe => bit | (bit - 1),
        Special::LanemaskLt => bit - 1,
        Special::LanemaskGe => !(bit - 1),
        Special::LanemaskGt => !(bit | (bit - 1)),
        Special::DynamicShared => context.dynamic_shared,
        Special::TotalShared => context.shared_bytes as u32,
    };
    value.into()
}
