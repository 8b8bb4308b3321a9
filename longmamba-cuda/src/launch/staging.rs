//! Large copies from the host, through page-locked memory.
//!
//! The device reads page-locked memory by itself, at the full speed of the bus and while the host goes on;
//! from any other the driver first copies. So weights go through two pieces of such memory in turn: one is
//! filled while the other is on its way.

use super::{Pointer, lock, refuse_in_capture, upload};
use crate::buffer::DeviceElement;
use crate::{Buffer, Device, Error, Result};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};
use std::sync::Mutex;

/// Bytes of a piece. A copy of this size takes so much longer than its launch that larger ones gain nothing.
const PIECE: usize = 16 << 20;
/// Copies of fewer bytes are left to the driver.
const LARGE: usize = 1 << 20;

/// The pieces of a device, from the first large copy until they are given back.
#[derive(Debug, Default)]
pub(crate) struct Staging(Mutex<Option<Ring>>);

#[derive(Debug)]
struct Ring {
    pieces: [Piece; 2],
    /// The one that was used longer ago.
    next: usize,
}

#[derive(Debug)]
struct Piece {
    memory: PinnedHostSlice<u8>,
    /// After the last copy from it.
    copied: CudaEvent,
}

impl Drop for Piece {
    fn drop(&mut self) {
        // An error means that the context is lost, and with it the copy.
        let _ = self.copied.synchronize();
    }
}

impl Piece {
    fn new(device: &Device) -> std::result::Result<Self, DriverError> {
        // The thread sleeps while it waits.
        let copied = device.context.new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        // SAFETY: the bytes are whatever they are, which is good for u8; they are written before they are
        // copied.
        let memory = unsafe { device.context.alloc_pinned_with_flags(PIECE, 0) }?;
        Ok(Piece { memory, copied })
    }

    /// Copies what `fill` writes to the elements of `buffer` from `first` on, which is one of them. Returns
    /// how many those are.
    fn copy<T: DeviceElement>(
        &mut self,
        buffer: &Buffer<T>,
        first: usize,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<usize> {
        let device = &buffer.device;
        let fail = Error::driver("copy to the device");
        self.copied.synchronize().map_err(&fail)?;
        let (_, room, _) =
            bytemuck::pod_align_to_mut::<u8, T>(self.memory.as_mut_slice().map_err(&fail)?);
        let count = room.len().min(buffer.len() - first);
        let values = &mut room[..count];
        fill(values);
        let to = Pointer::new(device, buffer, first)?;
        // SAFETY: the range ends where the buffer does, at the latest. The memory is neither written nor freed
        // before the event that is recorded next has been waited for: above, and when the piece is dropped.
        let copied = unsafe { result::memcpy_htod_async(to.0, values, device.stream.cu_stream()) };
        copied.map_err(&fail)?;
        if let Err(error) = self.copied.record(&device.stream) {
            // Nothing else would tell when the memory is free again.
            let _ = device.stream.synchronize();
            return Err(fail(error));
        }
        Ok(count)
    }
}

impl Staging {
    /// Copies all elements of a buffer, which `fill` writes piece by piece, where there is page-locked memory
    /// for them; else returns `false`, and nothing was done.
    fn copy<T: DeviceElement>(
        buffer: &Buffer<T>,
        fill: &mut impl FnMut(usize, &mut [T]),
    ) -> Result<bool> {
        let (device, len) = (&buffer.device, buffer.len());
        if len.saturating_mul(size_of::<T>()) < LARGE || size_of::<T>() > LARGE {
            return Ok(false);
        }
        refuse_in_capture(device)?;
        let mut place = lock(&device.staging.0);
        let ring = match &mut *place {
            Some(ring) => ring,
            None => match (Piece::new(device), Piece::new(device)) {
                (Ok(one), Ok(two)) => place.insert(Ring { pieces: [one, two], next: 0 }),
                // The system lets no more memory be locked. It also goes without.
                _ => return Ok(false),
            },
        };
        let mut done = 0;
        while done < len {
            let piece = &mut ring.pieces[ring.next];
            done += piece.copy(buffer, done, |values| fill(done, values))?;
            ring.next = 1 - ring.next;
        }
        Ok(true)
    }

    /// Waits for the copies and gives the memory back.
    pub(crate) fn free(&self) {
        lock(&self.0).take();
    }
}

/// Copies `values` to all of a buffer of as many. Returns when they may change again.
pub(crate) fn upload_all<T: DeviceElement>(buffer: &mut Buffer<T>, values: &[T]) -> Result<()> {
    let mut fill = |at: usize, out: &mut [T]| out.copy_from_slice(&values[at..at + out.len()]);
    match Staging::copy(buffer, &mut fill)? {
        true => Ok(()),
        false => upload(buffer, values, 0),
    }
}

/// Copies to all of a buffer what `fill` writes, in order and a piece at a time: it is told how many elements
/// came before.
pub(crate) fn upload_pieces<T: DeviceElement>(
    buffer: &mut Buffer<T>,
    mut fill: impl FnMut(usize, &mut [T]),
) -> Result<()> {
    if Staging::copy(buffer, &mut fill)? {
        return Ok(());
    }
    let len = buffer.len();
    let mut piece = vec![T::zeroed(); len.min((PIECE / size_of::<T>().max(1)).max(1))];
    let mut done = 0;
    while done < len {
        let count = piece.len().min(len - done);
        let values = &mut piece[..count];
        fill(done, values);
        upload(buffer, values, done)?;
        done += count;
    }
    Ok(())
}
