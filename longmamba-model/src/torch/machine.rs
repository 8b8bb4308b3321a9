//! The stack machine of pickle, as much of it as dictionaries of tensors need.

use super::globals::{self, Global};
use super::opcode as op;
use super::reader::Reader;
use super::value::{Id, Objects, Storage, Value};
use super::{Checked, malformed, refused, shown};
use std::collections::HashMap;

/// Bytes of a pickle. A model of a thousand tensors has about a quarter of a megabyte.
pub(super) const MAX_PICKLE: usize = 16 << 20;
/// Objects of a pickle, entries of its memo, and height of its stack. A tensor takes about ten.
pub(super) const MAX_OBJECTS: usize = 1 << 20;
/// Marks that are open at once. A state dict has three.
const MAX_MARKS: usize = 64;
/// Bytes of a module's or a function's name.
const MAX_NAME: usize = 200;

/// A pickle that has been run.
pub(super) struct Pickle<'a> {
    pub objects: Objects<'a>,
    pub root: Id,
    /// The byte after it.
    pub end: usize,
}

/// Runs the pickle that starts at byte `from` and ends before byte `to`, or earlier.
pub(super) fn run(bytes: &[u8], from: usize, to: usize) -> Checked<Pickle<'_>> {
    let to = to.min(from.saturating_add(MAX_PICKLE));
    let mut machine = Machine {
        input: Reader::new(bytes, from, to)?,
        objects: Objects::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    match machine.input.array()? {
        [op::PROTO, 2..=5] => {}
        [op::PROTO, protocol] => return refused(format!("pickle protocol {protocol}")),
        // 0 and 1 do not say which they are.
        _ => return refused("pickle protocol 0 or 1"),
    }
    loop {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { objects: machine.objects, root, end: machine.input.at() });
        }
    }
}

