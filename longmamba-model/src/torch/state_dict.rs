//! From the objects of a pickle to named tensors in row-major order.

use super::value::{Id, Value};
use super::{Checked, File, StoredTensor, malformed, shown};
use std::collections::BTreeMap;

/// Dimensions of a tensor.
const MAX_RANK: usize = 8;
/// Names of one and the same tensor: a tied head gives two. There is a limit because whoever reads all
/// tensors would read the bytes once for every name.
const MAX_TIED: usize = 8;

/// The tensors of a dictionary; see [`super::tensors`].
pub(super) fn tensors(file: &File<'_>) -> Checked<BTreeMap<String, StoredTensor>> {
    let objects = &file.objects;
    let entries = match objects.get(file.root) {
        Value::Dict(entries) => entries,
        _ => {
            return malformed(format!(
                "it holds {}, not a dictionary of tensors",
                objects.kind(file.root)
            ));
        }
    };
    let mut tensors = BTreeMap::new();
    for &(key, value) in entries {
        let Some(name) = objects.str(key) else {
            return malformed(format!("a key of its dictionary is {}", objects.kind(key)));
        };
        let tensor = match objects.get(value) {
            Value::Tensor(args) => tensor(file, args)
                .or_else(|why| malformed(format!("tensor {}: {why}", shown(name))))?,
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float | Value::Str(_) => continue,
            Value::Tuple(items) | Value::List(items) if items.is_empty() => continue,
            Value::Dict(items) if items.is_empty() => continue,
            _ => {
                return malformed(format!(
                    "entry {} is {}; expected a flat dictionary of tensors, save that alone",
                    shown(name),
                    objects.kind(value)
                ));
            }
        };
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return malformed(format!("tensor {} is there twice", shown(name)));
        }
    }
    check_overlap(&tensors)?;
    Ok(tensors)
}

/// The only object; see [`super::tensor`].
pub(super) fn lone(file: &File<'_>) -> Checked<StoredTensor> {
    match file.objects.get(file.root) {
        Value::Tensor(args) => tensor(file, args).or_else(malformed),
        _ => malformed(format!("it holds {}, not one tensor", file.objects.kind(file.root))),
    }
}

/// What the arguments `(storage, offset, size, stride, …)` describe, or why that is no tensor. All in
/// elements.
fn tensor(file: &File<'_>, args: &[Id]) -> Result<StoredTensor, String> {
    let objects = &file.objects;
    let [storage, offset, size, stride, ..] = args else { return Err("it has no shape".into()) };
    let &Value::Storage(index) = objects.get(*storage) else {
        return Err(format!("its storage is {}", objects.kind(*storage)));
    };
    let (Some(storage), Some(bytes)) = (objects.storages().get(index), file.storages.get(index))
    else {
        return Err("its storage is missing".into());
    };
    let integers = |id: Id| -> Option<Vec<i128>> {
        let items = objects.tuple(id).filter(|items| items.len() <= MAX_RANK)?;
        items.iter().map(|&item| objects.int(item)).collect()
    };
    let (Some(size), Some(stride)) = (integers(*size), integers(*stride)) else {
        return Err(format!("its shape or strides are not up to {MAX_RANK} integers"));
    };
    if size.len() != stride.len() {
        return Err(format!("it has {} sizes and {} strides", size.len(), stride.len()));
    }
    let shape: Option<Vec<usize>> = size.iter().map(|&n| usize::try_from(n).ok()).collect();
    let elements = |shape: &Vec<usize>| shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let Some((shape, elements)) = shape.and_then(|s| elements(&s).map(|n| (s, n))) else {
        return Err(format!("a shape of {size:?} is impossible"));
    };
    if elements > 0 {
        check_row_major(&shape, &stride)?;
    }
    let offset = objects.int(*offset).and_then(|offset| usize::try_from(offset).ok());
    let part = offset.and_then(|offset| Some((offset, offset.checked_add(elements)?)));
    let Some((start, end)) = part.filter(|&(_, end)| end <= storage.elements) else {
        return Err(format!(
            "{elements} elements from {} on reach outside its storage of {}",
            offset.map_or("an impossible offset".into(), |offset| offset.to_string()),
            storage.elements
        ));
    };
    // Below the storage's size in bytes, which was found in the file.
    let width = storage.dtype.bitsize() / 8;
    let range = bytes.start + start * width..bytes.start + end * width;
    Ok(StoredTensor { dtype: storage.dtype, shape, range })
}

fn check_row_major(shape: &[usize], stride: &[i128]) -> Result<(), String> {
    let mut expected = 1i128;
    for (&n, &stride_here) in shape.iter().zip(stride).rev() {
        // The stride of a dimension of size 1 is never used.
        if n != 1 && stride_here != expected {
            let why = match stride_here {
                ..0 => "a negative stride",
                0 => "one element repeated (stride 0)",
                _ => "not in row-major order",
            };
            return Err(format!(
                "{why}: shape {shape:?}, strides {stride:?}; call contiguous() before torch.save"
            ));
        }
        // At most the number of elements.
        expected *= n as i128;
    }
    Ok(())
}

/// That tensors share either all of their bytes or none.
fn check_overlap(tensors: &BTreeMap<String, StoredTensor>) -> Checked<()> {
    let mut sorted: Vec<_> = tensors.iter().filter(|(_, t)| !t.range.is_empty()).collect();
    sorted.sort_unstable_by_key(|(_, t)| t.range.start);
    let mut names = 1;
    for ((one_name, one), (two_name, two)) in sorted.iter().zip(sorted.iter().skip(1)) {
        names = if one == two { names + 1 } else { 1 };
        let pair = || format!("tensors {} and {}", shown(one_name), shown(two_name));
        if one != two && two.range.start < one.range.end {
            return malformed(format!(
                "{} share some of their bytes; clone() one before torch.save",
                pair()
            ));
        }
        if names > MAX_TIED {
            return malformed(format!("{} and {MAX_TIED} more are the same tensor", pair()));
        }
    }
    Ok(())
}
