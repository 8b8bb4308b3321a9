//! The caller's pointers. A value of these types comes only as an argument of an entry point, whose
//! contract is that the pointer is null or good for what the entry point documents; null is refused.

use super::code::{INVALID_VALUE, Status};
use std::ffi::{CStr, c_char, c_void};

/// Where a result goes.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(super) fn set(&self, value: T) -> Status {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        self.set_if(value);
        Ok(())
    }

    /// As [`Self::set`], where null means that the caller does not want it.
    pub(super) fn set_if(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, so by the contract of the entry point valid for writing a `T`.
            unsafe { self.0.write(value) };
        }
    }
}

impl Out<u64> {
    /// Where what is written is of 32 bits, which only another argument says.
    pub(super) fn set_u32(&self, value: u32) -> Status {
        Out(self.0.cast::<u32>()).set(value)
    }
}

impl Out<c_char> {
    /// Writes a string with its NUL, cut to the length of the buffer.
    pub(super) fn text(&self, text: &str, len: i32) -> Status {
        let len = usize::try_from(len).map_err(|_| INVALID_VALUE)?;
        if self.0.is_null() || len == 0 {
            return Err(INVALID_VALUE);
        }
        let bytes = &text.as_bytes()[..text.len().min(len - 1)];
        for (at, byte) in bytes.iter().chain(&[0]).enumerate() {
            // SAFETY: the buffer has `len` bytes by the contract of the entry point, `at < len`.
            unsafe { self.0.add(at).write(*byte as c_char) };
        }
        Ok(())
    }
}

/// Memory of the host.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host(*mut u8);

// SAFETY: a number until it is used; whoever uses it relies on the contract of the entry point, which
// for captured copies holds for as long as the graph may be launched, from whichever thread.
unsafe impl Send for Host {}
// SAFETY: as above; nothing is read or written through a shared reference without that contract.
unsafe impl Sync for Host {}

impl Host {
    pub(super) fn null() -> Self {
        Self(std::ptr::null_mut())
    }

    pub(super) fn from_box(bytes: Box<[u64]>) -> Self {
        Self(Box::into_raw(bytes).cast())
    }

    /// Frees what [`Self::from_box`] made of a box of that many numbers.
    pub(super) fn free(self, numbers: usize) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.0.cast::<u64>(), numbers);
        // SAFETY: the caller looked the address and the length up in its record of such boxes, and
        // removed them from it, so this is the one time that it is freed.
        drop(unsafe { Box::from_raw(slice) });
    }

    pub(super) fn address(self) -> usize {
        self.0 as usize
    }

    /// The bytes to copy from.
    pub(super) fn read<R>(self, len: usize, f: impl FnOnce(&[u8]) -> R) -> Result<R, i32> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: by the contract of the entry point the caller's buffer has `len` bytes, and nobody
        // writes it during the call, or, of a copy that was put off, before the copy is waited for.
        Ok(f(unsafe { std::slice::from_raw_parts(self.0, len) }))
    }

    /// The bytes to copy to.
    pub(super) fn write<R>(self, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, i32> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: by the contract of the entry point the caller's buffer has `len` bytes, and nobody
        // else touches it during the call, or before a copy that was put off is waited for. Any bytes are valid bytes.
        Ok(f(unsafe { std::slice::from_raw_parts_mut(self.0, len) }))
    }
}

/// A string of the caller, up to its NUL.
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub(super) fn get(&self) -> Result<&str, i32> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so by the contract of the entry point a string that ends in NUL.
        unsafe { CStr::from_ptr(self.0) }.to_str().map_err(|_| INVALID_VALUE)
    }

    /// Whether the first bytes are these, which ends at a NUL before comparing on.
    pub(super) fn starts(&self, with: &[u8]) -> bool {
        !self.0.is_null()
            && with.iter().enumerate().all(|(at, byte)| {
                // SAFETY: bytes before `at` were equal to those of `with`, none of which is NUL, so
                // the string goes on to here.
                unsafe { self.0.add(at).read() as u8 == *byte }
            })
    }
}

/// The arguments of a launch: an array of pointers, one to each.
#[repr(transparent)]
pub(crate) struct Args(*mut *mut c_void);

impl Args {
    /// The bytes of the argument at an index.
    pub(super) fn get(&self, index: usize, size: usize) -> Result<Vec<u8>, i32> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so by the contract of `cuLaunchKernel` an array with an entry for each
        // parameter of the kernel; `index` is one of those.
        let pointer = unsafe { self.0.add(index).read() };
        if pointer.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: by the same contract the entry points at as many bytes as the parameter has.
        Ok(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) }.to_vec())
    }

    pub(super) fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// A function of the caller with its argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callback {
    pub(super) function: extern "C" fn(*mut c_void),
    pub(super) data: *mut c_void,
}

// SAFETY: the contract of `cuLaunchHostFunc` is that the function may be called from any thread.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl Callback {
    pub(super) fn call(self) {
        (self.function)(self.data);
    }
}
