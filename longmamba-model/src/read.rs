//! Reading tokens of one or several sequences, chunk by chunk.

use crate::Result;
use crate::backend::{Activations, Backend};
use crate::model::{Model, Observer};
use crate::sequence::Sequence;
use crate::workspace::{Segment, Workspace};
use std::ops::Range;
use std::slice;

/// What is done with logits: the sequence, the index of the token among those it was given, logits.
pub(crate) type Sink<'a> = &'a mut (dyn FnMut(usize, usize, &[f32]) + Send);

/// Reads `prompts[i]` into `sequences[i]`, and leaves the logits of the last tokens there. A chunk is
/// filled with whatever sequence comes next, so that no row is padding. `sink` gets the logits of the
/// tokens whose index lies in `wanted`.
pub(crate) fn read<B: Backend>(
    model: &Model<B>,
    work: &mut Workspace<B>,
    sequences: &mut [Sequence<B>],
    prompts: &[&[u32]],
    wanted: Range<usize>,
    sink: Sink<'_>,
    mut observer: Option<Observer<'_>>,
) -> Result<()> {
    let (mut sequence, mut token) = (0, 0);
    loop {
        work.tokens.clear();
        work.segments.clear();
        work.kept.clear();
        while work.tokens.len() < work.chunk_len && sequence < prompts.len() {
            let rest = &prompts[sequence][token..];
            if rest.is_empty() {
                (sequence, token) = (sequence + 1, 0);
                continue;
            }
            let (first, rows) =
                (work.tokens.len(), rest.len().min(work.chunk_len - work.tokens.len()));
            work.tokens.extend_from_slice(&rest[..rows]);
            work.segments.push(Segment { sequence, first, rows, tokens: rows, token });
            token += rows;
        }
        if work.segments.is_empty() {
            return Ok(());
        }
        #[expect(clippy::option_as_ref_deref, reason = "it cannot shorten the closure's lifetime")]
        let observer = observer.as_mut().map(|o| -> Observer<'_> { &mut **o });
        forward(model, work, sequences, observer)?;
        score(model, work, sequences, prompts, &wanted, sink)?;
    }
}

/// Reads one token, and leaves its logits in the first row of `work.logits` alone: those of the sequence
/// become NaN, so that nobody takes them for the new ones.
pub(crate) fn read_one<B: Backend>(
    model: &Model<B>,
    work: &mut Workspace<B>,
    sequence: &mut Sequence<B>,
    token: u32,
) -> Result<()> {
    work.tokens.clear();
    work.tokens.push(token);
    work.segments.clear();
    work.kept.clear();
    work.segments.push(Segment { sequence: 0, first: 0, rows: 1, tokens: 1, token: 0 });
    forward(model, work, slice::from_mut(sequence), None)?;
    sequence.logits.fill(f32::NAN);
    model.logits(0, 1, work)
}

/// The chunk in `work` through all layers.
fn forward<B: Backend>(
    model: &Model<B>,
    work: &mut Workspace<B>,
    sequences: &mut [Sequence<B>],
    observer: Option<Observer<'_>>,
) -> Result<()> {
    model.forward(work, sequences, observer)?;
    for segment in &work.segments {
        sequences[segment.sequence].position += segment.tokens;
    }
    Ok(())
}

/// Logits of the chunk's wanted rows, and of those that end a prompt.
fn score<B: Backend>(
    model: &Model<B>,
    work: &mut Workspace<B>,
    sequences: &mut [Sequence<B>],
    prompts: &[&[u32]],
    wanted: &Range<usize>,
    sink: Sink<'_>,
) -> Result<()> {
    work.scored.clear();
    for (index, segment) in work.segments.iter().enumerate() {
        let end = prompts[segment.sequence].len();
        for row in segment.first..segment.first + segment.rows {
            let token = work.token(segment, row);
            if wanted.contains(&token) || token + 1 == end {
                work.scored.push((row, index));
            }
        }
    }
    let stride = B::Buffer::row_stride(model.config().vocab_rows);
    let mut done = 0;
    while done < work.scored.len() {
        // A run of neighbouring rows is one product.
        let (first, _) = work.scored[done];
        let rows = work.scored[done..].iter().take(work.logit_rows).enumerate();
        let count = rows.take_while(|(i, (row, _))| *row == first + i).count();
        model.logits(first, count, work)?;
        for i in 0..count {
            let (row, index) = work.scored[done + i];
            let segment = work.segments[index];
            let token = work.token(&segment, row);
            let logits = &mut sequences[segment.sequence].logits;
            model.backend().read(&work.logits, i * stride, logits)?;
            if wanted.contains(&token) {
                sink(segment.sequence, token, logits);
            }
        }
        done += count;
    }
    Ok(())
}
