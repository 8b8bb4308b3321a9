use super::{Checked, malformed};

/// Reads a part of a file from front to back. Positions are those in the file.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// From byte `from` to before byte `to`.
    pub(super) fn new(bytes: &'a [u8], from: usize, to: usize) -> Checked<Self> {
        if from > to || to > bytes.len() {
            return malformed(format!(
                "truncated: it has {} bytes, bytes {from} to {to} are needed",
                bytes.len()
            ));
        }
        Ok(Reader { bytes, at: from, end: to })
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        // `at` ≤ `end` ≤ the length, from the constructor on.
        &self.bytes[self.at..self.end]
    }

    pub(super) fn take(&mut self, len: usize) -> Checked<&'a [u8]> {
        let Some(taken) = self.rest().get(..len) else {
            let (at, rest) = (self.at, self.rest().len());
            return malformed(format!(
                "truncated: {len} bytes are needed at byte {at}, {rest} are there"
            ));
        };
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Checked<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Checked<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Checked<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Checked<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Checked<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Text of `len` bytes.
    pub(super) fn text(&mut self, len: u64) -> Checked<&'a str> {
        let at = self.at;
        // A length that no address has is more than the file has, too.
        let text = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text),
            Err(_) => malformed(format!("the text at byte {at} is not UTF-8")),
        }
    }

    /// Text up to a newline, which is consumed; at most `longest` bytes.
    pub(super) fn line(&mut self, longest: usize) -> Checked<&'a str> {
        let rest = self.rest();
        let Some(len) = rest.iter().take(longest).position(|&b| b == b'\n') else {
            return malformed(format!("the line at byte {} has no end", self.at));
        };
        let line = self.text(len as u64)?;
        self.take(1)?;
        Ok(line)
    }
}
