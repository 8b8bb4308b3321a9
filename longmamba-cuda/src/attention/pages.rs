use crate::arguments::{Strided, refuse};
use crate::launch::Pointer;
use crate::plane::Plane;
use crate::position::{Placed, Position};
use crate::ptx::Module;
use crate::{Buffer, Device, Error, Result, Rows};
use longmamba_core::Error as ArgumentError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Positions to a page.
pub const KV_PAGE: usize = 256;

/// Words of a table before the addresses of its pages.
const HEAD: usize = 2;

/// The keys and values of neighbouring positions of a sequence, on a device, [`KV_PAGE`] positions a page.
///
/// Where the pages lie is in a table on the device. Work that is recorded over them finds there what they
/// have become, until the table has to grow, which it does by a factor of two.
#[derive(Debug)]
pub struct KvPages {
    device: Device,
    kv_heads: usize,
    head_dim: usize,
    /// The position of the first page's first row.
    first: usize,
    /// Pages in the table.
    len: usize,
    pages: Arc<Pages>,
    /// `Pages` in `attention/args.cuh`: `first`, the number of pages, and the address of each.
    table: Buffer<u64>,
}

/// In order of position: keys `[KV_PAGE, kv_heads, head_dim]`, and after them the values. None is ever taken
/// out, and graphs share them: whatever address a table has, its page is there as long as the table.
type Pages = Mutex<Vec<Buffer<f32>>>;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Fill {
    keys: Strided,
    values: Strided,
    table: Pointer,
    position: Placed,
    to_values: u64,
    rows: u64,
    width: u64,
}

impl KvPages {
    /// No pages.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Driver`](crate::Error::Driver).
    pub fn new(device: &Device, kv_heads: usize, head_dim: usize) -> Result<Self> {
        let (pages, table) = (Arc::default(), device.zeros(HEAD)?);
        Ok(KvPages { device: device.clone(), kv_heads, head_dim, first: 0, len: 0, pages, table })
    }

    /// Key heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// The width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Elements of keys, and of values, of one position.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The number of pages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pages there may be before what was recorded over them is void: a power of two.
    pub fn capacity(&self) -> usize {
        self.table.len() - HEAD
    }

    /// The positions that the pages hold.
    pub(super) fn positions(&self) -> std::ops::Range<usize> {
        self.first..self.first.saturating_add(self.len * KV_PAGE)
    }

    /// Moves the first `unused` pages behind the others, to be used again, and adds pages of zeros until
    /// there are `count`. The first row is then that of position `first`.
    ///
    /// `true` where the table had to grow: work that was recorded over the pages still reads the old one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), and the pages are as they were;
    /// [`Error::NotRecordable`](crate::Error::NotRecordable) while a graph is recorded;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn arrange(&mut self, unused: usize, count: usize, first: usize) -> Result<bool> {
        let (len, unused) = (self.len, unused.min(self.len));
        if unused == 0 && len >= count && self.first == first {
            return Ok(false);
        }
        let (device, page_len) = (self.device.clone(), 2 * self.page_len());
        if device.is_capturing() {
            return Err(Error::NotRecordable { what: "a change of pages" });
        }
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        while pages.len() < count {
            pages.push(device.zeros(page_len)?);
        }
        let held = len.max(count);
        let mut words = vec![first as u64, held as u64];
        for index in (unused..len).chain(0..unused).chain(len..held) {
            words.push(bytemuck::cast(pages[index].pointer(&device, 0, page_len)?));
        }
        let grows = words.len() > self.table.len();
        if grows {
            let mut table = device.zeros(HEAD + held.next_power_of_two())?;
            table.write(&words, 0)?;
            self.table = table;
        } else {
            self.table.write(&words, 0)?;
        }
        pages[..len].rotate_left(unused);
        drop(pages);
        (self.len, self.first) = (held, first);
        Ok(grows)
    }

    /// Writes the rows from `position` on; `keys` and `values` are `[rows, kv_heads · head_dim]`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), also for rows that are not in the pages (a replay then
    /// writes nothing); [`Error::Driver`](crate::Error::Driver).
    pub fn fill(
        &mut self,
        rows: usize,
        keys: Rows<'_, f32>,
        values: Rows<'_, f32>,
        position: Position<'_>,
    ) -> Result<()> {
        let (device, width) = (&self.device, self.width());
        let keys = Strided::new(device, "keys", keys, rows, width)?;
        let values = Strided::new(device, "values", values, rows, width)?;
        self.expect(position.now()?, rows)?;
        let plane = Plane::new(rows, width, width, &[keys, values]);
        let kernel = plane.kernel(["fill_pages_4", "fill_pages_1"]);
        let arguments = Fill {
            keys,
            values,
            table: self.table(device)?,
            position: position.placed(device)?,
            to_values: self.page_len() as u64,
            rows: rows as u64,
            width: width as u64,
        };
        device.launch(Module::Attention, kernel, plane.grid(), &arguments)
    }

    /// Copies all rows of page `index` to the host: keys and values, each `[KV_PAGE, kv_heads, head_dim]`;
    /// waits for all earlier work.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where there is no such page, or for a slice of another
    /// length; [`Error::Driver`](crate::Error::Driver).
    pub fn read(&self, index: usize, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        self.expect_lengths(keys, values)?;
        match self.pages().get(index) {
            None => refuse("page", index as f64, "one that is there"),
            Some(page) => {
                page.read(0, keys)?;
                page.read(self.page_len(), values)
            }
        }
    }

    /// The reverse of [`KvPages::read`].
    ///
    /// # Errors
    /// As [`KvPages::read`].
    pub fn write(&mut self, index: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        self.expect_lengths(keys, values)?;
        match self.pages().get_mut(index) {
            None => refuse("page", index as f64, "one that is there"),
            Some(page) => {
                page.write(keys, 0)?;
                page.write(values, self.page_len())
            }
        }
    }

    /// The table, for work of `device`; a graph that is being recorded keeps it and all pages, later ones
    /// too.
    pub(super) fn table(&self, device: &Device) -> Result<Pointer> {
        let table = self.table.pointer(device, 0, self.table.len())?;
        device.kernels.keep(&self.pages);
        Ok(table)
    }

    /// Whether the pages hold `rows` positions from `position` on.
    pub(super) fn expect(&self, position: usize, rows: usize) -> Result<()> {
        let held = self.positions();
        if position < held.start || position.checked_add(rows).is_none_or(|end| end > held.end) {
            return refuse("position", position as f64, "a position in the pages");
        }
        Ok(())
    }

    /// Elements of all keys of a page, and of all values.
    fn page_len(&self) -> usize {
        KV_PAGE * self.width()
    }

    /// Also after a panic elsewhere: the list is whole at any time.
    fn pages(&self) -> MutexGuard<'_, Vec<Buffer<f32>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_lengths(&self, keys: &[f32], values: &[f32]) -> Result<()> {
        for (tensor, actual) in [("keys", keys.len()), ("values", values.len())] {
            if actual != self.page_len() {
                let (expected, actual) = ([self.page_len()].into(), [actual].into());
                return Err(ArgumentError::Shape { tensor, expected, actual }.into());
            }
        }
        Ok(())
    }
}
