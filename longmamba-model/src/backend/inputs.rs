//! What the scans and attention read.

use super::{Backend, Columns};

/// The activations that a Mamba-1 scan reads.
#[derive(Debug)]
pub struct ScanInputs<'a, Buffer> {
    /// After convolution and SiLU, d_inner columns.
    pub x: Columns<'a, Buffer>,
    /// Before bias and softplus, d_inner columns.
    pub dt_raw: Columns<'a, Buffer>,
    /// d_state columns.
    pub b: Columns<'a, Buffer>,
    /// d_state columns.
    pub c: Columns<'a, Buffer>,
    /// The gate, d_inner columns.
    pub z: Columns<'a, Buffer>,
}

impl<Buffer> ScanInputs<'_, Buffer> {
    /// The rows from `rows` on.
    pub fn skip_rows(&self, rows: usize) -> Self {
        ScanInputs {
            x: self.x.skip_rows(rows),
            dt_raw: self.dt_raw.skip_rows(rows),
            b: self.b.skip_rows(rows),
            c: self.c.skip_rows(rows),
            z: self.z.skip_rows(rows),
        }
    }
}

/// The activations that a Mamba-2 scan reads.
#[derive(Debug)]
pub struct SsdStageInputs<'a, Buffer> {
    /// After convolution and SiLU, heads · head_dim columns.
    pub x: Columns<'a, Buffer>,
    /// Before bias and softplus, one column a head.
    pub dt_raw: Columns<'a, Buffer>,
    /// groups · d_state columns.
    pub b: Columns<'a, Buffer>,
    /// groups · d_state columns.
    pub c: Columns<'a, Buffer>,
    /// Heads.
    pub heads: usize,
    /// Groups of heads.
    pub groups: usize,
}

impl<Buffer> SsdStageInputs<'_, Buffer> {
    /// The rows from `rows` on.
    pub fn skip_rows(&self, rows: usize) -> Self {
        SsdStageInputs {
            x: self.x.skip_rows(rows),
            dt_raw: self.dt_raw.skip_rows(rows),
            b: self.b.skip_rows(rows),
            c: self.c.skip_rows(rows),
            ..*self
        }
    }
}

/// Where a segment of a chunk begins: neighbouring rows that belong to one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Tokens of the sequence before the segment's first row.
    pub position: usize,
    /// Which segment of the chunk: number `segment` of those that [`Backend::positions`] was told of. What
    /// is recorded is for the segment, wherever it begins.
    pub segment: usize,
}

/// What attention reads, and how.
#[derive(Debug)]
pub struct AttentionInputs<'a, B: Backend> {
    /// heads · head_dim columns, rotated.
    pub q: Columns<'a, B::Buffer>,
    /// The keys and values of the sequence; the queries' own are there.
    pub pages: &'a B::Pages,
    /// That of the first query.
    pub position: Position,
    /// How many positions a query sees, its own included; `usize::MAX`: all before it.
    pub window: usize,
    /// Query heads.
    pub heads: usize,
    /// The scores' factor.
    pub scale: f32,
}
