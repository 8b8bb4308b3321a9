//! The keys and values of one layer and sequence, on the processor.

use crate::Result;
use longmamba_core::{Error, View};
use longmamba_cpu::{KV_PAGE, KvPage};

/// In order of position.
#[derive(Debug)]
pub struct CpuPages {
    pub(super) pages: Vec<KvPage>,
    /// The position of the first page's first row.
    pub(super) first: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl CpuPages {
    pub(super) fn new(kv_heads: usize, head_dim: usize) -> Self {
        CpuPages { pages: Vec::new(), first: 0, kv_heads, head_dim }
    }

    pub(super) fn arrange(&mut self, unused: usize, count: usize, first: usize) {
        let CpuPages { pages, kv_heads, head_dim, .. } = self;
        let len = pages.len();
        pages.rotate_left(unused.min(len));
        if len < count {
            pages.resize_with(count, || KvPage::new(*kv_heads, *head_dim));
        }
        self.first = first;
    }

    /// Writes the rows from `position` on.
    pub(super) fn fill(
        &mut self,
        keys: View<'_, f32, 2>,
        values: View<'_, f32, 2>,
        position: usize,
    ) -> Result<()> {
        let rows = keys.shape()[0];
        let mut done = 0;
        while done < rows {
            let at = (position + done).checked_sub(self.first);
            let page = at.and_then(|at| self.pages.get_mut(at / KV_PAGE));
            let (Some(at), Some(page)) = (at, page) else {
                let (value, allowed) = (position as f64, "a position in the pages");
                return Err(Error::Value { tensor: "position", index: 0, value, allowed }.into());
            };
            let count = (rows - done).min(KV_PAGE - at % KV_PAGE);
            let part = done..done + count;
            page.fill(at % KV_PAGE, keys.slice(0, part.clone())?, values.slice(0, part)?)?;
            done += count;
        }
        Ok(())
    }
}
