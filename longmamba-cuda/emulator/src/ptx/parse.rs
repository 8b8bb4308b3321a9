//! Tokens to a module: directives, variables, the heads of functions.

use super::{Ast, Function, Init, Lexer, Space, Token, Variable, body};
use crate::error::LoadError;

/// Takes a module apart.
pub(crate) fn parse(text: &str) -> Result<Ast, LoadError> {
    // NVRTC hands out the terminating NUL with the text.
    let mut lexer = Lexer::new(text.trim_end_matches('\0'))?;
    let mut ast = Ast::default();
    while lexer.peek().is_some() {
        module_item(&mut lexer, &mut ast)?;
    }
    if ast.version == 0 || ast.target == 0 {
        return Err(LoadError::Syntax { line: 1, what: "no `.version` or no `.target`".into() });
    }
    Ok(ast)
}

fn module_item(lexer: &mut Lexer, ast: &mut Ast) -> Result<(), LoadError> {
    let mut external = false;
    loop {
        let line = lexer.line();
        let word = lexer.word()?;
        match word.as_str() {
            ".version" => {
                // The lexer reads `8.0` as a number, and a word that starts with a dot.
                let major = lexer.int()? as u32;
                let minor = lexer.word()?;
                let minor: u32 = minor
                    .trim_start_matches('.')
                    .parse()
                    .map_err(|_| lexer.error("a version is two numbers"))?;
                ast.version = major * 10 + minor;
            }
            ".target" => loop {
                let target = lexer.word()?;
                if let Some(number) = target.strip_prefix("sm_") {
                    if let Some(number) = number.strip_suffix(['a', 'f']) {
                        return Err(LoadError::Unsupported {
                            line,
                            what: format!(".target sm_{number} with features of one chip"),
                        });
                    }
                    ast.target = number.parse().map_err(|_| lexer.error("bad target"))?;
                }
                if !lexer.take(',') {
                    break;
                }
            },
            ".address_size" => {
                if lexer.int()? != 64 {
                    return Err(LoadError::Unsupported { line, what: ".address_size 32".into() });
                }
            }
            ".file" => skip_line(lexer, line)?,
            ".visible" | ".weak" | ".common" => continue,
            ".extern" => {
                external = true;
                continue;
            }
            ".global" | ".const" | ".shared" => {
                let space = space(&word).expect("one of the three");
                variables(lexer, space, external, &mut ast.variables)?;
            }
            ".entry" | ".func" => ast.functions.push(function(lexer, word == ".entry", line)?),
            _ => {
                return Err(LoadError::Unsupported { line, what: format!("directive `{word}`") });
            }
        }
        return Ok(());
    }
}

pub(super) fn space(word: &str) -> Option<Space> {
    Some(match word {
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        ".param" => Space::Param,
        _ => return None,
    })
}

/// Skips what is left of a line that ends without a semicolon.
pub(super) fn skip_line(lexer: &mut Lexer, line: u32) -> Result<(), LoadError> {
    while lexer.peek().is_some() && lexer.line() == line {
        lexer.next()?;
    }
    Ok(())
}

/// Bytes of a type.
pub(super) fn type_size(lexer: &Lexer, word: &str) -> Result<u64, LoadError> {
    Ok(match word {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return Err(lexer.error(&format!("`{word}` is no type of a variable"))),
    })
}

/// One or more variables of a space, after the word of the space, to the semicolon.
pub(super) fn variables(
    lexer: &mut Lexer,
    space: Space,
    external: bool,
    into: &mut Vec<Variable>,
) -> Result<(), LoadError> {
    let mut variable = variable(lexer, space, external)?;
    loop {
        let next = Variable { init: Vec::new(), ..variable.clone() };
        into.push(variable);
        if !lexer.take(',') {
            break;
        }
        let size = next.element;
        variable = Variable { name: lexer.word()?, size, ..next };
        dimensions(lexer, &mut variable)?;
    }
    lexer.expect(';')
}

fn variable(lexer: &mut Lexer, space: Space, external: bool) -> Result<Variable, LoadError> {
    let mut align = None;
    let mut lanes = 1;
    let element = loop {
        let word = lexer.word()?;
        match word.as_str() {
            ".align" => align = Some(lexer.int()? as u64),
            ".v2" => lanes = 2,
            ".v4" => lanes = 4,
            // Of kernel parameters: what the pointer points at; a hint.
            ".ptr" | ".global" | ".const" | ".shared" | ".local" | ".attribute" => {
                if word == ".attribute" {
                    return Err(lexer.error(".attribute is unsupported"));
                }
            }
            _ => break type_size(lexer, &word)? * lanes,
        }
    };
    // `.param .u64 .ptr .global .align 4 name`
    let name = loop {
        let word = lexer.word()?;
        match word.as_str() {
            ".align" => _ = lexer.int()?,
            ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
            _ => break word,
        }
    };
    let align = align.unwrap_or(element).max(1);
    let mut variable =
        Variable { name, space, align, size: element, element, init: Vec::new(), external };
    dimensions(lexer, &mut variable)?;
    if lexer.take('=') {
        initialiser(lexer, &mut variable)?;
    }
    Ok(variable)
}

