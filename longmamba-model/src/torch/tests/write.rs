//! Pickles and archives, well formed or not.

use crate::torch::opcode as op;

/// A pickle of protocol 2, opcode by opcode.
#[derive(Clone)]
pub struct Pickle(Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Pickle(vec![op::PROTO, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn op(self, opcode: u8) -> Self {
        self.raw(&[opcode])
    }

    pub fn text(self, text: &str) -> Self {
        let len = u32::try_from(text.len()).unwrap();
        self.op(op::BINUNICODE).raw(&len.to_le_bytes()).raw(text.as_bytes())
    }

    pub fn int(self, value: i128) -> Self {
        self.raw(&[op::LONG1, 16]).raw(&value.to_le_bytes())
    }

    pub fn ints(self, values: &[i128]) -> Self {
        let marked = self.op(op::MARK);
        values.iter().fold(marked, |p, &v| p.int(v)).op(op::TUPLE)
    }

    pub fn global(self, name: &str) -> Self {
        self.op(op::GLOBAL).raw(name.replace(' ', "\n").as_bytes()).raw(b"\n")
    }

    pub fn storage(self, key: &str, class: &str, elements: i128) -> Self {
        self.op(op::MARK)
            .text("storage")
            .global(&format!("torch {class}"))
            .text(key)
            .text("cuda:0")
            .int(elements)
            .op(op::TUPLE)
            .op(op::BINPERSID)
    }

    /// Of a storage "0" of 6 floats.
    pub fn tensor(self, offset: i128, size: &[i128], stride: &[i128]) -> Self {
        self.global("torch._utils _rebuild_tensor_v2")
            .op(op::MARK)
            .storage("0", "FloatStorage", 6)
            .int(offset)
            .ints(size)
            .ints(stride)
            .raw(&[op::NEWFALSE, op::EMPTY_DICT, op::TUPLE, op::REDUCE])
    }

    /// A dictionary with these entries; each writes its value.
    pub fn dict(self, entries: &[(&str, &dyn Fn(Pickle) -> Pickle)]) -> Self {
        let open = self.op(op::EMPTY_DICT).op(op::MARK);
        entries.iter().fold(open, |p, (key, value)| value(p.text(key))).op(op::SETITEMS)
    }

    pub fn stop(self) -> Vec<u8> {
        self.op(op::STOP).0
    }
}

/// An archive as torch writes it, with this pickle and a storage "0" of 6 floats.
pub fn checkpoint(pickle: Vec<u8>) -> Vec<u8> {
    archive(vec![
        Entry::new("x/data.pkl", pickle),
        Entry::new("x/byteorder", b"little".to_vec()),
        Entry::new("x/data/0", vec![1; 24]),
    ])
}

/// A checkpoint with one tensor "w", a 2 × 3 matrix.
pub fn small() -> Vec<u8> {
    checkpoint(Pickle::new().dict(&[("w", &|p| p.tensor(0, &[2, 3], &[3, 1]))]).stop())
}

/// An entry of a zip archive; the two headers may lie, each in its own way.
#[derive(Clone)]
pub struct Entry {
    pub data: Vec<u8>,
    pub local: Header,
    pub central: Header,
    /// Of the local header, in the directory; `None` is the truth.
    pub at: Option<u32>,
}

#[derive(Clone)]
pub struct Header {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub checksum: u32,
    pub packed: u32,
    pub size: u32,
    pub extra: Vec<u8>,
}

impl Entry {
    pub fn new(name: &str, data: Vec<u8>) -> Self {
        let size = u32::try_from(data.len()).unwrap();
        let header = Header {
            name: name.into(),
            flags: 0,
            method: 0,
            checksum: 7,
            packed: size,
            size,
            extra: vec![],
        };
        Entry { data, local: header.clone(), central: header, at: None }
    }

    /// A change of both headers.
    pub fn both(mut self, change: impl Fn(&mut Header)) -> Self {
        change(&mut self.local);
        change(&mut self.central);
        self
    }
}

impl Header {
    fn middle(&self) -> Vec<u8> {
        let mut bytes = vec![];
        for word in [self.flags, self.method, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [self.checksum, self.packed, self.size] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [&self.name, &self.extra] {
            bytes.extend(u16::try_from(part.len()).unwrap().to_le_bytes());
        }
        bytes
    }
}

pub fn archive(entries: Vec<Entry>) -> Vec<u8> {
    let (mut file, mut directory) = (vec![], vec![]);
    let count = u16::try_from(entries.len()).unwrap();
    for Entry { data, local, central, at } in entries {
        let at = at.unwrap_or(u32::try_from(file.len()).unwrap());
        file.extend(b"PK\x03\x04\0\0");
        file.extend(local.middle());
        file.extend(&local.name);
        file.extend(&local.extra);
        file.extend(data);
        directory.extend(b"PK\x01\x02\0\0\0\0");
        directory.extend(central.middle());
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(&central.name);
        directory.extend(&central.extra);
    }
    let start = u32::try_from(file.len()).unwrap();
    let size = u32::try_from(directory.len()).unwrap();
    file.extend(directory);
    file.extend(end(count, size, start));
    file
}

/// The record at the end of an archive.
pub fn end(entries: u16, size: u32, start: u32) -> Vec<u8> {
    let mut bytes = b"PK\x05\x06\0\0\0\0".to_vec();
    bytes.extend(entries.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}
