use super::KvPage;
use crate::launch::Pointer;
use crate::{Buffer, Device, Result};

/// The most lists of pages that are kept: attention layers times sequences, mostly.
const TABLES: usize = 256;

/// Room for [`Device::attention`]. It grows to what the largest call needs, and then stays; for one device.
///
/// The addresses of pages are kept on the device and sent anew only where they changed. One scratch serves
/// all layers: it knows a layer's list by its first page.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    tables: Vec<Table>,
    /// Which table goes where there is no room for another.
    oldest: usize,
    sums: Option<Buffer<f32>>,
    stats: Option<Buffer<f32>>,
}

#[derive(Debug)]
struct Table {
    /// What the device has.
    addresses: Vec<u64>,
    buffer: Buffer<u64>,
}

impl AttentionScratch {
    /// Empty; memory is taken when it is needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses of `pages`, on the device; there is at least one.
    pub(super) fn table(&mut self, device: &Device, pages: &[KvPage]) -> Result<Pointer> {
        let first = address(device, &pages[0])?;
        // With a window the first page goes and the second takes its place.
        let found = self.tables.iter().position(|table| table.addresses.contains(&first));
        let index = match found {
            Some(index) => index,
            None if self.tables.len() < TABLES => {
                self.tables.push(Table { addresses: Vec::new(), buffer: device.zeros(0)? });
                self.tables.len() - 1
            }
            None => {
                self.oldest = (self.oldest + 1) % TABLES;
                self.oldest
            }
        };
        self.tables[index].update(device, pages)
    }

    /// Room for so many sums and so many statistics.
    pub(super) fn partial(
        &mut self,
        device: &Device,
        sums: usize,
        stats: usize,
    ) -> Result<[Pointer; 2]> {
        Ok([room(&mut self.sums, device, sums)?, room(&mut self.stats, device, stats)?])
    }
}

impl Table {
    fn update(&mut self, device: &Device, pages: &[KvPage]) -> Result<Pointer> {
        if self.buffer.len() < pages.len() {
            // Room for as many again, so that growing seldom moves it.
            self.addresses.clear();
            self.buffer = device.zeros(2 * pages.len())?;
        }
        let mut same = 0;
        for (at, page) in pages.iter().enumerate() {
            let address = address(device, page)?;
            if self.addresses.get(at) == Some(&address) {
                same += usize::from(same == at);
                continue;
            }
            match self.addresses.get_mut(at) {
                Some(old) => *old = address,
                None => self.addresses.push(address),
            }
        }
        self.addresses.truncate(pages.len());
        if let Err(error) = self.buffer.write(&self.addresses[same..], same) {
            // Nobody knows what the device has.
            self.addresses.clear();
            return Err(error);
        }
        self.buffer.pointer(device, 0, pages.len())
    }
}

fn address(device: &Device, page: &KvPage) -> Result<u64> {
    Ok(bytemuck::cast(page.pointer(device)?))
}

fn room(buffer: &mut Option<Buffer<f32>>, device: &Device, len: usize) -> Result<Pointer> {
    match buffer {
        Some(buffer) if buffer.len() >= len => buffer.pointer(device, 0, len),
        _ => buffer.insert(device.zeros(len)?).pointer(device, 0, len),
    }
}
