//! The body of a function: declarations, labels, instructions.

use super::parse::{skip_line, space, variables};
use super::{Item, Lexer, Operand, Statement, Token};
use crate::error::LoadError;

/// Everything between the braces of a function, after the opening one.
pub(super) fn body(lexer: &mut Lexer) -> Result<Vec<Item>, LoadError> {
    let mut items = Vec::new();
    let mut depth = 0;
    loop {
        let line = lexer.line();
        if lexer.take('{') {
            depth += 1;
            items.push(Item::Open);
            continue;
        }
        if lexer.take('}') {
            if depth == 0 {
                return Ok(items);
            }
            depth -= 1;
            items.push(Item::Close);
            continue;
        }
        if lexer.take(';') {
            continue;
        }
        let guard = guard(lexer)?;
        let word = lexer.word()?;
        if guard.is_none() {
            if lexer.take(':') {
                items.push(label(lexer, word)?);
                continue;
            }
            if word.starts_with('.') {
                directive(lexer, &word, line, &mut items)?;
                continue;
            }
        }
        let opcode = word.split('.').map(str::to_owned).collect();
        let operands = operands(lexer)?;
        items.push(Item::Statement(Statement { line, guard, opcode, operands }));
    }
}

fn guard(lexer: &mut Lexer) -> Result<Option<(String, bool)>, LoadError> {
    if !lexer.take('@') {
        return Ok(None);
    }
    let negated = lexer.take('!');
    Ok(Some((lexer.word()?, negated)))
}

fn label(lexer: &mut Lexer, name: String) -> Result<Item, LoadError> {
    if !lexer.at_word(".branchtargets") {
        return Ok(Item::Label(name));
    }
    lexer.word()?;
    let mut targets = vec![lexer.word()?];
    while lexer.take(',') {
        targets.push(lexer.word()?);
    }
    lexer.expect(';')?;
    Ok(Item::Targets(name, targets))
}

fn directive(
    lexer: &mut Lexer,
    word: &str,
    line: u32,
    items: &mut Vec<Item>,
) -> Result<(), LoadError> {
    match word {
        ".reg" => {
            let kind = lexer.word()?;
            loop {
                let name = lexer.word()?;
                let mut count = None;
                if lexer.take('<') {
                    count = Some(lexer.int()? as u32);
                    lexer.expect('>')?;
                }
                items.push(Item::Registers { kind: kind.clone(), name, count, line });
                if !lexer.take(',') {
                    return lexer.expect(';');
                }
            }
        }
        ".pragma" => {
            lexer.next()?;
            lexer.expect(';')
        }
        ".loc" => skip_line(lexer, line),
        _ => {
            let Some(space) = space(word) else {
                return Err(LoadError::Unsupported { line, what: format!("directive `{word}`") });
            };
            let mut found = Vec::new();
            variables(lexer, space, false, &mut found)?;
            items.extend(found.into_iter().map(Item::Variable));
            Ok(())
        }
    }
}

fn operands(lexer: &mut Lexer) -> Result<Vec<Operand>, LoadError> {
    let mut operands = Vec::new();
    loop {
        if lexer.take(';') {
            return Ok(operands);
        }
        if !operands.is_empty() {
            lexer.expect(',')?;
        }
        operands.push(operand(lexer)?);
    }
}

fn list(lexer: &mut Lexer, end: char) -> Result<Vec<Operand>, LoadError> {
    let mut list = Vec::new();
    while !lexer.take(end) {
        if !list.is_empty() {
            lexer.expect(',')?;
        }
        list.push(operand(lexer)?);
    }
    Ok(list)
}

/// `+4`, `+-4`, `-4` or nothing.
fn offset(lexer: &mut Lexer) -> Result<i64, LoadError> {
    if lexer.take('+') || lexer.peek() == Some(&Token::Mark('-')) {
        return Ok(lexer.int()? as i64);
    }
    Ok(0)
}

fn operand(lexer: &mut Lexer) -> Result<Operand, LoadError> {
    if lexer.take('{') {
        return Ok(Operand::Vector(list(lexer, '}')?));
    }
    if lexer.take('(') {
        return Ok(Operand::Group(list(lexer, ')')?));
    }
    if lexer.take('[') {
        let operand = match lexer.peek() {
            Some(Token::Word(_)) => {
                let base = lexer.word()?;
                Operand::Mem(Some(base), offset(lexer)?)
            }
            _ => Operand::Mem(None, lexer.int()? as i64),
        };
        lexer.expect(']')?;
        return Ok(operand);
    }
    if lexer.take('!') {
        return Ok(Operand::Not(lexer.word()?));
    }
    if lexer.take('-') {
        return match lexer.next()? {
            Token::Int(value) => Ok(Operand::Int(-value)),
            other => Err(lexer.error(&format!("{other:?} after a minus sign"))),
        };
    }
    match lexer.next()? {
        Token::Int(value) => Ok(Operand::Int(value)),
        Token::F32(bits) => Ok(Operand::F32(bits)),
        Token::F64(bits) => Ok(Operand::F64(bits)),
        Token::Word(name) => {
            if lexer.take('|') {
                return Ok(Operand::Pair(name, lexer.word()?));
            }
            let offset = offset(lexer)?;
            Ok(Operand::Name(name, offset))
        }
        other => Err(lexer.error(&format!("unexpected {other:?}"))),
    }
}
