//! All that the driver knows, behind one lock that is not held while kernels run.

use super::code::*;
use super::operation::Operation;
use super::pending::Pending;
use crate::device::{Config, Emulator, Module, lock};
use crate::exec::code::Kernel;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::ThreadId;
use std::time::Instant;

/// A handle as C sees it: a pointer, here a number.
pub(crate) type Handle = usize;

/// The default streams have fixed handles.
pub(super) const PER_THREAD_STREAM: Handle = 2;

pub(super) struct Device {
    pub emulator: Arc<Emulator>,
    /// The error that a kernel left; all calls return it until the context is gone.
    pub lost: Option<i32>,
    /// The primary context and how often it is retained.
    pub primary: Option<(Handle, u32)>,
}

pub(super) struct LoadedModule {
    pub device: usize,
    pub module: Module,
}

pub(super) struct Function {
    pub device: usize,
    pub module: Handle,
    pub kernel: Arc<Kernel>,
    pub max_dynamic: u32,
}

#[derive(Default)]
pub(super) struct Stream {
    pub device: usize,
    /// Synchronises with the legacy default stream.
    pub blocking: bool,
    pub capture: Option<Handle>,
    /// Operations of the capture so far.
    pub recorded: u64,
    /// Has work that the stream where the capture began does not wait for.
    pub unjoined: bool,
    /// Copies that were put off, and how many there ever were.
    pub pending: VecDeque<Pending>,
    pub copies: u64,
}

pub(super) struct Event {
    pub timing: bool,
    pub recorded: Option<Instant>,
    /// Stream, and how many copies it had put off by then.
    pub after: (Handle, u64),
    /// Capture, stream, and how far the stream was.
    pub captured: Option<(Handle, Handle, u64)>,
}

pub(super) struct Capture {
    pub origin: Handle,
    pub thread: ThreadId,
    /// 0 global, 1 of the thread, 2 relaxed.
    pub mode: u32,
    pub operations: Vec<Operation>,
    pub invalid: bool,
}

/// Operations in an order in which they may run.
pub(super) struct Graph {
    pub device: usize,
    pub operations: Arc<Vec<Operation>>,
}

#[derive(Default)]
pub(super) struct State {
    pub devices: Vec<Device>,
    next: Handle,
    /// Contexts and their devices.
    pub contexts: HashMap<Handle, usize>,
    pub modules: HashMap<Handle, LoadedModule>,
    pub functions: HashMap<Handle, Function>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub captures: HashMap<Handle, Capture>,
    pub graphs: HashMap<Handle, Graph>,
    pub execs: HashMap<Handle, Graph>,
    /// Page-locked memory: address and length in numbers of 64 bits.
    pub host: HashMap<usize, usize>,
}

static STATE: OnceLock<Mutex<State>> = OnceLock::new();
static TRACE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The contexts of the thread, the current one last.
    static CONTEXTS: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// Whether calls that fail are told on stderr.
pub(super) fn trace() -> bool {
    TRACE.load(Relaxed)
}

/// `cuInit`.
pub(super) fn init() -> Status {
    let state = STATE.get_or_init(|| {
        let config = Config::from_env();
        TRACE.store(config.trace, Relaxed);
        let device = |_| Device {
            emulator: Arc::new(Emulator::new(config.clone())),
            lost: None,
            primary: None,
        };
        let devices = (0..config.devices).map(device).collect();
        Mutex::new(State { devices, next: 0x1000, ..State::default() })
    });
    if lock(state).devices.is_empty() { Err(NO_DEVICE) } else { Ok(()) }
}

/// The state, once initialised.
pub(super) fn state() -> Result<MutexGuard<'static, State>, i32> {
    STATE.get().map(lock).ok_or(NOT_INITIALIZED)
}

/// The current context of the thread, zero for none.
pub(super) fn current() -> Handle {
    CONTEXTS.with_borrow(|contexts| contexts.last().copied().unwrap_or(0))
}

pub(super) fn set_current(context: Handle) {
    CONTEXTS.with_borrow_mut(|contexts| {
        contexts.pop();
        if context != 0 {
            contexts.push(context);
        }
    });
}

pub(super) fn push_current(context: Handle) {
    CONTEXTS.with_borrow_mut(|contexts| contexts.push(context));
}

pub(super) fn pop_current() -> Result<Handle, i32> {
    CONTEXTS.with_borrow_mut(|contexts| contexts.pop().ok_or(INVALID_CONTEXT))
}

impl State {
    /// A handle that was never used.
    pub(super) fn handle(&mut self) -> Handle {
        self.next += 16;
        self.next
    }

    pub(super) fn device(&mut self, device: i32) -> Result<&mut Device, i32> {
        let index = usize::try_from(device).map_err(|_| INVALID_DEVICE)?;
        self.devices.get_mut(index).ok_or(INVALID_DEVICE)
    }

    /// The device of the current context, if that still works.
    pub(super) fn here(&self) -> Result<usize, i32> {
        self.working(*self.contexts.get(&current()).ok_or(INVALID_CONTEXT)?)
    }

    fn working(&self, device: usize) -> Result<usize, i32> {
        match self.devices[device].lost {
            Some(code) => Err(code),
            None => Ok(device),
        }
    }

    /// The device of a stream, whichever context is current, if that still works.
    pub(super) fn device_of(&mut self, stream: Handle) -> Result<usize, i32> {
        match self.stream(stream)?.map(|found| found.device) {
            Some(device) => self.working(device),
            None => self.here(),
        }
    }

    pub(super) fn emulator_of(&mut self, stream: Handle) -> Result<Arc<Emulator>, i32> {
        let device = self.device_of(stream)?;
        Ok(Arc::clone(&self.devices[device].emulator))
    }

    pub(super) fn emulator(&self) -> Result<Arc<Emulator>, i32> {
        Ok(Arc::clone(&self.devices[self.here()?].emulator))
    }

    /// The stream of a handle; none for the legacy default stream.
    pub(super) fn stream(&mut self, handle: Handle) -> Result<Option<&mut Stream>, i32> {
        match handle {
            0 | 1 => Ok(None),
            PER_THREAD_STREAM => {
                let device = self.here()?;
                let stream = Stream { device, blocking: true, ..Stream::default() };
                Ok(Some(self.streams.entry(handle).or_insert(stream)))
            }
            _ => self.streams.get_mut(&handle).map(Some).ok_or(INVALID_HANDLE),
        }
    }

    /// Refuses what must not happen while a stream is being captured.
    pub(super) fn outside_capture(&mut self) -> Status {
        let me = std::thread::current().id();
        for capture in self.captures.values_mut() {
            if capture.mode == 0 || capture.mode == 1 && capture.thread == me {
                capture.invalid = true;
                return Err(STREAM_CAPTURE_UNSUPPORTED);
            }
        }
        Ok(())
    }

    /// Refuses work for the legacy stream that would wait for a stream that is being captured.
    pub(super) fn legacy_work(&mut self) -> Status {
        let captures = self.streams.values().filter(|s| s.blocking).filter_map(|s| s.capture);
        let captures: Vec<Handle> = captures.collect();
        for capture in &captures {
            if let Some(capture) = self.captures.get_mut(capture) {
                capture.invalid = true;
            }
        }
        if captures.is_empty() { Ok(()) } else { Err(STREAM_CAPTURE_IMPLICIT) }
    }
}