struct Machine<'a> {
    input: Reader<'a>,
    objects: Objects<'a>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// One opcode; the result at the last one.
    fn step(&mut self) -> Checked<Option<Id>> {
        let at = self.input.at();
        match self.input.u8()? {
            op::STOP => return self.stop().map(Some),
            op::FRAME => {
                // Frames are for readers that read from a pipe.
                let len = self.input.u64()?;
                if usize::try_from(len).map_or(true, |len| len > self.input.rest().len()) {
                    return malformed(format!("truncated: the frame at byte {at} has {len} bytes"));
                }
            }
            op::MARK if self.marks.len() < MAX_MARKS => self.marks.push(self.stack.len()),
            op::MARK => return malformed(format!("over {MAX_MARKS} marks are open at byte {at}")),

            op::NONE => self.add(Value::None)?,
            op::NEWTRUE => self.add(Value::Bool(true))?,
            op::NEWFALSE => self.add(Value::Bool(false))?,
            op::BININT => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.add(Value::Int(value.into()))?;
            }
            op::BININT1 => {
                let value = self.input.u8()?;
                self.add(Value::Int(value.into()))?;
            }
            op::BININT2 => {
                let value = self.input.u16()?;
                self.add(Value::Int(value.into()))?;
            }
            op::LONG1 => self.long(at)?,
            op::BINFLOAT => {
                self.input.take(8)?;
                self.add(Value::Float)?;
            }
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING => {
                let len = self.input.u8()?;
                self.text(len.into())?;
            }
            op::BINUNICODE | op::BINSTRING => {
                let len = self.input.u32()?;
                self.text(len.into())?;
            }
            op::BINUNICODE8 => {
                let len = self.input.u64()?;
                self.text(len)?;
            }

            op::EMPTY_TUPLE => self.add(Value::Tuple(Vec::new()))?,
            op::TUPLE1 => self.tuple(1)?,
            op::TUPLE2 => self.tuple(2)?,
            op::TUPLE3 => self.tuple(3)?,
            op::TUPLE => {
                let items = self.pop_mark()?;
                self.add(Value::Tuple(items))?;
            }
            op::EMPTY_LIST => self.add(Value::List(Vec::new()))?,
            op::APPEND => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            op::APPENDS => {
                let items = self.pop_mark()?;
                self.extend_list(&items)?;
            }
            op::EMPTY_DICT => self.add(Value::Dict(Vec::new()))?,
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])?;
            }
            op::SETITEMS => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }

            op::BINPUT => {
                let key = self.input.u8()?;
                self.remember(key.into())?;
            }
            op::LONG_BINPUT => {
                let key = self.input.u32()?;
                self.remember(key)?;
            }
            // The memo's size is at most `MAX_OBJECTS`.
            op::MEMOIZE => self.remember(self.memo.len() as u32)?,
            op::BINGET => {
                let key = self.input.u8()?;
                self.recall(key.into())?;
            }
            op::LONG_BINGET => {
                let key = self.input.u32()?;
                self.recall(key)?;
            }

            op::GLOBAL => {
                let (module, name) = (self.input.line(MAX_NAME)?, self.input.line(MAX_NAME)?);
                self.global(module, name)?;
            }
            op::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.objects.str(module), self.objects.str(name)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return malformed(format!("the global at byte {at} has no name")),
                }
            }
            op::BINPERSID => self.persistent()?,
            op::REDUCE => self.reduce()?,
            op::BUILD => self.build()?,

            opcode => {
                return refused(match op::name(opcode) {
                    Some(name) => format!("opcode {name} (0x{opcode:02x}) at byte {at}"),
                    None => format!("byte 0x{opcode:02x}, which is no opcode, at byte {at}"),
                });
            }
        }
        Ok(None)
    }

    /// Exactly one object must be left.
    fn stop(&mut self) -> Checked<Id> {
        match (&self.stack[..], &self.marks[..]) {
            ([root], []) => Ok(*root),
            (stack, marks) => {
                let (objects, marks) = (stack.len(), marks.len());
                malformed(format!(
                    "the pickle ends with {objects} objects and {marks} marks on its stack"
                ))
            }
        }
    }

    fn push(&mut self, id: Id) -> Checked<()> {
        if self.stack.len() >= MAX_OBJECTS {
            return malformed(format!("the pickle has a stack of more than {MAX_OBJECTS} objects"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn add(&mut self, value: Value<'a>) -> Checked<()> {
        let id = self.objects.add(value, MAX_OBJECTS)?;
        self.push(id)
    }

    /// The uppermost object; one below a mark cannot be reached.
    fn top(&self) -> Checked<Id> {
        let from = self.marks.last().copied().unwrap_or(0);
        match self.stack.get(from..).and_then(<[Id]>::last) {
            Some(&id) => Ok(id),
            None => malformed(format!(
                "the pickle's stack has no object for the opcode before byte {}",
                self.input.at()
            )),
        }
    }

    fn pop(&mut self) -> Checked<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// All objects above the last mark, which goes too.
    fn pop_mark(&mut self) -> Checked<Vec<Id>> {
        match self.marks.pop() {
            // Never above the stack, because `pop` stops at marks.
            Some(height) => Ok(self.stack.split_off(height)),
            None => malformed(format!(
                "the pickle's stack has no mark for the opcode before byte {}",
                self.input.at()
            )),
        }
    }

    fn text(&mut self, len: u64) -> Checked<()> {
        let text = self.input.text(len)?;
        self.add(Value::Str(text))
    }

    /// Two's complement, little-endian.
    fn long(&mut self, at: usize) -> Checked<()> {
        let len = self.input.u8()?;
        let digits = self.input.take(len.into())?;
        let negative = digits.last().is_some_and(|&last| last >= 0x80);
        let mut value = if negative { [0xff; 16] } else { [0; 16] };
        match value.get_mut(..digits.len()) {
            Some(low) => low.copy_from_slice(digits),
            None => return malformed(format!("the integer at byte {at} has {len} bytes")),
        }
        self.add(Value::Int(i128::from_le_bytes(value)))
    }

    fn tuple(&mut self, len: usize) -> Checked<()> {
        let mut items = vec![];
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.add(Value::Tuple(items))
    }

    fn extend_list(&mut self, items: &[Id]) -> Checked<()> {
        let target = self.top()?;
        match self.objects.get_mut(target) {
            Value::List(list) => list.extend_from_slice(items),
            _ => return refused(format!("items appended to {}", self.objects.kind(target))),
        }
        Ok(())
    }

    /// `items` alternates keys and values.
    fn extend_dict(&mut self, items: &[Id]) -> Checked<()> {
        let target = self.top()?;
        let (pairs, odd) = items.as_chunks::<2>();
        match self.objects.get_mut(target) {
            Value::Dict(dict) if odd.is_empty() => dict.extend(pairs.iter().map(|&[k, v]| (k, v))),
            Value::Dict(_) => {
                return malformed("a dictionary of the pickle has a key without value");
            }
            _ => return refused(format!("items set in {}", self.objects.kind(target))),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Checked<()> {
        if self.memo.len() >= MAX_OBJECTS {
            return malformed(format!("the pickle's memo has more than {MAX_OBJECTS} objects"));
        }
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Checked<()> {
        match self.memo.get(&key) {
            Some(&id) => self.push(id),
            None => malformed(format!("the pickle's memo has no object {key}")),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Checked<()> {
        match globals::find(module, name) {
            Some(global) => self.add(Value::Global(global)),
            None => refused(format!("{}.{}", shown(module), shown(name))),
        }
    }

    /// `("storage", type, key, device, elements)`, in a legacy file with None or a view at the end. On
    /// which device it was is of no interest.
    fn persistent(&mut self) -> Checked<()> {
        let id = self.pop()?;
        let text = |id: Id| self.objects.str(id);
        let Some([tag, class, key, _device, elements, view @ ..]) = self.objects.tuple(id) else {
            return refused("a persistent object that is no storage");
        };
        let Some("storage") = text(*tag) else {
            let tag = text(*tag).map_or("no name".into(), shown);
            return refused(format!("a persistent object of the kind {tag}"));
        };
        match view {
            [] => {}
            [none] if matches!(self.objects.get(*none), Value::None) => {}
            _ => return refused("a view of another storage, as torch 0.1 wrote them"),
        }
        let (&Value::Global(Global::Storage(dtype)), Some(key)) =
            (self.objects.get(*class), text(*key))
        else {
            return refused("a storage without a type or a key");
        };
        let elements = self.objects.int(*elements).and_then(|n| usize::try_from(n).ok());
        let Some(elements) = elements else {
            return malformed(format!("the size of storage {} is no size", shown(key)));
        };
        let index = self.objects.add_storage(Storage { key, dtype, elements })?;
        self.add(Value::Storage(index))
    }

    /// "Calls" a function: the result is written down, nothing is run.
    fn reduce(&mut self) -> Checked<()> {
        let (args, function) = (self.pop()?, self.pop()?);
        let (Some(args), &Value::Global(function)) =
            (self.objects.tuple(args), self.objects.get(function))
        else {
            return refused(format!("a call of {}", self.objects.kind(function)));
        };
        match (function, args) {
            (Global::OrderedDict, []) => self.add(Value::Dict(Vec::new())),
            // Few arguments, so that a long tuple cannot be copied over and over.
            (Global::Tensor, [_, _, _, _]) | (Global::TensorV2, [_, _, _, _, _, _]) => {
                let args = args.to_vec();
                self.add(Value::Tensor(args))
            }
            (Global::TensorV2, [.., metadata]) if args.len() == 7 => {
                // It says that the numbers are to be conjugated or negated.
                let plain = match self.objects.get(*metadata) {
                    Value::None => true,
                    Value::Dict(entries) => entries.is_empty(),
                    _ => false,
                };
                if !plain {
                    return refused("a tensor with metadata");
                }
                let args = args[..6].to_vec();
                self.add(Value::Tensor(args))
            }
            (Global::Parameter, [tensor, _, _])
                if matches!(self.objects.get(*tensor), Value::Tensor(_)) =>
            {
                let tensor = *tensor;
                self.push(tensor)
            }
            (function, args) => {
                refused(format!("a call of {function:?} with {} arguments", args.len()))
            }
        }
    }

    /// Attributes of a state dict, namely `_metadata`, the versions of its modules: dropped.
    fn build(&mut self) -> Checked<()> {
        let attributes = self.pop()?;
        let target = self.top()?;
        match (self.objects.get(target), self.objects.get(attributes)) {
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            _ => refused(format!("attributes of {}", self.objects.kind(target))),
        }
    }
}
