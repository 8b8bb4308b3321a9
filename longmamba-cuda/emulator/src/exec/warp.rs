//! One warp. Its lanes run together while they agree on where to go; where they part, those furthest
//! back in the code run first, so that they meet again where paths join. Lanes that wait for others
//! of their warp, or for a barrier, stand still until those come.

use super::block::Cta;
use super::code::{Action, Effect, Instruction, Members, Reduce, ReduceOp};
use super::regs::{LANES, Regs};
use crate::error::{FaultKind, Run, Trouble};
use crate::memory::shared::Copy;
use std::collections::VecDeque;

/// Steps after which another group of lanes, or another warp, gets its turn, should one wait in a
/// loop for what the other does.
const TURN: u64 = 1 << 16;

/// Copies of `cp.async` of one lane.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Oldest first: those of the groups, then those of none yet.
    pub pending: VecDeque<Copy>,
    /// How many each group has.
    pub groups: VecDeque<usize>,
    /// How many are in no group yet.
    pub open: usize,
}

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All lanes have ended.
    Ended,
    /// All lanes that live wait.
    Waits,
    /// It had its turn.
    Turn,
}

pub(crate) struct Warp {
    pub index: u32,
    pub regs: Regs,
    pub local: Vec<u32>,
    /// Words of local memory of a lane.
    pub local_words: usize,
    pub copies: Vec<Copies>,
    pub pcs: [u32; LANES],
    /// Lanes that have begun.
    pub begun: u32,
    /// Lanes that have begun and not ended.
    pub live: u32,
    /// Lanes that wait for others of the warp.
    pub gathering: u32,
    /// Lanes that wait at a barrier.
    pub at_barrier: u32,
    /// The barrier where they wait, and how many threads it wants.
    pub barrier: (u32, Option<u32>),
    /// Thread instructions so far.
    pub count: u64,
    /// The last turn went to the lanes furthest on.
    tail: bool,
}

impl Warp {
    pub fn new(index: u32, regs: Regs, local_words: usize) -> Self {
        Self {
            index,
            regs,
            local: vec![u32::MAX; local_words * LANES],
            local_words,
            copies: (0..LANES).map(|_| Copies::default()).collect(),
            pcs: [0; LANES],
            begun: 0,
            live: 0,
            gathering: 0,
            at_barrier: 0,
            barrier: (0, None),
            count: 0,
            tail: false,
        }
    }

    /// Makes the warp as a new block finds it.
    pub fn begin(&mut self, regs: &Regs, live: u32) {
        self.regs.clone_from(regs);
        self.local.fill(u32::MAX);
        for copies in &mut self.copies {
            copies.pending.clear();
            copies.groups.clear();
            copies.open = 0;
        }
        self.pcs = [0; LANES];
        self.begun = live;
        self.live = live;
        self.gathering = 0;
        self.at_barrier = 0;
    }

    /// The lanes to run next, where they are, and where the next others wait to be joined.
    fn group(&self, last_first: bool) -> Option<(u32, u32, u32)> {
        let ready = self.live & !self.gathering & !self.at_barrier;
        if ready == 0 {
            return None;
        }
        let pcs = || lanes(ready).map(|lane| self.pcs[lane as usize]);
        let pc = if last_first { pcs().max() } else { pcs().min() }.expect("ready is not empty");
        let next = pcs().filter(|other| *other > pc).min().unwrap_or(u32::MAX);
        let mask = lanes(ready)
            .filter(|lane| self.pcs[*lane as usize] == pc)
            .fold(0, |mask, lane| mask | 1 << lane);
        Some((mask, pc, next))
    }

    fn set_pcs(&mut self, mask: u32, pc: u32) {
        for lane in lanes(mask) {
            self.pcs[lane as usize] = pc;
        }
    }

