//! Code in the form in which it runs: every operand an index, every operation a closure.

use super::block::Cta;
use super::regs::{Pure, Reg};
use super::warp::Warp;
use crate::error::Run;
use crate::ptx::Variable;

/// An instruction that touches more than registers.
pub(crate) type Effect = Box<dyn Fn(&mut Warp, &mut Cta<'_>, u32) -> Run + Send + Sync>;

pub(crate) enum Action {
    Pure(Pure),
    Effect(Effect),
    Branch(u32),
    /// `brx.idx`: the register picks the target.
    BranchIndexed(Reg, Vec<u32>),
    Exit,
    Barrier(Barrier),
    /// For several threads of a warp together.
    Collective(Members, Effect),
    Trap,
    Nothing,
}

/// Which threads of a warp an operation is for. Lanes that a block is too small to fill are never
/// waited for where there is a mask.
#[derive(Clone, Copy)]
pub(crate) enum Members {
    /// All 32.
    Warp,
    /// Those of a mask.
    Mask(Reg),
    /// Those of a mask that have not ended.
    Live(Reg),
}

/// `bar` and `barrier`.
pub(crate) struct Barrier {
    pub id: Reg,
    /// Threads; without it all of the block.
    pub count: Option<Reg>,
    /// Does not wait.
    pub arrive: bool,
    pub reduce: Option<Reduce>,
}

/// `bar.red`.
#[derive(Clone, Copy)]
pub(crate) struct Reduce {
    pub op: ReduceOp,
    pub source: Reg,
    pub negated: bool,
    pub dest: Reg,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReduceOp {
    Popc,
    And,
    Or,
}

pub(crate) struct Instruction {
    pub action: Action,
    /// Predicate and whether it is negated.
    pub guard: Option<(u32, bool)>,
    pub line: u32,
    pub name: Box<str>,
}

/// A register that is filled in when a block starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    Gridid,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    DynamicShared,
    TotalShared,
}

/// A kernel ready to run.
pub(crate) struct Kernel {
    pub name: String,
    pub code: Vec<Instruction>,
    pub preds: u32,
    pub words: u32,
    pub longs: u32,
    /// Registers that hold constants.
    pub constants: Vec<(Reg, u64)>,
    pub specials: Vec<(Reg, Special)>,
    /// Parameters in order; each offset is the next multiple of the alignment.
    pub params: Vec<Variable>,
    pub param_offsets: Vec<u64>,
    pub param_size: u64,
    /// Bytes of local memory of a thread.
    pub local: u32,
    /// Bytes of shared memory known when compiling.
    pub shared: u32,
    /// Where `.extern .shared` begins.
    pub dynamic_shared: u32,
    pub max_threads: Option<u32>,
    pub required: Option<[u32; 3]>,
    /// Holds a fence of the whole device, or an access that acquires or releases there: blocks may hand data
    /// to each other.
    pub ordered: bool,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("name", &self.name).field("code", &self.code.len()).finish()
    }
}
