use crate::arguments::{Strided, refuse};
use crate::launch::Pointer;
use crate::plane::Plane;
use crate::ptx::Module;
use crate::{Buffer, Device, Result, Rows, RowsMut};
use longmamba_core::Error as ArgumentError;

/// Positions to a page.
pub const KV_PAGE: usize = 256;

/// Keys and values of [`KV_PAGE`] neighbouring positions, on a device.
#[derive(Debug)]
pub struct KvPage {
    /// Keys `[KV_PAGE, kv_heads, head_dim]`, and after them the values.
    data: Buffer<f32>,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Fill {
    keys: Strided,
    values: Strided,
    page: Strided,
    to_values: u64,
    rows: u64,
    width: u64,
}

impl KvPage {
    /// A page of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Driver`](crate::Error::Driver).
    pub fn new(device: &Device, kv_heads: usize, head_dim: usize) -> Result<Self> {
        let data = device.zeros(2 * KV_PAGE * kv_heads * head_dim)?;
        Ok(KvPage { data, kv_heads, head_dim })
    }

    /// Elements of keys, and of values, of one position.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Elements of all keys, and of all values.
    fn len(&self) -> usize {
        KV_PAGE * self.width()
    }

    pub(super) fn pointer(&self, device: &Device) -> Result<Pointer> {
        self.data.pointer(device, 0, 2 * self.len())
    }

    /// Writes rows `first..first + rows`; `keys` and `values` are `[rows, kv_heads · head_dim]`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), also for rows past the page;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn fill(
        &mut self,
        rows: usize,
        keys: Rows<'_, f32>,
        values: Rows<'_, f32>,
        first: usize,
    ) -> Result<()> {
        let device = &self.data.device().clone();
        let (width, to_values) = (self.width(), self.len() as u64);
        let keys = Strided::new(device, "keys", keys, rows, width)?;
        let values = Strided::new(device, "values", values, rows, width)?;
        if first.checked_add(rows).is_none_or(|end| end > KV_PAGE) {
            return refuse("first", first as f64, "a row with room for all after it");
        }
        let first = first * width;
        let mut page = RowsMut { buffer: &mut self.data, first, width, stride: width };
        let page = Strided::new_mut(device, "page", &mut page, rows, width)?;
        let plane = Plane::new(rows, width, width, &[keys, values, page]);
        let kernel = plane.kernel(["fill_page_4", "fill_page_1"]);
        let (rows, width) = (rows as u64, width as u64);
        let arguments = Fill { keys, values, page, to_values, rows, width };
        device.launch(Module::Attention, kernel, plane.grid(), &arguments)
    }

    /// Copies all rows to the host: keys and values, each `[KV_PAGE, kv_heads, head_dim]`; waits for all
    /// earlier work.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a slice of another length;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn read(&self, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        self.expect(keys, values)?;
        self.data.read(0, keys)?;
        self.data.read(self.len(), values)
    }

    /// The reverse of [`KvPage::read`].
    ///
    /// # Errors
    /// As [`KvPage::read`].
    pub fn write(&mut self, keys: &[f32], values: &[f32]) -> Result<()> {
        self.expect(keys, values)?;
        let first = self.len();
        self.data.write(keys, 0)?;
        self.data.write(values, first)
    }

    fn expect(&self, keys: &[f32], values: &[f32]) -> Result<()> {
        for (tensor, actual) in [("keys", keys.len()), ("values", values.len())] {
            if actual != self.len() {
                let (expected, actual) = ([self.len()].into(), [actual].into());
                return Err(ArgumentError::Shape { tensor, expected, actual }.into());
            }
        }
        Ok(())
    }
}
