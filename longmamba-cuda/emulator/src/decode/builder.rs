//! What the decoders share: registers, constants, names, and the code so far.

use super::mods::Ty;
use crate::error::LoadError;
use crate::exec::code::{Instruction, Special};
use crate::exec::regs::{Class, Reg, Word};
use crate::ptx::{Ast, Operand, Space};
use std::collections::HashMap;

/// Addresses of the variables of a module.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// In global and constant memory.
    pub globals: HashMap<String, (Space, u64)>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meaning {
    Reg(Reg),
    /// Offset in the thread's local memory; parameters of device functions are there too.
    Local(u64),
    LocalParam(u64),
    Shared(u64),
    /// Offset among the kernel's parameters.
    Param(u64),
    Global(u64),
    Const(u64),
}

/// An address operand: the sum of a register and an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub base: Reg,
    pub offset: i64,
    /// What the name stood for, if it was not a register.
    pub meaning: Option<Meaning>,
}

#[derive(Default)]
pub(super) struct Scope {
    pub names: HashMap<String, Meaning>,
    pub labels: HashMap<String, u32>,
    pub tables: HashMap<String, Vec<String>>,
    /// Where names are looked up next; none at the outermost scope of a function.
    pub parent: Option<usize>,
}

pub(crate) struct Builder<'a> {
    pub(super) ast: &'a Ast,
    pub(super) symbols: &'a Symbols,
    /// Names of shared variables of the module that this kernel has seen.
    pub(super) shared_names: HashMap<String, u64>,
    pub(super) scopes: Vec<Scope>,
    pub(super) scope: usize,
    pub(super) code: Vec<Instruction>,
    /// Branches whose targets are still names: place in the code, scope, and names.
    pub(super) branches: Vec<(usize, usize, Vec<String>)>,
    pub(super) preds: u32,
    pub(super) words: u32,
    pub(super) longs: u32,
    constants: HashMap<(Class, u64), Reg>,
    pub(super) specials: HashMap<Special, Reg>,
    pub(super) local: u64,
    pub(super) shared: u64,
    pub(super) dynamic: Vec<String>,
    pub(super) dynamic_align: u64,
    /// See [`Kernel::ordered`](crate::exec::code::Kernel::ordered).
    pub(super) ordered: bool,
    /// The flag of long arithmetic.
    carry: Option<Reg>,
    /// Functions that are being inlined, outermost first.
    pub(super) frames: Vec<String>,
    pub(super) line: u32,
}

impl<'a> Builder<'a> {
    pub fn new(ast: &'a Ast, symbols: &'a Symbols) -> Self {
        Self {
            ast,
            symbols,
            shared_names: HashMap::new(),
            scopes: Vec::new(),
            scope: 0,
            code: Vec::new(),
            branches: Vec::new(),
            preds: 0,
            words: 0,
            longs: 0,
            constants: HashMap::new(),
            specials: HashMap::new(),
            local: 0,
            shared: 0,
            dynamic: Vec::new(),
            dynamic_align: 1,
            ordered: false,
            carry: None,
            frames: Vec::new(),
            line: 0,
        }
    }

    pub(super) fn error(&self, what: impl Into<String>) -> LoadError {
        LoadError::Operand { line: self.line, what: what.into() }
    }

    pub(super) fn register(&mut self, bits: u32) -> Reg {
        let (class, count) = match bits {
            1 => (Class::Pred, &mut self.preds),
            64 => (Class::Long, &mut self.longs),
            _ => (Class::Word, &mut self.words),
        };
        *count += 1;
        Reg { class, index: *count - 1, bits }
    }

    pub(super) fn carry(&mut self) -> Reg {
        if let Some(reg) = self.carry {
            return reg;
        }
        let reg = self.register(1);
        self.carry = Some(reg);
        reg
    }

    /// The register that holds a constant.
    pub(super) fn constant(&mut self, ty: Ty, value: u64) -> Reg {
        let bits = ty.bits();
        let value = if bits == 64 { value } else { value & ((1 << bits) - 1) };
        if let Some(reg) = self.constants.get(&(ty.class(), value)) {
            return Reg { bits, ..*reg };
        }
        let reg = self.register(bits);
        self.constants.insert((ty.class(), value), reg);
        reg
    }

