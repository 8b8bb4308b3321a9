//! The text of a PTX module, taken apart. Nothing here knows what an instruction means.

mod body;
mod lex;
mod parse;

pub(crate) use lex::{Lexer, Token};
pub(crate) use parse::parse;

/// One operand as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, a variable, a label or a function, perhaps with an offset.
    Name(String, i64),
    /// `!%p`.
    Not(String),
    /// An integer.
    Int(i128),
    /// `0f…`.
    F32(u32),
    /// `0d…`.
    F64(u64),
    /// `[base + offset]`; without a base it is an absolute address.
    Mem(Option<String>, i64),
    /// `{a, b, …}`.
    Vector(Vec<Operand>),
    /// `%p|%q`.
    Pair(String, String),
    /// `(a, b)`, the arguments of a call.
    Group(Vec<Operand>),
}

/// One instruction as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// The line of the text.
    pub line: u32,
    /// The predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode and its modifiers, split at the dots.
    pub opcode: Vec<String>,
    /// Destination first.
    pub operands: Vec<Operand>,
}

impl Statement {
    /// The opcode with its modifiers, as it was written.
    pub fn name(&self) -> String {
        self.opcode.join(".")
    }
}

/// The state space of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A value in an initialiser.
#[derive(Clone, Debug)]
pub(crate) enum Init {
    /// The bytes of one element.
    Bytes(Vec<u8>),
    /// The address of another variable plus an offset.
    Address { symbol: String, offset: i64 },
}

/// A variable or a parameter.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub name: String,
    pub space: Space,
    pub align: u64,
    /// Bytes; zero for an array of open size.
    pub size: u64,
    /// Bytes of an element.
    pub element: u64,
    pub init: Vec<Init>,
    pub external: bool,
}

/// What stands in the body of a function.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `.reg .b32 %r<8>`: type, prefix, count where the registers are numbered.
    Registers {
        kind: String,
        name: String,
        count: Option<u32>,
        line: u32,
    },
    Variable(Variable),
    Label(String),
    /// `name: .branchtargets a, b`
    Targets(String, Vec<String>),
    Statement(Statement),
}

/// A kernel or a device function.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub name: String,
    pub line: u32,
    pub entry: bool,
    pub params: Vec<Variable>,
    pub returns: Vec<Variable>,
    pub body: Vec<Item>,
    /// The product of `.maxntid` or `.reqntid`.
    pub max_threads: Option<u32>,
    /// `.reqntid`, where given.
    pub required: Option<[u32; 3]>,
    /// Only declared.
    pub declaration: bool,
}

/// A whole module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ast {
    /// `.version`, major times ten plus minor.
    pub version: u32,
    /// `.target`, the number after `sm_`.
    pub target: u32,
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
}
