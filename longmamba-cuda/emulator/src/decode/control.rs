//! Where to go on, and waiting.

use super::mods::{Mods, Ty};
use super::{Builder, Decoded};
use crate::exec::code::{Action, Barrier, Members, Reduce, ReduceOp};
use crate::ptx::{Operand, Statement};

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    match s.opcode[0].as_str() {
        "bra" => {
            m.take("uni");
            m.end()?;
            b.count(&s.operands, &[1])?;
            let Operand::Name(target, 0) = &s.operands[0] else {
                return Err(b.error("a branch to something else than a label"));
            };
            b.branches.push((b.code.len(), b.scope, vec![target.clone()]));
            Ok(Action::Branch(0))
        }
        "brx" => {
            m.take("uni");
            if !m.take("idx") {
                return Err(m.unsupported());
            }
            m.end()?;
            b.count(&s.operands, &[2])?;
            let index = b.source(&s.operands[0], Ty::U(32))?;
            let Operand::Name(table, 0) = &s.operands[1] else {
                return Err(b.error("a table of targets by name"));
            };
            let mut scope = Some(b.scope);
            while let Some(at) = scope {
                if let Some(targets) = b.scopes[at].tables.get(table) {
                    b.branches.push((b.code.len(), b.scope, targets.clone()));
                    return Ok(Action::BranchIndexed(index, Vec::new()));
                }
                scope = b.scopes[at].parent;
            }
            Err(b.error(format!("no table `{table}`")))
        }
        "ret" | "exit" => {
            m.take("uni");
            m.end()?;
            Ok(Action::Exit)
        }
        "trap" | "brkpt" => {
            m.end()?;
            Ok(Action::Trap)
        }
        "nanosleep" | "pmevent" => Ok(Action::Nothing),
        "membar" | "fence" => fence(b, m),
        _ => barrier(b, s, m),
    }
}

/// Within a block, memory is in order anyhow; a fence of the device lets blocks hand over data.
fn fence(b: &mut Builder<'_>, m: &mut Mods<'_>) -> Decoded {
    m.any(&["sc", "acq_rel", "acquire", "release"]);
    let wide = m.any(&["gl", "gpu", "sys"]).is_some();
    if !wide && m.any(&["cta"]).is_none() {
        return Err(m.unsupported());
    }
    m.end()?;
    b.ordered |= wide;
    Ok(Action::Nothing)
}

fn barrier(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    m.take("cta");
    if m.take("warp") {
        m.take("sync");
        m.end()?;
        b.count(&s.operands, &[1])?;
        let members = b.source(&s.operands[0], Ty::B(32))?;
        return Ok(Action::Collective(
            Members::Live(members),
            // A meeting of some lanes counts as one of all: their clock is the warp's. A race between
            // lanes that met and lanes that did not may be missed.
            Box::new(|warp, cta, _| {
                cta.shared.sync_warp(warp.index as usize);
                Ok(())
            }),
        ));
    }
    m.take("aligned");
    let Some(kind) = m.any(&["sync", "arrive", "red"]) else { return Err(m.unsupported()) };
    if kind == "red" {
        let Some(op) = m.any(&["popc", "and", "or"]) else { return Err(m.unsupported()) };
        let ty = m.ty()?;
        let popc = op == "popc";
        if ty != if popc { Ty::U(32) } else { Ty::Pred } {
            return Err(m.unsupported());
        }
        b.count(&s.operands, &[3, 4])?;
        let dest = b.dest(&s.operands[0], ty)?;
        let id = b.source(&s.operands[1], Ty::U(32))?;
        let last = s.operands.len() - 1;
        let count = if last == 3 { Some(b.source(&s.operands[2], Ty::U(32))?) } else { None };
        let (source, negated) = b.predicate(&s.operands[last])?;
        let op = match op {
            "popc" => ReduceOp::Popc,
            "and" => ReduceOp::And,
            _ => ReduceOp::Or,
        };
        let reduce = Some(Reduce { op, source, negated, dest });
        return Ok(Action::Barrier(Barrier { id, count, arrive: false, reduce }));
    }
    m.end()?;
    b.count(&s.operands, &[1, 2])?;
    let id = b.source(&s.operands[0], Ty::U(32))?;
    let count = s.operands.get(1).map(|count| b.source(count, Ty::U(32))).transpose()?;
    let arrive = kind == "arrive";
    if arrive && count.is_none() {
        return Err(b.error("bar.arrive needs a number of threads"));
    }
    Ok(Action::Barrier(Barrier { id, count, arrive, reduce: None }))
}