    pub(super) fn constants(&self) -> Vec<(Reg, u64)> {
        self.constants.iter().map(|((_, value), reg)| (Reg { bits: 32, ..*reg }, *value)).collect()
    }

    fn special(&mut self, name: &str) -> Option<Reg> {
        let side = |name: &str| match name.rsplit_once('.').map(|(_, side)| side) {
            Some("x") => Some(0),
            Some("y") => Some(1),
            Some("z") => Some(2),
            _ => None,
        };
        let special = match name.split('.').next()? {
            "%tid" => Special::Tid(side(name)?),
            "%ntid" => Special::Ntid(side(name)?),
            "%ctaid" => Special::Ctaid(side(name)?),
            "%nctaid" => Special::Nctaid(side(name)?),
            "%laneid" => Special::Laneid,
            "%warpid" => Special::Warpid,
            "%nwarpid" => Special::Nwarpid,
            "%smid" => Special::Smid,
            "%nsmid" => Special::Nsmid,
            "%gridid" => Special::Gridid,
            "%lanemask_eq" => Special::LanemaskEq,
            "%lanemask_le" => Special::LanemaskLe,
            "%lanemask_lt" => Special::LanemaskLt,
            "%lanemask_ge" => Special::LanemaskGe,
            "%lanemask_gt" => Special::LanemaskGt,
            "%dynamic_smem_size" => Special::DynamicShared,
            "%total_smem_size" => Special::TotalShared,
            _ => return None,
        };
        if let Some(reg) = self.specials.get(&special) {
            return Some(*reg);
        }
        let reg = self.register(if special == Special::Gridid { 64 } else { 32 });
        self.specials.insert(special, reg);
        Some(reg)
    }

    /// What a name stands for here.
    pub(super) fn lookup(&mut self, name: &str) -> Result<Meaning, LoadError> {
        let mut scope = Some(self.scope);
        while let Some(at) = scope {
            if let Some(meaning) = self.scopes[at].names.get(name) {
                return Ok(*meaning);
            }
            scope = self.scopes[at].parent;
        }
        if let Some(reg) = self.special(name) {
            return Ok(Meaning::Reg(reg));
        }
        if let Some(offset) = self.shared_names.get(name) {
            return Ok(Meaning::Shared(*offset));
        }
        match self.symbols.globals.get(name) {
            Some((Space::Const, address)) => Ok(Meaning::Const(*address)),
            Some((_, address)) => Ok(Meaning::Global(*address)),
            None => Err(self.error(format!("`{name}` is not declared"))),
        }
    }

    fn fits(&self, reg: Reg, ty: Ty, name: &str) -> Result<Reg, LoadError> {
        if reg.class == ty.class() {
            return Ok(reg);
        }
        Err(self.error(format!(
            "`{name}` has {} bits, the instruction takes {}",
            reg.bits,
            ty.bits()
        )))
    }

    /// A source of a type: a register, or a constant made one.
    pub(super) fn source(&mut self, operand: &Operand, ty: Ty) -> Result<Reg, LoadError> {
        let value = match operand {
            Operand::Name(name, 0) if name == "WARP_SZ" => 32,
            Operand::Name(name, offset) => match self.lookup(name)? {
                Meaning::Reg(reg) => {
                    if *offset != 0 {
                        return Err(self.error("a register with an offset"));
                    }
                    return self.fits(reg, ty, name);
                }
                Meaning::Local(at)
                | Meaning::LocalParam(at)
                | Meaning::Shared(at)
                | Meaning::Param(at)
                | Meaning::Global(at)
                | Meaning::Const(at) => at.wrapping_add_signed(*offset),
            },
            Operand::Int(value) => match ty {
                Ty::F32 | Ty::F64 if *value != 0 => {
                    return Err(self.error("an integer for a float"));
                }
                _ => *value as u64,
            },
            Operand::F32(bits) if ty.bits() == 32 => (*bits).into(),
            Operand::F64(bits) if ty.bits() == 64 => *bits,
            // `0d…` stands for a constant of either width.
            Operand::F64(bits) if ty == Ty::F32 => (f64::from_bits(*bits) as f32).to_bits().into(),
            other => return Err(self.error(format!("{other:?} is no source"))),
        };
        if ty == Ty::Pred {
            let reg = self.constant(Ty::Pred, u64::from(value != 0));
            return Ok(reg);
        }
        Ok(self.constant(ty, value))
    }

