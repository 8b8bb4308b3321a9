use super::globals::Global;
use super::{Checked, malformed, shown};
use safetensors::Dtype;
use std::collections::HashMap;

/// An object of a pickle, by its place in [`Objects`].
///
/// Objects refer to each other by number: one that is used a thousand times exists once, one that
/// contains itself does no harm, and none needs a recursive drop.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Id(u32);

#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i128),
    /// Nothing needs the number.
    Float,
    Str(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Also an `OrderedDict`. In the order of insertion, keys possibly repeated.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// By its index in [`Objects::storages`].
    Storage(usize),
    /// The arguments of `_rebuild_tensor` or `_rebuild_tensor_v2`, looked at when the tensor's name is
    /// known.
    Tensor(Vec<Id>),
}

/// The elements that tensors are views of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Storage<'a> {
    /// Its name in the container.
    pub key: &'a str,
    pub dtype: Dtype,
    pub elements: usize,
}

impl Storage<'_> {
    pub(super) fn bytes(&self) -> Option<usize> {
        self.elements.checked_mul(self.dtype.bitsize() / 8)
    }
}

/// All objects of one pickle.
#[derive(Debug)]
pub(super) struct Objects<'a> {
    values: Vec<Value<'a>>,
    storages: Vec<Storage<'a>>,
    /// Key → index.
    storage_keys: HashMap<&'a str, usize>,
}

impl<'a> Objects<'a> {
    pub(super) fn new() -> Self {
        Objects { values: Vec::new(), storages: Vec::new(), storage_keys: HashMap::new() }
    }

    /// An error beyond `most` objects.
    pub(super) fn add(&mut self, value: Value<'a>, most: usize) -> Checked<Id> {
        match u32::try_from(self.values.len()) {
            Ok(id) if self.values.len() < most => {
                self.values.push(value);
                Ok(Id(id))
            }
            _ => malformed(format!("the pickle has more than {most} objects")),
        }
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        // An id comes from `add`, and nothing is taken away.
        &self.values[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Value<'a> {
        &mut self.values[id.0 as usize]
    }

    pub(super) fn storages(&self) -> &[Storage<'a>] {
        &self.storages
    }

    /// The index of a storage, which is new or the same as before.
    pub(super) fn add_storage(&mut self, storage: Storage<'a>) -> Checked<usize> {
        let index = *self.storage_keys.entry(storage.key).or_insert(self.storages.len());
        match self.storages.get(index) {
            None => self.storages.push(storage),
            Some(known) if *known == storage => {}
            Some(known) => {
                let (key, was, is) = (shown(storage.key), known, storage);
                return malformed(format!(
                    "storage {key} is {} × {:?} at first and {} × {:?} later",
                    was.elements, was.dtype, is.elements, is.dtype
                ));
            }
        }
        Ok(index)
    }

    pub(super) fn str(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, id: Id) -> Option<i128> {
        match self.get(id) {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// In the words of a message.
    pub(super) fn kind(&self, id: Id) -> &'static str {
        match self.get(id) {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) | Value::Float => "a number",
            Value::Str(_) => "a string",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dictionary",
            Value::Global(_) => "a function or class",
            Value::Storage(_) => "a bare storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}