    /// Runs until all lanes have ended or wait.
    pub fn run(&mut self, cta: &mut Cta<'_>) -> Result<Stop, Box<Trouble>> {
        let code = cta.context.kernel.code.as_slice();
        let mut steps = 0;
        loop {
            self.tail = !self.tail && steps >= TURN;
            let Some((mask, pc, next)) = self.group(self.tail) else {
                if self.regather(code) {
                    continue;
                }
                return Ok(if self.live == 0 { Stop::Ended } else { Stop::Waits });
            };
            if steps >= TURN && !self.tail {
                return Ok(Stop::Turn);
            }
            self.run_group(cta, code, mask, pc, next, &mut steps)?;
        }
    }

    fn run_group(
        &mut self,
        cta: &mut Cta<'_>,
        code: &[Instruction],
        mut mask: u32,
        mut pc: u32,
        next: u32,
        steps: &mut u64,
    ) -> Run {
        let turn = *steps + TURN;
        loop {
            if pc >= next || *steps >= turn {
                self.set_pcs(mask, pc);
                return Ok(());
            }
            *steps += 1;
            self.count += u64::from(mask.count_ones());
            let instruction = &code[pc as usize];
            let active = match instruction.guard {
                None => mask,
                Some((pred, false)) => mask & self.regs.preds[pred as usize],
                Some((pred, true)) => mask & !self.regs.preds[pred as usize],
            };
            cta.pc = pc;
            match &instruction.action {
                Action::Pure(run) => {
                    if active != 0 {
                        run(&mut self.regs, active);
                    }
                }
                Action::Effect(run) => {
                    if active != 0 {
                        run(self, cta, active)?;
                    }
                }
                Action::Branch(target) => {
                    if active == mask {
                        pc = *target;
                        continue;
                    }
                    if active != 0 {
                        self.set_pcs(active, *target);
                        self.set_pcs(mask & !active, pc + 1);
                        return Ok(());
                    }
                }
                Action::BranchIndexed(index, targets) => {
                    self.set_pcs(mask & !active, pc + 1);
                    for lane in lanes(active) {
                        let index = self.regs.lane(*index, lane as usize) as usize;
                        self.pcs[lane as usize] = *targets.get(index).ok_or_else(|| {
                            Trouble::new(lane, FaultKind::Value("branch past the table of targets"))
                        })?;
                    }
                    return Ok(());
                }
                Action::Exit => {
                    self.live &= !active;
                    mask &= !active;
                    if mask == 0 {
                        return Ok(());
                    }
                }
                Action::Barrier(barrier) => {
                    if active != 0 {
                        let lane = active.trailing_zeros();
                        let id = self.regs.lane(barrier.id, lane as usize) as u32;
                        let count = barrier.count.map(|c| self.regs.lane(c, lane as usize) as u32);
                        if id >= 16 {
                            let what = "barriers are numbered 0 to 15";
                            return Err(Trouble::new(lane, FaultKind::Value(what)));
                        }
                        if count.is_some_and(|count| count == 0 || count % 32 != 0) {
                            let what = "a barrier counts whole warps";
                            return Err(Trouble::new(lane, FaultKind::Value(what)));
                        }
                        if barrier.arrive {
                            cta.arrive(self.index as usize, id, count);
                        } else {
                            self.set_pcs(mask & !active, pc + 1);
                            self.set_pcs(active, pc);
                            self.at_barrier |= active;
                            self.barrier = (id, count);
                            return Ok(());
                        }
                    }
                }
                Action::Collective(members, run) => {
                    if active != 0 {
                        let whole = self.collective(cta, *members, run, mask, active, pc)?;
                        if !whole {
                            return Ok(());
                        }
                    }
                }
                Action::Trap => {
                    if active != 0 {
                        return Err(Trouble::new(active.trailing_zeros(), FaultKind::Trap));
                    }
                }
                Action::Nothing => {}
            }
            pc += 1;
        }
    }

    /// The lanes that an operation is for, as a lane of it sees it.
    fn members(&self, members: Members, lane: u32) -> u32 {
        let mask = |reg| self.regs.lane(reg, lane as usize) as u32;
        match members {
            Members::Warp => u32::MAX,
            Members::Mask(reg) => mask(reg) & self.begun,
            Members::Live(reg) => mask(reg) & self.live,
        }
    }

