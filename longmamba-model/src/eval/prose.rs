//! Prose to hide things in, where the caller has no text at hand.

use super::samples;
use crate::backend::Backend;
use crate::generate::{GenerateOptions, decode};
use crate::model::Model;
use crate::sample::{SampleOptions, Sampler};
use crate::session::SessionOptions;
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Bytes that are sampled from one state: a model drifts from its own distribution with time.
const PIECE: usize = 256;

/// At least `len` bytes of text sampled from a byte model, in pieces of 256 bytes from a fresh state
/// each, without `<` and `>`. `progress` is called with the bytes of each piece.
///
/// # Errors
/// [`Error::Argument`] where the model's tokens are not bytes; [`Error::Logit`] where it breaks down.
pub fn sampled<B: Backend>(
    model: &Arc<Model<B>>,
    len: usize,
    seed: u64,
    progress: super::Progress<'_>,
) -> Result<Vec<u8>> {
    let config = model.config();
    if config.tokenizer != crate::TokenizerKind::Bytes {
        return Err(Error::argument(
            "prose can be sampled from models whose tokens are bytes only",
        ));
    }
    let above = 256..u32::try_from(config.vocab_size).unwrap_or(u32::MAX);
    let banned: Vec<u32> = [b'<', b'>'].map(u32::from).into_iter().chain(above).collect();
    let pieces = samples(model, len.div_ceil(PIECE), |index| {
        let seed = seed.wrapping_add(index as u64);
        let options =
            SampleOptions { temperature: 1.0, banned: banned.clone(), seed, ..Default::default() };
        let mut sampler = Sampler::new(options)?;
        let mut session =
            model.session(SessionOptions { chunk_len: Some(1), ..Default::default() })?;
        // A line begins; what stood before is left open.
        session.prefill(&[u32::from(b'\n')])?;
        let mut piece = Vec::with_capacity(PIECE);
        let until = GenerateOptions { max_new: PIECE, stop: Vec::new() };
        decode(&mut session, &mut sampler, &until, |token| {
            // Everything from 256 on is banned.
            piece.push(token as u8);
            ControlFlow::Continue(())
        })?;
        progress(PIECE);
        Ok(piece)
    })?;
    Ok(pieces.concat())
}

/// At least `words` words of plain sentences about nothing, the same for the same seed. They stand in
/// for a text of the caller's; they repeat themselves far more than a book does.
pub fn plain(words: usize, seed: u64) -> String {
    const WHO: [&str; 12] = [
        "The baker",
        "A tall gardener",
        "My neighbour",
        "The old ferryman",
        "Her cousin",
        "The clerk",
        "A young teacher",
        "The miller's son",
        "Our guide",
        "The quiet tailor",
        "A sailor",
        "The postman",
    ];
    const DID: [&str; 12] = [
        "walked past",
        "looked for",
        "spoke about",
        "swept",
        "painted",
        "sat beside",
        "remembered",
        "repaired",
        "waited near",
        "drew a picture of",
        "leaned on",
        "counted the windows of",
    ];
    const WHAT: [&str; 12] = [
        "the stone bridge",
        "a green door",
        "the orchard wall",
        "the market hall",
        "an empty cart",
        "the lighthouse",
        "a row of poplars",
        "the village pump",
        "the school bench",
        "a broken fence",
        "the winding lane",
        "the long table",
    ];
    const WHEN: [&str; 10] = [
        "before the rain came",
        "while the bells rang",
        "on a mild afternoon",
        "without a word",
        "until the lamps were lit",
        "as the tide went out",
        "in the first week of spring",
        "and then went home",
        "because there was time",
        "after the harvest",
    ];
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = String::new();
    let mut count = 0;
    while count < words {
        let sentence =
            [&WHO[..], &DID, &WHAT, &WHEN].map(|list| list[random.usize(..list.len())]).join(" ");
        count += sentence.split(' ').count();
        text.push_str(&sentence);
        text.push_str(if random.u8(..8) == 0 { ".\n" } else { ". " });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_prose_is_long_enough_and_repeats_by_seed() {
        for words in [0, 1, 500] {
            assert!(plain(words, 1).split_whitespace().count() >= words);
        }
        assert_eq!(plain(100, 1), plain(100, 1));
        assert_ne!(plain(100, 1), plain(100, 2));
    }
}
