//! Capture of streams, and the graphs that come of it.

use super::code::*;
use super::entries;
use super::ffi::Out;
use super::operation::{record, run};
use super::state::{Capture, Graph, Handle, State, state};
use std::sync::Arc;

/// Ends a capture and returns its operations.
fn end(state: &mut State, stream: Handle) -> Result<Graph, i32> {
    let device = state.here()?;
    let handle = match state.stream(stream)? {
        Some(found) => found.capture.ok_or(INVALID_VALUE)?,
        None => return Err(INVALID_VALUE),
    };
    let capture = state.captures.get(&handle).ok_or(UNKNOWN)?;
    if capture.origin != stream {
        return Err(STREAM_CAPTURE_UNMATCHED);
    }
    if capture.mode != 2 && capture.thread != std::thread::current().id() {
        return Err(STREAM_CAPTURE_WRONG_THREAD);
    }
    let mut unjoined = false;
    for (other, found) in &mut state.streams {
        if found.capture == Some(handle) {
            unjoined |= *other != stream && found.unjoined;
            found.capture = None;
            found.unjoined = false;
        }
    }
    let capture = state.captures.remove(&handle).ok_or(UNKNOWN)?;
    if capture.invalid {
        return Err(STREAM_CAPTURE_INVALIDATED);
    }
    if unjoined {
        return Err(STREAM_CAPTURE_UNJOINED);
    }
    Ok(Graph { device, operations: Arc::new(capture.operations) })
}

fn instantiate(exec: &Out<Handle>, graph: Handle, flags: u64) -> Status {
    // Freeing on launch and launching from the device exclude each other.
    if flags > 15 || flags & 5 == 5 {
        return Err(INVALID_VALUE);
    }
    let mut state = state()?;
    state.here()?;
    let found = state.graphs.get(&graph).ok_or(INVALID_VALUE)?;
    let copy = Graph { device: found.device, operations: Arc::clone(&found.operations) };
    let handle = state.handle();
    state.execs.insert(handle, copy);
    exec.set(handle)
}

entries! {
    fn cuStreamBeginCapture_v2(stream: Handle, mode: u32) {
        let mut state = state()?;
        state.here()?;
        if mode > 2 {
            return Err(INVALID_VALUE);
        }
        let handle = state.handle();
        match state.stream(stream)? {
            // The legacy stream cannot be captured.
            None => return Err(STREAM_CAPTURE_UNSUPPORTED),
            Some(found) if found.capture.is_some() => return Err(ILLEGAL_STATE),
            Some(found) => {
                found.capture = Some(handle);
                found.recorded = 0;
            }
        }
        let thread = std::thread::current().id();
        let capture =
            Capture { origin: stream, thread, mode, operations: Vec::new(), invalid: false };
        state.captures.insert(handle, capture);
        Ok(())
    }

    fn cuStreamEndCapture(stream: Handle, graph: Out<Handle>) {
        let mut state = state()?;
        match end(&mut state, stream) {
            Ok(found) => {
                let handle = state.handle();
                state.graphs.insert(handle, found);
                graph.set(handle)
            }
            Err(code) => {
                graph.set_if(0);
                Err(code)
            }
        }
    }

    fn cuStreamIsCapturing(stream: Handle, status: Out<u32>) {
        let mut state = state()?;
        state.here()?;
        let capture = match state.stream(stream)? {
            Some(stream) => stream.capture,
            None => None,
        };
        let capture = capture.and_then(|capture| state.captures.get(&capture));
        status.set(capture.map_or(0, |capture| if capture.invalid { 2 } else { 1 }))
    }

    fn cuGraphInstantiateWithFlags(exec: Out<Handle>, graph: Handle, flags: u64) {
        instantiate(&exec, graph, flags)
    }

    fn cuGraphGetNodes(graph: Handle, nodes: usize, count: Out<usize>) {
        if nodes != 0 {
            return Err(NOT_SUPPORTED);
        }
        let state = state()?;
        count.set(state.graphs.get(&graph).ok_or(INVALID_VALUE)?.operations.len())
    }

    fn cuGraphUpload(exec: Handle, _stream: Handle) {
        if state()?.execs.contains_key(&exec) { Ok(()) } else { Err(INVALID_VALUE) }
    }

    fn cuGraphLaunch(exec: Handle, stream: Handle) {
        let mut state = state()?;
        state.here()?;
        let found = state.execs.get(&exec).ok_or(INVALID_VALUE)?;
        let (device, operations) = (found.device, Arc::clone(&found.operations));
        if record(&mut state, stream, &operations)? {
            return Ok(());
        }
        state.finish(stream, u64::MAX)?;
        drop(state);
        run(device, &operations)
    }

    fn cuGraphExecDestroy(exec: Handle) {
        state()?.execs.remove(&exec).map(drop).ok_or(INVALID_VALUE)
    }

    fn cuGraphDestroy(graph: Handle) {
        state()?.graphs.remove(&graph).map(drop).ok_or(INVALID_VALUE)
    }
}
