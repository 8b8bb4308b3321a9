//! The keys and values that attention layers keep of a sequence.

use crate::Result;
use crate::backend::{Backend, Columns, KV_PAGE};
use crate::config::AttentionConfig;

/// Keys and values of one layer and sequence, page by page. With a window the pages that nothing sees
/// any more are used again, so that memory is bounded; without one a page is added every
/// [`KV_PAGE`] tokens.
#[derive(Debug)]
pub(crate) struct KvCache<B: Backend> {
    /// In order of position; those past `len` wait for their use.
    pages: Vec<B::Page>,
    /// The position of the first page's first row.
    first: usize,
    /// Positions so far, forgotten ones included.
    len: usize,
    /// How many positions a query sees.
    window: usize,
    kv_heads: usize,
    head_dim: usize,
    /// `[d_conv - 1, qkv]`: the last inputs of the convolution, where there is one.
    pub conv_history: B::Buffer,
}

impl<B: Backend> KvCache<B> {
    pub(crate) fn new(config: &AttentionConfig, window: usize, backend: &B) -> Result<Self> {
        Ok(KvCache {
            pages: Vec::new(),
            first: 0,
            len: 0,
            window,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            conv_history: backend.buffer(history_len(config))?,
        })
    }

    /// Columns of keys, and of values.
    pub(crate) fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// The pages that hold something, and the position of their first row.
    pub(crate) fn pages(&self) -> (&[B::Page], usize) {
        (&self.pages[..(self.len - self.first).div_ceil(KV_PAGE)], self.first)
    }

    /// Bytes of keys and values, pages in waiting included.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.len() * 2 * KV_PAGE * self.width() * size_of::<f32>()
    }

    /// Adds the keys and values of the next `rows` positions.
    pub(crate) fn append(
        &mut self,
        backend: &B,
        rows: usize,
        keys: Columns<'_, B::Buffer>,
        values: Columns<'_, B::Buffer>,
    ) -> Result<()> {
        // The oldest position that the first of the new queries sees.
        let oldest = (self.len + 1).saturating_sub(self.window);
        while self.first + KV_PAGE <= oldest && !self.pages.is_empty() {
            self.pages.rotate_left(1);
            self.first += KV_PAGE;
        }
        let mut done = 0;
        while done < rows {
            let (page, row) = ((self.len - self.first) / KV_PAGE, self.len % KV_PAGE);
            if page == self.pages.len() {
                self.pages.push(backend.page(self.kv_heads, self.head_dim)?);
            }
            let count = (rows - done).min(KV_PAGE - row);
            let (keys, values) = (keys.skip_rows(done), values.skip_rows(done));
            backend.fill_page(count, keys, values, &mut self.pages[page], row)?;
            self.len += count;
            done += count;
        }
        Ok(())
    }

    /// Copies what the cache holds to the host: the position of the first row, and keys and values of
    /// all rows from there, `[rows, kv_heads · head_dim]` each.
    pub(crate) fn read(&self, backend: &B) -> Result<(usize, Vec<f32>, Vec<f32>)> {
        let (pages, first) = self.pages();
        let page_len = KV_PAGE * self.width();
        let mut keys = vec![0.0; pages.len() * page_len];
        let mut values = keys.clone();
        let parts = keys.chunks_exact_mut(page_len).zip(values.chunks_exact_mut(page_len));
        for (page, (keys, values)) in pages.iter().zip(parts) {
            backend.read_page(page, keys, values)?;
        }
        let rows = (self.len - first) * self.width();
        keys.truncate(rows);
        values.truncate(rows);
        Ok((first, keys, values))
    }

    /// The reverse of [`KvCache::read`]; `first` is a multiple of [`KV_PAGE`], and keys and values have
    /// the same whole number of rows.
    pub(crate) fn write(
        &mut self,
        backend: &B,
        first: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<()> {
        let width = self.width();
        let page_len = KV_PAGE * width;
        (self.first, self.len) = (first, first + keys.len() / width);
        self.pages.clear();
        let mut page_keys = vec![0.0; page_len];
        let mut page_values = vec![0.0; page_len];
        for (keys, values) in keys.chunks(page_len).zip(values.chunks(page_len)) {
            page_keys[..keys.len()].copy_from_slice(keys);
            page_values[..values.len()].copy_from_slice(values);
            let mut page = backend.page(self.kv_heads, self.head_dim)?;
            backend.write_page(&page_keys, &page_values, &mut page)?;
            self.pages.push(page);
        }
        Ok(())
    }
}

/// Elements of the convolution's history.
pub(crate) fn history_len(config: &AttentionConfig) -> usize {
    config.d_conv.saturating_sub(1) * config.qkv_width()
}
