//! A kernel from its function and those that it calls. Calls are inlined: each call has registers
//! and variables of its own, so there is no stack; recursion is refused.

use super::builder::{Builder, Meaning, Scope, Symbols};
use super::mods::Ty;
use super::statement;
use crate::error::LoadError;
use crate::exec::code::{Action, Instruction, Kernel};
use crate::ptx::{Ast, Function, Item, Operand, Space, Statement, Variable};

/// More instructions than that do not fit the record of accesses to shared memory.
const LONGEST: usize = 1 << 21;

/// Makes a kernel ready to run.
pub(crate) fn kernel(
    ast: &Ast,
    symbols: &Symbols,
    function: &Function,
) -> Result<Kernel, LoadError> {
    let first = build(ast, symbols, function, 0)?;
    // Variables of open size begin where those of known size end, which only now is known.
    let dynamic = first.shared.next_multiple_of(first.dynamic_align);
    let b = if dynamic == 0 || first.dynamic.is_empty() {
        first
    } else {
        build(ast, symbols, function, dynamic)?
    };
    finish(b, function, dynamic)
}

fn build<'a>(
    ast: &'a Ast,
    symbols: &'a Symbols,
    function: &Function,
    dynamic: u64,
) -> Result<Builder<'a>, LoadError> {
    let mut b = Builder::new(ast, symbols);
    b.line = function.line;
    for variable in ast.variables.iter().filter(|variable| variable.space == Space::Shared) {
        declare_shared(&mut b, variable, dynamic);
    }
    let mut scope = Scope::default();
    for (param, at) in function.params.iter().zip(param_offsets(&function.params).0) {
        scope.names.insert(param.name.clone(), Meaning::Param(at));
    }
    b.frames.push(function.name.clone());
    b.scopes.push(scope);
    body(&mut b, function)?;
    b.code.push(Instruction {
        action: Action::Exit,
        guard: None,
        line: function.line,
        name: "the end of the function".into(),
    });
    if b.code.len() > LONGEST {
        return Err(b.error("a kernel of more than two million instructions"));
    }
    Ok(b)
}

/// Where each parameter lies, and how many bytes all take.
fn param_offsets(params: &[Variable]) -> (Vec<u64>, u64) {
    let mut size = 0_u64;
    let mut offsets = Vec::new();
    for param in params {
        size = size.next_multiple_of(param.align);
        offsets.push(size);
        size += param.size;
    }
    (offsets, size)
}

fn finish(b: Builder<'_>, function: &Function, dynamic_shared: u64) -> Result<Kernel, LoadError> {
    let (param_offsets, param_size) = param_offsets(&function.params);
    if b.local > 512 << 10 || b.shared > 48 << 10 {
        return Err(b.error("more local or static shared memory than a kernel may have"));
    }
    Ok(Kernel {
        name: function.name.clone(),
        preds: b.preds,
        words: b.words,
        longs: b.longs,
        constants: b.constants(),
        specials: b.specials.iter().map(|(special, reg)| (*reg, *special)).collect(),
        params: function.params.clone(),
        param_offsets,
        param_size,
        local: b.local as u32,
        shared: b.shared as u32,
        dynamic_shared: dynamic_shared as u32,
        max_threads: function.max_threads,
        required: function.required,
        ordered: b.ordered,
        code: b.code,
    })
}

fn declare_shared(b: &mut Builder<'_>, variable: &Variable, dynamic: u64) {
    if variable.external && variable.size == 0 {
        b.dynamic.push(variable.name.clone());
        b.dynamic_align = b.dynamic_align.max(variable.align).max(16);
        b.shared_names.insert(variable.name.clone(), dynamic);
    } else {
        let at = b.shared_slot(variable.size, variable.align);
        b.shared_names.insert(variable.name.clone(), at);
    }
}

/// Appends the code of a function whose outermost scope was just pushed.
fn body(b: &mut Builder<'_>, function: &Function) -> Result<(), LoadError> {
    let outer = b.scopes.len() - 1;
    b.scope = outer;
    let first_branch = b.branches.len();
    for item in &function.body {
        match item {
            Item::Open => {
                b.scopes.push(Scope { parent: Some(b.scope), ..Scope::default() });
                b.scope = b.scopes.len() - 1;
            }
            Item::Close => b.scope = b.scopes[b.scope].parent.unwrap_or(outer),
            Item::Registers { kind, name, count, line } => {
                b.line = *line;
                registers(b, kind, name, *count)?;
            }
            Item::Variable(variable) => {
                let meaning = match variable.space {
                    Space::Local => Meaning::Local(b.local_slot(variable.size, variable.align)),
                    Space::Param => {
                        Meaning::LocalParam(b.local_slot(variable.size, variable.align))
                    }
                    Space::Shared => Meaning::Shared(b.shared_slot(variable.size, variable.align)),
                    Space::Global | Space::Const => {
                        return Err(b.error("a global variable inside a function"));
                    }
                };
                let scope = b.scope;
                b.scopes[scope].names.insert(variable.name.clone(), meaning);
            }
            Item::Label(name) => {
                let at = b.code.len() as u32;
                let scope = b.scope;
                b.scopes[scope].labels.insert(name.clone(), at);
            }
            Item::Targets(name, targets) => {
                let scope = b.scope;
                b.scopes[scope].tables.insert(name.clone(), targets.clone());
            }
            Item::Statement(found) => emit(b, found)?,
        }
    }
    let end = b.code.len() as u32;
    b.scopes[outer].labels.insert(RETURN.to_owned(), end);
    // Branches of this function, now that all labels are known.
    for (at, scope, names) in b.branches.split_off(first_branch) {
        b.line = b.code[at].line;
        let targets: Result<Vec<u32>, LoadError> =
            names.iter().map(|name| label(b, scope, name)).collect();
        let targets = targets?;
        match &mut b.code[at].action {
            Action::Branch(target) => *target = targets[0],
            Action::BranchIndexed(_, table) => *table = targets,
            _ => unreachable!("only branches are recorded"),
        }
    }
    Ok(())
}