    /// The lanes that wait at a place for others of the warp.
    fn gathered(&self, pc: u32) -> u32 {
        lanes(self.gathering)
            .filter(|lane| self.pcs[*lane as usize] == pc)
            .fold(0, |mask, lane| mask | 1 << lane)
    }

    /// Lets those go on that waited for lanes that have ended since.
    fn regather(&mut self, code: &[Instruction]) -> bool {
        let complete = lanes(self.gathering).find(|lane| {
            let pc = self.pcs[*lane as usize];
            matches!(&code[pc as usize].action, Action::Collective(members @ Members::Live(_), _)
                if self.members(*members, *lane) & !self.gathered(pc) == 0)
        });
        match complete {
            Some(lane) => {
                let again = self.gathered(self.pcs[lane as usize]);
                self.gathering &= !again;
                true
            }
            None => false,
        }
    }

    /// Runs an operation of several lanes for those groups that are complete; the others wait.
    /// Returns whether the lanes of `mask` go on together.
    fn collective(
        &mut self,
        cta: &mut Cta<'_>,
        members: Members,
        run: &Effect,
        mask: u32,
        active: u32,
        pc: u32,
    ) -> Result<bool, Box<Trouble>> {
        let wanted = |warp: &Self, lane: u32| warp.members(members, lane);
        let first = wanted(self, active.trailing_zeros());
        if active == mask && first == mask && lanes(mask).all(|lane| wanted(self, lane) == first) {
            run(self, cta, mask)?;
            return Ok(true);
        }
        let here = active | self.gathered(pc);
        self.set_pcs(mask & !active, pc + 1);
        self.set_pcs(active, pc);
        let mut left = here;
        while left != 0 {
            let lane = left.trailing_zeros();
            let wants = wanted(self, lane);
            if wants >> lane & 1 == 0 {
                let what = "the mask does not name the thread itself";
                return Err(Trouble::new(lane, FaultKind::Value(what)));
            }
            let alike = lanes(left)
                .filter(|other| wanted(self, *other) == wants)
                .fold(0, |mask, lane| mask | 1 << lane);
            left &= !alike;
            if alike == wants {
                run(self, cta, alike)?;
                self.gathering &= !alike;
                self.set_pcs(alike, pc + 1);
            } else {
                self.gathering |= alike;
            }
        }
        Ok(false)
    }

    /// The threads that an operation of a warp waits for at this place, as seen by a lane.
    pub fn missing(&self, code: &[Instruction], lane: u32) -> Option<(u32, u32)> {
        let pc = self.pcs[lane as usize];
        let Action::Collective(members, _) = &code[pc as usize].action else { return None };
        let mask = self.members(*members, lane);
        let missing = mask & !self.gathered(pc);
        // Should none be missing, two threads give different masks.
        Some((mask, if missing == 0 { lane } else { missing.trailing_zeros() }))
    }

    /// How many lanes at the barrier have a true predicate.
    pub fn votes(&self, reduce: &Reduce) -> u32 {
        let source = self.regs.preds[reduce.source.index as usize];
        (if reduce.negated { !source } else { source } & self.at_barrier).count_ones()
    }

    /// Goes on after a barrier.
    pub fn release(&mut self, reduced: Option<(Reduce, u32, u32)>) {
        if let Some((reduce, votes, threads)) = reduced {
            let value = match reduce.op {
                ReduceOp::Popc => votes,
                ReduceOp::And => u32::from(votes == threads),
                ReduceOp::Or => u32::from(votes != 0),
            };
            for lane in lanes(self.at_barrier) {
                self.regs.set_lane(reduce.dest, lane as usize, value.into());
            }
        }
        for lane in lanes(self.at_barrier) {
            self.pcs[lane as usize] += 1;
        }
        self.at_barrier = 0;
    }
}

/// The lanes of a mask, lowest first.
#[inline(always)]
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros();
            mask &= mask - 1;
            lane
        })
    })
}
