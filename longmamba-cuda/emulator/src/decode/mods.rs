//! The modifiers of an opcode. Whoever decodes an instruction takes those that it knows, then asks
//! for the types; should anything else be left, the instruction is unknown.

use crate::error::LoadError;
use crate::exec::regs::Class;
use crate::num::Round;
use crate::ptx::Statement;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ty {
    Pred,
    U(u32),
    S(u32),
    B(u32),
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
}

impl Ty {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pred" => Ty::Pred,
            "f16" => Ty::F16,
            "bf16" => Ty::Bf16,
            "f16x2" => Ty::F16x2,
            "bf16x2" => Ty::Bf16x2,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            _ => {
                let bits = match text.get(1..)? {
                    "8" => 8,
                    "16" => 16,
                    "32" => 32,
                    "64" => 64,
                    _ => return None,
                };
                match &text[..1] {
                    "u" => Ty::U(bits),
                    "s" => Ty::S(bits),
                    "b" => Ty::B(bits),
                    _ => return None,
                }
            }
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::U(bits) | Ty::S(bits) | Ty::B(bits) => bits,
            Ty::F16 | Ty::Bf16 => 16,
            Ty::F32 | Ty::F16x2 | Ty::Bf16x2 => 32,
            Ty::F64 => 64,
        }
    }

    pub fn bytes(self) -> u32 {
        self.bits() / 8
    }

    pub fn class(self) -> Class {
        match self.bits() {
            1 => Class::Pred,
            64 => Class::Long,
            _ => Class::Word,
        }
    }

    pub fn signed(self) -> bool {
        matches!(self, Ty::S(_))
    }
}

/// What is left of the modifiers.
#[derive(Debug)]
pub(crate) struct Mods<'a> {
    statement: &'a Statement,
    left: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    pub fn new(statement: &'a Statement) -> Self {
        Self { statement, left: statement.opcode[1..].iter().map(String::as_str).collect() }
    }

    /// Takes a modifier if it is there.
    pub fn take(&mut self, name: &str) -> bool {
        match self.left.iter().position(|part| *part == name) {
            Some(at) => {
                self.left.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes the first of these modifiers that is there.
    pub fn any(&mut self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.take(name))
    }

    /// Takes all modifiers that a test accepts: hints without a meaning here.
    pub fn ignore(&mut self, hint: impl Fn(&str) -> bool) {
        self.left.retain(|part| !hint(part));
    }

    /// The last modifier, which is the type where there is one.
    pub fn last(&self) -> &'a str {
        self.left.last().copied().unwrap_or("")
    }

    /// A rounding mode of floats.
    pub fn round(&mut self) -> Option<Round> {
        self.any(&["rn", "rz", "rm", "rp"]).map(|name| match name {
            "rn" => Round::Near,
            "rz" => Round::Zero,
            "rm" => Round::Down,
            _ => Round::Up,
        })
    }

    /// A rounding mode to integers.
    pub fn round_int(&mut self) -> Option<Round> {
        self.any(&["rni", "rzi", "rmi", "rpi"]).map(|name| match name {
            "rni" => Round::Near,
            "rzi" => Round::Zero,
            "rmi" => Round::Down,
            _ => Round::Up,
        })
    }

    /// The types, which are all that may be left.
    pub fn types<const N: usize>(&mut self) -> Result<[Ty; N], LoadError> {
        let types: Option<Vec<Ty>> = self.left.iter().map(|part| Ty::parse(part)).collect();
        let types = types.and_then(|types| <[Ty; N]>::try_from(types).ok());
        self.left.clear();
        types.ok_or_else(|| self.unsupported())
    }

    pub fn ty(&mut self) -> Result<Ty, LoadError> {
        self.types::<1>().map(|[ty]| ty)
    }

    /// Nothing may be left.
    pub fn end(&mut self) -> Result<(), LoadError> {
        self.types::<0>().map(|_| ())
    }

    /// What is left, whatever it is.
    pub fn rest(&self) -> &[&'a str] {
        &self.left
    }

    pub fn unsupported(&self) -> LoadError {
        LoadError::Unsupported {
            line: self.statement.line,
            what: format!("`{}`", self.statement.name()),
        }
    }
}
