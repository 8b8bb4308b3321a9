//! The keys and values that attention layers keep of a sequence.

use crate::Result;
use crate::backend::{Backend, KV_PAGE};
use crate::config::AttentionConfig;

/// Keys and values of one layer and sequence, page by page. With a window the pages that nothing sees
/// any more are used again, so that memory is bounded; without one a page is added every
/// [`KV_PAGE`] tokens.
#[derive(Debug)]
pub(crate) struct KvCache<B: Backend> {
    pub pages: B::Pages,
    /// Pages, those in waiting included.
    held: usize,
    /// The position of the first page's first row.
    first: usize,
    /// How many positions a query sees.
    window: usize,
    /// Columns of keys, and of values.
    width: usize,
    /// `[d_conv - 1, qkv]`: the last inputs of the convolution, where there is one.
    pub conv_history: B::Buffer,
}

impl<B: Backend> KvCache<B> {
    pub(crate) fn new(config: &AttentionConfig, window: usize, backend: &B) -> Result<Self> {
        Ok(KvCache {
            pages: backend.pages(config.kv_heads, config.head_dim)?,
            held: 0,
            first: 0,
            window,
            width: config.kv_width(),
            conv_history: backend.buffer(history_len(config))?,
        })
    }

    /// Columns of keys, and of values.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// The position of the first row.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// Bytes of keys and values, pages in waiting included.
    pub(crate) fn bytes(&self) -> usize {
        self.held * 2 * KV_PAGE * self.width * size_of::<f32>()
    }

    /// Makes room for `rows` positions from `position` on, which are to be filled. `true` where stages that
    /// were recorded with the cache must not be done again.
    pub(crate) fn reserve(&mut self, backend: &B, position: usize, rows: usize) -> Result<bool> {
        // The oldest position that the first of the new queries sees.
        let oldest = (position + 1).saturating_sub(self.window);
        let unused = (oldest.saturating_sub(self.first) / KV_PAGE).min(self.held);
        let first = self.first + unused * KV_PAGE;
        let count = (position + rows - first).div_ceil(KV_PAGE).max(self.held);
        let void = backend.arrange_pages(&mut self.pages, unused, count, first)?;
        (self.held, self.first) = (count, first);
        Ok(void)
    }

    /// Copies what the cache holds before position `end` to the host: the position of the first row, and
    /// keys and values of all rows from there, `[rows, kv_heads · head_dim]` each.
    pub(crate) fn read(&self, backend: &B, end: usize) -> Result<(usize, Vec<f32>, Vec<f32>)> {
        let rows = end - self.first;
        let pages = rows.div_ceil(KV_PAGE);
        let page_len = KV_PAGE * self.width;
        let mut keys = vec![0.0; pages * page_len];
        let mut values = keys.clone();
        let parts = keys.chunks_exact_mut(page_len).zip(values.chunks_exact_mut(page_len));
        for (index, (keys, values)) in parts.enumerate() {
            backend.read_page(&self.pages, index, keys, values)?;
        }
        keys.truncate(rows * self.width);
        values.truncate(rows * self.width);
        Ok((self.first, keys, values))
    }

    /// The reverse of [`KvCache::read`], for a cache that is empty; `first` is a multiple of [`KV_PAGE`], and
    /// keys and values have the same whole number of rows.
    pub(crate) fn write(
        &mut self,
        backend: &B,
        first: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<()> {
        let page_len = KV_PAGE * self.width;
        (self.first, self.held) = (first, keys.len().div_ceil(page_len));
        backend.arrange_pages(&mut self.pages, 0, self.held, first)?;
        let mut page_keys = vec![0.0; page_len];
        let mut page_values = vec![0.0; page_len];
        for (index, (keys, values)) in
            keys.chunks(page_len).zip(values.chunks(page_len)).enumerate()
        {
            page_keys[..keys.len()].copy_from_slice(keys);
            page_values[..values.len()].copy_from_slice(values);
            backend.write_page(&page_keys, &page_values, &mut self.pages, index)?;
        }
        Ok(())
    }
}

/// Elements of the convolution's history.
pub(crate) fn history_len(config: &AttentionConfig) -> usize {
    config.d_conv.saturating_sub(1) * config.qkv_width()
}
