//! Streams and events. What is kept of streams is which are being captured, and the copies that wait.

use super::code::*;
use super::entries;
use super::ffi::Out;
use super::state::{Event, Handle, State, Stream, state};
use std::time::Instant;

fn create(stream: &Out<Handle>, flags: u32) -> Status {
    let mut state = state()?;
    let device = state.here()?;
    if flags > 1 {
        return Err(INVALID_VALUE);
    }
    let handle = state.handle();
    let made = Stream { device, blocking: flags == 0, ..Stream::default() };
    state.streams.insert(handle, made);
    stream.set(handle)
}

/// Waiting for a stream that is being captured ends the capture.
fn not_capturing(state: &mut State, stream: Handle) -> Status {
    let capture = match state.stream(stream)? {
        Some(stream) => stream.capture,
        None => return state.legacy_work(),
    };
    if let Some(capture) = capture.and_then(|capture| state.captures.get_mut(&capture)) {
        capture.invalid = true;
        return Err(STREAM_CAPTURE_UNSUPPORTED);
    }
    Ok(())
}

/// An event recorded in a capture says nothing about time.
fn not_captured(state: &mut State, event: Handle) -> Status {
    let captured = state.events.get(&event).ok_or(INVALID_HANDLE)?.captured;
    if let Some(capture) = captured.and_then(|(capture, ..)| state.captures.get_mut(&capture)) {
        capture.invalid = true;
        return Err(CAPTURED_EVENT);
    }
    if captured.is_some() { Err(CAPTURED_EVENT) } else { Ok(()) }
}

/// What comes before an event is done.
fn reach(state: &mut State, event: Handle) -> Status {
    not_captured(state, event)?;
    let (stream, copies) = state.events.get(&event).ok_or(INVALID_HANDLE)?.after;
    state.finish(stream, copies)
}

/// A stream goes on after an event.
fn wait(state: &mut State, stream: Handle, event: Handle) -> Status {
    let found = state.events.get(&event).ok_or(INVALID_HANDLE)?;
    let (captured, recorded, after) = (found.captured, found.recorded.is_some(), found.after);
    let here = match state.stream(stream)? {
        Some(stream) => stream.capture,
        None => None,
    };
    let Some((capture, from, at)) = captured else {
        // Work that is not part of the graph cannot be waited for inside it.
        if let (Some(capture), true) = (here, recorded) {
            if let Some(capture) = state.captures.get_mut(&capture) {
                capture.invalid = true;
            }
            return Err(STREAM_CAPTURE_ISOLATION);
        }
        let (stream, copies) = after;
        return state.finish(stream, copies);
    };
    if !state.captures.contains_key(&capture) {
        return Err(CAPTURED_EVENT);
    }
    let origin = state.captures[&capture].origin;
    match here {
        Some(other) if other != capture => return Err(STREAM_CAPTURE_MERGE),
        Some(_) => {}
        None => match state.stream(stream)? {
            // The stream joins the capture.
            Some(joins) => joins.capture = Some(capture),
            None => return Err(STREAM_CAPTURE_IMPLICIT),
        },
    }
    if let Some(source) = state.stream(from)?
        && source.recorded == at
        && from != stream
    {
        source.unjoined = false;
    }
    if stream != origin
        && let Some(stream) = state.stream(stream)?
    {
        stream.unjoined = true;
    }
    Ok(())
}

entries! {
    fn cuStreamCreate(stream: Out<Handle>, flags: u32) {
        create(&stream, flags)
    }

    fn cuStreamCreateWithPriority(stream: Out<Handle>, flags: u32, _priority: i32) {
        create(&stream, flags)
    }

    fn cuStreamDestroy_v2(stream: Handle) {
        let mut state = state()?;
        // After a fault nothing is copied any more.
        let _ = state.finish(stream, u64::MAX);
        let gone = state.streams.remove(&stream).ok_or(INVALID_HANDLE)?;
        if let Some(capture) = gone.capture {
            state.captures.remove(&capture);
        }
        Ok(())
    }

    fn cuStreamSynchronize(stream: Handle) {
        let mut state = state()?;
        state.here()?;
        not_capturing(&mut state, stream)?;
        state.finish(stream, u64::MAX)
    }

    fn cuStreamQuery(stream: Handle) {
        let mut state = state()?;
        state.here()?;
        not_capturing(&mut state, stream)?;
        state.finish(stream, u64::MAX)
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) {
        let mut state = state()?;
        state.here()?;
        wait(&mut state, stream, event)
    }

    fn cuEventCreate(event: Out<Handle>, flags: u32) {
        let mut state = state()?;
        state.here()?;
        let handle = state.handle();
        let made = Event { timing: flags & 2 == 0, recorded: None, after: (0, 0), captured: None };
        state.events.insert(handle, made);
        event.set(handle)
    }

    fn cuEventDestroy_v2(event: Handle) {
        state()?.events.remove(&event).map(drop).ok_or(INVALID_HANDLE)
    }

    fn cuEventRecord(event: Handle, stream: Handle) {
        let mut state = state()?;
        state.here()?;
        let (captured, copies) = match state.stream(stream)? {
            Some(found) => {
                (found.capture.map(|capture| (capture, stream, found.recorded)), found.copies)
            }
            None => {
                state.legacy_work()?;
                (None, 0)
            }
        };
        let event = state.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
        event.captured = captured;
        event.after = (stream, copies);
        event.recorded = captured.is_none().then(Instant::now);
        Ok(())
    }

    fn cuEventQuery(event: Handle) {
        let mut state = state()?;
        state.here()?;
        reach(&mut state, event)
    }

    fn cuEventSynchronize(event: Handle) {
        let mut state = state()?;
        state.here()?;
        reach(&mut state, event)
    }

    fn cuEventElapsedTime(milliseconds: Out<f32>, start: Handle, end: Handle) {
        let mut state = state()?;
        state.here()?;
        reach(&mut state, start)?;
        reach(&mut state, end)?;
        let time = |event: Handle| {
            let event = state.events.get(&event).ok_or(INVALID_HANDLE)?;
            event.recorded.filter(|_| event.timing).ok_or(INVALID_HANDLE)
        };
        let (start, end) = (time(start)?, time(end)?);
        let forward = end.checked_duration_since(start).map(|time| time.as_secs_f32());
        let seconds = forward.unwrap_or_else(|| -start.duration_since(end).as_secs_f32());
        milliseconds.set(seconds * 1000.0)
    }
}