fn label(b: &Builder<'_>, scope: usize, name: &str) -> Result<u32, LoadError> {
    let mut at = Some(scope);
    while let Some(scope) = at {
        if let Some(pc) = b.scopes[scope].labels.get(name) {
            return Ok(*pc);
        }
        at = b.scopes[scope].parent;
    }
    Err(b.error(format!("no label `{name}`")))
}

fn registers(
    b: &mut Builder<'_>,
    kind: &str,
    name: &str,
    count: Option<u32>,
) -> Result<(), LoadError> {
    let ty = kind.strip_prefix('.').and_then(Ty::parse);
    let Some(ty) = ty else {
        return Err(b.error(format!("registers of type `{kind}`")));
    };
    let mut declare = |name: String| {
        let reg = b.register(ty.bits());
        let scope = b.scope;
        b.scopes[scope].names.insert(name, Meaning::Reg(reg));
    };
    match count {
        None => declare(name.to_owned()),
        Some(count) => (0..count.min(1 << 20)).for_each(|i| declare(format!("{name}{i}"))),
    }
    Ok(())
}

fn emit(b: &mut Builder<'_>, s: &Statement) -> Result<(), LoadError> {
    b.line = s.line;
    let guard = match &s.guard {
        None => None,
        Some((name, negated)) => {
            let reg = b.source(&Operand::Name(name.clone(), 0), Ty::Pred)?;
            Some((reg.index, *negated))
        }
    };
    if s.opcode[0] == "call" {
        return call(b, s, guard);
    }
    let action = if b.frames.len() > 1 && s.opcode[0] == "ret" {
        // Back to behind the call; the name cannot be one of the text.
        b.branches.push((b.code.len(), b.scope, vec![RETURN.to_owned()]));
        Action::Branch(0)
    } else {
        statement(b, s)?
    };
    b.code.push(Instruction { action, guard, line: s.line, name: s.name().into() });
    Ok(())
}

/// The label behind an inlined function.
const RETURN: &str = "return";

fn call(b: &mut Builder<'_>, s: &Statement, guard: Option<(u32, bool)>) -> Result<(), LoadError> {
    let unknown = || LoadError::Unsupported { line: s.line, what: format!("`{}`", s.name()) };
    if !matches!(s.opcode[1..].iter().map(String::as_str).collect::<Vec<_>>()[..], [] | ["uni"]) {
        return Err(unknown());
    }
    let none: &[Operand] = &[];
    let (returns, name, args) = match s.operands.as_slice() {
        [Operand::Group(returns), Operand::Name(name, 0), Operand::Group(args)] => {
            (returns.as_slice(), name, args.as_slice())
        }
        [Operand::Group(returns), Operand::Name(name, 0)] => (returns.as_slice(), name, none),
        [Operand::Name(name, 0), Operand::Group(args)] => (none, name, args.as_slice()),
        [Operand::Name(name, 0)] => (none, name, none),
        _ => return Err(b.error("a call through a pointer")),
    };
    let ast = b.ast;
    let Some(function) =
        ast.functions.iter().find(|f| f.name == *name && !f.entry && !f.declaration)
    else {
        return match name.as_str() {
            "__assertfail" | "vprintf" => {
                Err(LoadError::Unsupported { line: s.line, what: format!("the call of `{name}`") })
            }
            _ => Err(b.error(format!("no function `{name}` to call"))),
        };
    };
    if b.frames.contains(name) {
        return Err(b.error(format!("`{name}` calls itself")));
    }
    let mut scope = Scope::default();
    for (formal, actual) in [(&function.params, args), (&function.returns, returns)] {
        if formal.len() != actual.len() {
            return Err(b.error(format!("wrong number of arguments for `{name}`")));
        }
        for (formal, actual) in formal.iter().zip(actual) {
            let Operand::Name(actual, 0) = actual else {
                return Err(b.error("an argument that is no .param variable"));
            };
            let meaning @ Meaning::LocalParam(_) = b.lookup(actual)? else {
                return Err(b.error("an argument that is no .param variable"));
            };
            scope.names.insert(formal.name.clone(), meaning);
        }
    }
    // Those whose guard is false jump over the inlined code.
    let around = b.code.len();
    if let Some((pred, negated)) = guard {
        b.code.push(Instruction {
            action: Action::Branch(0),
            guard: Some((pred, !negated)),
            line: s.line,
            name: s.name().into(),
        });
    }
    let caller = b.scope;
    b.frames.push(name.clone());
    b.scopes.push(scope);
    body(b, function)?;
    b.frames.pop();
    b.scope = caller;
    if guard.is_some() {
        b.code[around].action = Action::Branch(b.code.len() as u32);
    }
    Ok(())
}
