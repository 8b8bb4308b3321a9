//! From text to code: each function of a module to instructions that run.

mod builder;
mod carry;
mod compare;
mod control;
mod convert;
mod copy;
mod float;
mod function;
mod half;
mod integer;
mod logic;
mod memory;
mod mma;
mod mods;
mod target;
mod warp;

pub(crate) use builder::{Builder, Symbols};
pub(crate) use function::kernel;

use crate::error::LoadError;
use crate::exec::code::Action;
use crate::exec::regs::Pure;
use crate::ptx::Statement;
use mods::Mods;

/// What a family of instructions makes of one.
type Decoded = Result<Action, LoadError>;

fn pure(run: Pure) -> Decoded {
    Ok(Action::Pure(run))
}

/// The one place where opcodes are looked up.
fn statement(b: &mut Builder<'_>, s: &Statement) -> Decoded {
    let mut m = Mods::new(s);
    let least = target::least(s);
    if b.ast.target < least {
        let what = format!("`{}` before sm_{least}", s.name());
        return Err(LoadError::Unsupported { line: s.line, what });
    }
    match s.opcode[0].as_str() {
        "addc" | "subc" | "madc" => carry::decode(b, s, &mut m),
        "add" | "sub" | "mad" if s.opcode.iter().any(|part| part == "cc") => {
            carry::decode(b, s, &mut m)
        }
        "add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "abs" | "neg" | "fma" => {
            arithmetic(b, s, &mut m)
        }
        "mul24" | "mad24" | "sad" => integer::rare(b, s, &mut m),
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "lop3" | "prmt" | "bfe"
        | "bfi" | "brev" | "popc" | "clz" | "bfind" | "szext" | "bmsk" => {
            logic::decode(b, s, &mut m)
        }
        "dp4a" | "dp2a" => integer::dot(b, s, &mut m),
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign"
        | "testp" => float::functions(b, s, &mut m),
        "setp" => compare::setp(b, s, &mut m),
        "set" => compare::set(b, s, &mut m),
        "selp" => compare::selp(b, s, &mut m),
        "slct" => compare::slct(b, s, &mut m),
        "mov" => convert::mov(b, s, &mut m),
        "cvt" => convert::cvt(b, s, &mut m),
        "cvta" => memory::cvta(b, s, &mut m),
        "isspacep" => memory::isspacep(b, s, &mut m),
        "ld" | "ldu" => memory::load(b, s, &mut m),
        "st" => memory::store(b, s, &mut m),
        "atom" | "red" => memory::atomic(b, s, &mut m),
        "prefetch" | "prefetchu" | "discard" | "applypriority" => memory::prefetch(b, s),
        "cp" => copy::decode(b, s, &mut m),
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" | "membar" | "fence"
        | "bar" | "barrier" | "pmevent" => control::decode(b, s, &mut m),
        "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => warp::decode(b, s, &mut m),
        "ldmatrix" | "mma" | "movmatrix" => mma::decode(b, s, &mut m),
        _ => Err(m.unsupported()),
    }
}

/// Opcodes shared by integers, floats and half floats.
fn arithmetic(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    match m.last() {
        "f16" | "bf16" | "f16x2" | "bf16x2" => half::decode(b, s, m),
        "f32" | "f64" => float::arithmetic(b, s, m),
        _ => integer::decode(b, s, m),
    }
}
