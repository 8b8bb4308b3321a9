use crate::arguments::refuse;
use crate::launch::Pointer;
use crate::{Buffer, Device, Result};

/// Where in its sequence a row is.
#[derive(Clone, Copy, Debug)]
pub enum Position<'a> {
    /// Here; a recorded launch stays there.
    Fixed(usize),
    /// Where number `.1` of these is when the work is done: a recorded launch follows it.
    Stored(&'a Positions, usize),
}

/// Positions that are kept on a device, so that work which was recorded once can be done further on.
#[derive(Debug)]
pub struct Positions {
    values: Vec<u64>,
    /// The same, on the device.
    stored: Buffer<u64>,
}

/// `Position` in `position.cuh`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Placed {
    stored: Pointer,
    given: u64,
}

impl Positions {
    /// Room for `count` positions, all 0.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Driver`](crate::Error::Driver).
    pub fn new(device: &Device, count: usize) -> Result<Self> {
        Ok(Positions { values: vec![0; count], stored: device.zeros(count)? })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Number `index` of them.
    pub fn get(&self, index: usize) -> Option<usize> {
        self.values.get(index).map(|&position| position as usize)
    }

    /// Sets the first of them, in one copy to the device, for all work that is given to it from here on,
    /// replays included.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for more than there are;
    /// [`Error::NotRecordable`](crate::Error::NotRecordable) while a graph is recorded;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn set(&mut self, positions: impl ExactSizeIterator<Item = usize>) -> Result<()> {
        let count = positions.len();
        if count > self.len() {
            return refuse("positions", count as f64, "at most as many as there is room for");
        }
        for (value, position) in self.values.iter_mut().zip(positions) {
            *value = position as u64;
        }
        self.stored.write(&self.values[..count], 0)
    }
}

impl Position<'_> {
    /// Where it is now.
    pub(crate) fn now(self) -> Result<usize> {
        match self {
            Position::Fixed(position) => Ok(position),
            Position::Stored(positions, index) => match positions.get(index) {
                Some(position) => Ok(position),
                None => refuse("position's number", index as f64, "that of a stored one"),
            },
        }
    }

    /// For work of `device`.
    pub(crate) fn placed(self, device: &Device) -> Result<Placed> {
        match self {
            Position::Fixed(position) => {
                Ok(Placed { stored: Pointer::NULL, given: position as u64 })
            }
            Position::Stored(positions, index) => {
                Ok(Placed { stored: positions.stored.pointer(device, index, 1)?, given: 0 })
            }
        }
    }
}