    /// A destination of a type.
    pub(super) fn dest(&mut self, operand: &Operand, ty: Ty) -> Result<Reg, LoadError> {
        let Operand::Name(name, 0) = operand else {
            return Err(self.error(format!("{operand:?} is no destination")));
        };
        if name == "_" {
            return Ok(self.register(ty.bits()));
        }
        match self.lookup(name)? {
            Meaning::Reg(reg) => self.fits(reg, ty, name),
            _ => Err(self.error(format!("`{name}` is no register"))),
        }
    }

    /// A register of any class, for instructions that look at its width.
    pub(super) fn any_register(&mut self, name: &str) -> Result<Option<Reg>, LoadError> {
        Ok(match self.lookup(name)? {
            Meaning::Reg(reg) => Some(reg),
            _ => None,
        })
    }

    /// A predicate source and whether it is negated.
    pub(super) fn predicate(&mut self, operand: &Operand) -> Result<(Reg, bool), LoadError> {
        match operand {
            Operand::Not(name) => {
                let name = Operand::Name(name.clone(), 0);
                Ok((self.source(&name, Ty::Pred)?, true))
            }
            _ => Ok((self.source(operand, Ty::Pred)?, false)),
        }
    }

    /// `N` sources of types that Rust knows.
    pub(super) fn sources<A: Word, const N: usize>(
        &mut self,
        operands: &[Operand],
        ty: Ty,
    ) -> Result<[Reg; N], LoadError> {
        debug_assert!(A::CLASS == ty.class());
        let mut regs = [Reg { class: Class::Word, index: 0, bits: 0 }; N];
        if operands.len() != N {
            return Err(self.error(format!("{} sources, {N} wanted", operands.len())));
        }
        for (reg, operand) in regs.iter_mut().zip(operands) {
            *reg = self.source(operand, ty)?;
        }
        Ok(regs)
    }

    /// Demands a number of operands.
    pub(super) fn count(&self, operands: &[Operand], wanted: &[usize]) -> Result<(), LoadError> {
        if wanted.contains(&operands.len()) {
            return Ok(());
        }
        Err(self.error(format!("{} operands, {wanted:?} wanted", operands.len())))
    }

    /// `[base + offset]`.
    pub(super) fn address(&mut self, operand: &Operand) -> Result<Address, LoadError> {
        let Operand::Mem(base, offset) = operand else {
            return Err(self.error(format!("{operand:?} is no address")));
        };
        let Some(name) = base else {
            let base = self.constant(Ty::U(64), *offset as u64);
            return Ok(Address { base, offset: 0, meaning: None });
        };
        let meaning = self.lookup(name)?;
        let at = match meaning {
            Meaning::Reg(base) => {
                if base.class == Class::Pred {
                    return Err(self.error("a predicate for an address"));
                }
                return Ok(Address { base, offset: *offset, meaning: None });
            }
            Meaning::Local(at)
            | Meaning::LocalParam(at)
            | Meaning::Shared(at)
            | Meaning::Param(at)
            | Meaning::Global(at)
            | Meaning::Const(at) => at,
        };
        let base = self.constant(Ty::U(64), at);
        Ok(Address { base, offset: *offset, meaning: Some(meaning) })
    }

    /// Room in the thread's local memory.
    pub(super) fn local_slot(&mut self, size: u64, align: u64) -> u64 {
        let at = self.local.next_multiple_of(align.max(1));
        self.local = at + size;
        at
    }

    pub(super) fn shared_slot(&mut self, size: u64, align: u64) -> u64 {
        let at = self.shared.next_multiple_of(align.max(1));
        self.shared = at + size;
        at
    }
}