fn dimensions(lexer: &mut Lexer, variable: &mut Variable) -> Result<(), LoadError> {
    while lexer.take('[') {
        if lexer.take(']') {
            variable.size = 0;
            continue;
        }
        let count = u64::try_from(lexer.int()?).map_err(|_| lexer.error("a negative size"))?;
        variable.size = variable
            .size
            .checked_mul(count)
            .filter(|size| *size < 1 << 40)
            .ok_or_else(|| lexer.error("an array too large"))?;
        lexer.expect(']')?;
    }
    Ok(())
}

fn initialiser(lexer: &mut Lexer, variable: &mut Variable) -> Result<(), LoadError> {
    let size = variable.element as usize;
    if lexer.take('{') {
        let mut depth = 1;
        while depth > 0 {
            if lexer.take('{') {
                depth += 1;
            } else if lexer.take('}') {
                depth -= 1;
            } else if !lexer.take(',') {
                variable.init.push(value(lexer, size)?);
            }
        }
        if variable.size == 0 {
            variable.size = (variable.init.len() * size) as u64;
        }
    } else {
        variable.init.push(value(lexer, size)?);
    }
    if (variable.init.len() * size) as u64 > variable.size {
        return Err(lexer.error("more initial values than elements"));
    }
    Ok(())
}

fn value(lexer: &mut Lexer, size: usize) -> Result<Init, LoadError> {
    if let Some(Token::Word(word)) = lexer.peek().cloned() {
        lexer.next()?;
        // Global addresses are generic ones too.
        let symbol = if word == "generic" {
            lexer.expect('(')?;
            let name = lexer.word()?;
            lexer.expect(')')?;
            name
        } else {
            word
        };
        let offset = if lexer.take('+') { lexer.int()? as i64 } else { 0 };
        if size != 8 {
            return Err(lexer.error("an address needs eight bytes"));
        }
        return Ok(Init::Address { symbol, offset });
    }
    let negative = lexer.take('-');
    let bits = match lexer.next()? {
        Token::Int(value) => (if negative { -value } else { value }) as u128 as u64,
        Token::F32(bits) => bits.into(),
        Token::F64(bits) => bits,
        other => return Err(lexer.error(&format!("{other:?} cannot initialise a variable"))),
    };
    Ok(Init::Bytes(bits.to_le_bytes()[..size.min(8)].to_vec()))
}

fn params(lexer: &mut Lexer) -> Result<Vec<Variable>, LoadError> {
    let mut params = Vec::new();
    lexer.expect('(')?;
    while !lexer.take(')') {
        let word = lexer.word()?;
        if word != ".param" {
            return Err(lexer.error(&format!("parameter in `{word}`, not in .param")));
        }
        params.push(variable(lexer, Space::Param, false)?);
        lexer.take(',');
    }
    Ok(params)
}

fn function(lexer: &mut Lexer, entry: bool, line: u32) -> Result<Function, LoadError> {
    if lexer.at_word(".attribute") {
        return Err(lexer.error("attributes of functions are unsupported"));
    }
    let returns = if lexer.peek() == Some(&Token::Mark('(')) { params(lexer)? } else { Vec::new() };
    let name = lexer.word()?;
    let params = if lexer.peek() == Some(&Token::Mark('(')) { params(lexer)? } else { Vec::new() };
    let mut function = Function {
        name,
        line,
        entry,
        params,
        returns,
        body: Vec::new(),
        max_threads: None,
        required: None,
        declaration: false,
    };
    loop {
        if lexer.take(';') {
            function.declaration = true;
            return Ok(function);
        }
        if lexer.take('{') {
            function.body = body::body(lexer)?;
            return Ok(function);
        }
        let word = lexer.word()?;
        match word.as_str() {
            ".maxntid" | ".reqntid" => {
                let mut size = [1_u32; 3];
                for side in &mut size {
                    *side = lexer.int()? as u32;
                    if !lexer.take(',') {
                        break;
                    }
                }
                function.max_threads = Some(size.iter().product());
                if word == ".reqntid" {
                    function.required = Some(size);
                }
            }
            ".minnctapersm" | ".maxnctapersm" | ".maxnreg" => _ = lexer.int()?,
            ".noreturn" => {}
            ".pragma" => {
                lexer.next()?;
                lexer.take(';');
            }
            _ => return Err(lexer.error(&format!("directive `{word}` of a function"))),
        }
    }
}
