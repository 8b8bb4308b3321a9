//! Work that is recorded once and replayed in one launch.

use crate::launch::{Kept, Recorded};
use crate::{Device, Error, Result};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence of launches and copies, to be done again with the same buffers and sizes. The buffers live
/// as long as the graph.
pub struct Graph {
    recorded: Recorded,
    device: Device,
    buffers: Kept,
    launches: usize,
}

/// What graphs have done on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphCounts {
    /// How many were recorded.
    pub recorded: u64,
    /// How often one was launched.
    pub launched: u64,
}

/// The same, while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    recorded: AtomicU64,
    launched: AtomicU64,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Graph");
        out.field("launches", &self.launches).field("buffers", &self.buffers.len());
        out.finish_non_exhaustive()
    }
}

impl Device {
    /// Records what `work` gives to the device from this thread, without doing it. `None` where it gave
    /// nothing.
    ///
    /// `work` must have been done once before: while it is recorded no kernel may be loaded, nothing
    /// allocated, and nothing copied to or from the host.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Capturing`] where another graph is being recorded;
    /// [`Error::Driver`].
    pub fn capture<E: From<Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<Graph>, E> {
        let fail = Error::driver("capture a graph");
        let stream = self.context.new_stream().map_err(&fail)?;
        if !self.kernels.start_capture(&stream) {
            return Err(Error::Capturing.into());
        }
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let begun = stream.begin_capture(mode).map_err(&fail);
        let done = begun.map_err(E::from).and_then(|()| work());
        let (buffers, launches) = self.kernels.stop_capture();
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).map_err(&fail);
        done?;
        let device = self.clone();
        let of = |graph| Graph { recorded: Recorded::new(graph), device, buffers, launches };
        let graph = graph?.map(of);
        if graph.is_some() {
            self.graphs.recorded.fetch_add(1, Ordering::Relaxed);
        }
        Ok(graph)
    }

    /// What graphs of this device and its clones have done so far.
    pub fn graphs(&self) -> GraphCounts {
        let Counters { recorded, launched } = &*self.graphs;
        let [recorded, launched] = [recorded, launched].map(|c| c.load(Ordering::Relaxed));
        GraphCounts { recorded, launched }
    }
}

impl Graph {
    /// Does the work once.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn launch(&mut self) -> Result<()> {
        self.recorded.replay(&self.device)?;
        self.device.graphs.launched.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many kernels that launches.
    pub fn launches(&self) -> usize {
        self.launches
    }
}
