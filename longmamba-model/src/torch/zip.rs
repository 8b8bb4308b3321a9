//! The directory of a zip archive whose entries are stored as they are.
//!
//! Only what torch writes, or `zip -0`: no compression (so nothing can expand), no encryption, one disk,
//! no comment. A zip file says most things twice or three times; here they must all agree, so that no
//! two readers see different archives.

use super::reader::Reader;
use super::{Checked, malformed, shown};
use std::collections::HashSet;
use std::ops::Range;

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const END64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR64: &[u8; 4] = b"PK\x06\x07";

/// Sizes of the fixed parts, in bytes.
const CENTRAL_SIZE: usize = 46;
const END_SIZE: usize = 22;
const END64_SIZE: usize = 56;
const LOCATOR64_SIZE: usize = 20;

/// Entries of an archive; a model of a thousand tensors has about as many.
pub(super) const MAX_ENTRIES: u64 = 1 << 18;
/// Bit 3 of an entry's flags: its sizes may stand behind the data, and in the directory, only.
const DESCRIPTOR: u16 = 1 << 3;
/// Bit 11: the name is UTF-8.
const UTF8: u16 = 1 << 11;
/// The extra field with sizes that do not fit 32 bits.
const ZIP64: u16 = 1;

/// A file in the archive.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry<'a> {
    /// Relative, with `/` between its parts, none of which is empty or dots alone.
    pub name: &'a str,
    /// Where its bytes lie. No two entries share any.
    pub data: Range<usize>,
}

pub(super) fn is_zip(bytes: &[u8]) -> bool {
    // An archive without entries has nothing but its end.
    bytes.starts_with(LOCAL) || bytes.starts_with(END)
}

/// All entries, in the order of the directory, names unique.
pub(super) fn entries(bytes: &[u8]) -> Checked<Vec<Entry<'_>>> {
    let directory = directory(bytes)?;
    let mut reader = Reader::new(bytes, directory.range.start, directory.range.end)?;
    let mut entries = Vec::new();
    let mut spans = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..directory.entries {
        let central = central(&mut reader)?;
        if !names.insert(central.name) {
            return malformed(format!("the archive has two entries {}", shown(central.name)));
        }
        let entry = local(bytes, &central, directory.range.start)?;
        spans.push((central.at, entry.data.end, entry.name));
        entries.push(entry);
    }
    if !reader.rest().is_empty() {
        return malformed("the directory of the archive is longer than its entries");
    }
    spans.sort_unstable();
    let overlap = spans.iter().zip(spans.iter().skip(1)).find(|(one, two)| two.0 < one.1);
    if let Some((one, two)) = overlap {
        let (one, two) = (shown(one.2), shown(two.2));
        return malformed(format!("entries {one} and {two} of the archive overlap"));
    }
    Ok(entries)
}

struct Directory {
    entries: u64,
    range: Range<usize>,
}

/// From the records at the end of the file.
fn directory(bytes: &[u8]) -> Checked<Directory> {
    let unended = "truncated, or no zip archive: it does not end as one";
    let Some(end_at) = bytes.len().checked_sub(END_SIZE) else { return malformed(unended) };
    let mut end = Reader::new(bytes, end_at, bytes.len())?;
    if end.array()? != *END {
        return malformed(unended);
    }
    let (disk, first_disk, here, entries) = (end.u16()?, end.u16()?, end.u16()?, end.u16()?);
    let (size, start, comment) = (end.u32()?, end.u32()?, end.u16()?);
    if comment != 0 {
        return malformed(unended);
    }
    let (entries, size, start, limit) = match locate64(bytes, end_at)? {
        None => {
            if [disk, first_disk] != [0, 0] || here != entries {
                return malformed("a zip archive of several disks");
            }
            (entries.into(), size.into(), start.into(), end_at)
        }
        Some(at) => {
            let mut end64 = Reader::new(bytes, at, end_at)?;
            end64.take(16)?;
            let (disk64, first_disk64) = (end64.u32()?, end64.u32()?);
            let (here64, entries64) = (end64.u64()?, end64.u64()?);
            let (size64, start64) = (end64.u64()?, end64.u64()?);
            if [disk64, first_disk64] != [0, 0] || here64 != entries64 {
                return malformed("a zip archive of several disks");
            }
            let short = [disk, first_disk, here, entries].map(u64::from);
            let long = [0, 0, here64, entries64];
            let same = |(short, long)| short == long || short == u64::from(u16::MAX);
            let same32 = |short: u32, long| u64::from(short) == long || short == u32::MAX;
            if !short.into_iter().zip(long).all(same)
                || !same32(size, size64)
                || !same32(start, start64)
            {
                return malformed("the two ends of the zip archive contradict each other");
            }
            (entries64, size64, start64, at)
        }
    };
    if entries > MAX_ENTRIES {
        return malformed(format!("the archive has {entries} entries, more than {MAX_ENTRIES}"));
    }
    // The directory lies just before its end.
    let range = usize::try_from(start).ok().zip(usize::try_from(size).ok());
    let Some((start, _)) = range.filter(|&(start, size)| start.checked_add(size) == Some(limit))
    else {
        return malformed(format!(
            "truncated: the directory of the archive should be {size} bytes at byte {start}, \
             the file has {} bytes",
            bytes.len()
        ));
    };
    Ok(Directory { entries, range: start..limit })
}

/// Where the 64-bit end record lies: between the directory and its locator, without a gap.
fn locate64(bytes: &[u8], end_at: usize) -> Checked<Option<usize>> {
    let Some(locator_at) = end_at.checked_sub(LOCATOR64_SIZE) else { return Ok(None) };
    let mut locator = Reader::new(bytes, locator_at, end_at)?;
    if locator.array()? != *LOCATOR64 {
        return Ok(None);
    }
    let (disk, at, disks) = (locator.u32()?, locator.u64()?, locator.u32()?);
    let expected = locator_at.checked_sub(END64_SIZE);
    let Some(at) = expected.filter(|&expected| at == expected as u64 && disk == 0 && disks <= 1)
    else {
        return malformed("the 64-bit end of the zip archive is not where it should be");
    };
    let mut end64 = Reader::new(bytes, at, locator_at)?;
    if end64.array()? != *END64 || end64.u64()? != (END64_SIZE - 12) as u64 {
        return malformed("the 64-bit end of the zip archive is not where it should be");
    }
    Ok(Some(at))
}

/// An entry of the directory.
struct Central<'a> {
    name: &'a str,
    flags: u16,
    checksum: u32,
    size: u64,
    /// Of the local header.
    at: usize,
}

fn central<'a>(reader: &mut Reader<'a>) -> Checked<Central<'a>> {
    if reader.rest().len() < CENTRAL_SIZE || reader.array()? != *CENTRAL {
        return malformed("the directory of the archive has fewer entries than it should");
    }
    // The versions of writer and reader.
    reader.take(4)?;
    let (flags, method) = (reader.u16()?, reader.u16()?);
    // The time.
    reader.take(4)?;
    let (checksum, packed, size) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let (name_len, extra_len, comment_len) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let disk = reader.u16()?;
    // Attributes.
    reader.take(6)?;
    let at = reader.u32()?;
    let name = name(reader.text(name_len.into())?)?;
    let extra = reader.take(extra_len.into())?;
    reader.take(comment_len.into())?;
    let shown = || shown(name);
    if method != 0 {
        return malformed(format!(
            "entry {} is compressed (method {method}), as in TorchScript; save a state dict with torch.save",
            shown()
        ));
    }
    if flags & !(DESCRIPTOR | UTF8) != 0 || disk != 0 {
        return malformed(format!("entry {} is encrypted or split", shown()));
    }
    let [size, packed, at] = long(extra, [size, packed, at], name)?;
    if size != packed {
        return malformed(format!("entry {} is stored, but has two sizes", shown()));
    }
    let Ok(at) = usize::try_from(at) else {
        return malformed(format!("entry {} lies beyond the file", shown()));
    };
    Ok(Central { name, flags, checksum, size, at })
}

/// The entry behind its local header, which must repeat what the directory says.
fn local<'a>(bytes: &'a [u8], central: &Central<'a>, limit: usize) -> Checked<Entry<'a>> {
    let name = central.name;
    let Ok(mut reader) = Reader::new(bytes, central.at, limit) else {
        return malformed(format!("entry {} lies beyond the data of the archive", shown(name)));
    };
    let differs = || malformed(format!("entry {} has another header than directory", shown(name)));
    if reader.array()? != *LOCAL {
        return malformed(format!("entry {} has no header", shown(name)));
    }
    reader.take(2)?;
    let (flags, method) = (reader.u16()?, reader.u16()?);
    reader.take(4)?;
    let (checksum, packed, size) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let (name_len, extra_len) = (reader.u16()?, reader.u16()?);
    if reader.take(name_len.into())? != name.as_bytes() {
        return differs();
    }
    let extra = reader.take(extra_len.into())?;
    let [size, packed] = long(extra, [size, packed], name)?;
    // With a descriptor, what is not known before the data is 0.
    let described = flags & DESCRIPTOR != 0;
    let same = |here: u64, there: u64| here == there || (described && here == 0);
    if flags != central.flags
        || method != 0
        || !same(checksum.into(), central.checksum.into())
        || !same(size, central.size)
        || !same(packed, central.size)
    {
        return differs();
    }
    let start = reader.at();
    let end = usize::try_from(central.size).ok().and_then(|size| start.checked_add(size));
    match end.filter(|&end| end <= limit) {
        Some(end) => Ok(Entry { name, data: start..end }),
        None => malformed(format!(
            "entry {} should have {} bytes, more than the file",
            shown(name),
            central.size
        )),
    }
}

/// Numbers that may stand in the zip64 extra field, those that are all ones, in this order.
fn long<const N: usize>(extra: &[u8], fields: [u32; N], name: &str) -> Checked<[u64; N]> {
    let wrong = || malformed(format!("entry {} has a broken extra field", shown(name)));
    let mut reader = Reader::new(extra, 0, extra.len())?;
    let mut zip64: Option<&[u8]> = None;
    while !reader.rest().is_empty() {
        let (Ok(id), Ok(len)) = (reader.u16(), reader.u16()) else { return wrong() };
        let Ok(field) = reader.take(len.into()) else { return wrong() };
        if id == ZIP64 && zip64.replace(field).is_some() {
            return wrong();
        }
    }
    let mut long = fields.map(u64::from);
    let (mut values, _) = zip64.unwrap_or_default().as_chunks::<8>();
    for (value, _) in long.iter_mut().zip(fields).filter(|(_, field)| *field == u32::MAX) {
        let Some((first, rest)) = values.split_first() else { return wrong() };
        *value = u64::from_le_bytes(*first);
        values = rest;
    }
    Ok(long)
}

/// A name that stays inside the folder that an archive might be unpacked to. Nothing is unpacked here,
/// but such an archive was made to do harm.
fn name(name: &str) -> Checked<&str> {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.contains(['\\', '\0', ':']) || !name.split('/').all(part) {
        return malformed(format!("an entry has the unsafe name \"{}\"", shown(name)));
    }
    Ok(name)
}
