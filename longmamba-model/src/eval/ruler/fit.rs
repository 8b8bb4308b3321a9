//! How much context fits a length.

use crate::Result;

/// The sizes that a task can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// The smallest.
    pub least: usize,
    /// Sizes are this far apart.
    pub step: usize,
    /// By how much a sample shrinks that came out too long.
    pub shrink: usize,
}

/// The largest size whose sample has at most `limit` tokens, within what one step adds; `None` where
/// not even the smallest fits. `probe` gives the tokens of a sample of a size, which grow with it on the
/// whole though not from each size to the next.
///
/// Tokens are about linear in the size, so that a few probes do.
pub(super) fn fit(
    sizes: Sizes,
    limit: usize,
    mut probe: impl FnMut(usize) -> Result<usize>,
) -> Result<Option<usize>> {
    let Sizes { least, step, .. } = sizes;
    let least_tokens = probe(least)?;
    if least_tokens > limit {
        return Ok(None);
    }
    // All in steps above the smallest. A step is a token at least, or we do not ask for more.
    let (mut low, mut low_tokens) = (0, least_tokens);
    let mut high = limit.max(1) + 1;
    let mut per_step = None;
    for probes in 1.. {
        if high - low <= 1 || per_step.is_some_and(|p| ((limit - low_tokens) as f64) < p) {
            break;
        }
        // The first probe is as far as the smallest size is, to find out what a step adds; of four
        // probes one halves, so that there is an end whatever tokens do.
        let guess = match per_step {
            None => (least / step).max(1),
            Some(_) if probes % 4 == 0 => low + (high - low) / 2,
            Some(per_step) => low.saturating_add(((limit - low_tokens) as f64 / per_step) as usize),
        };
        let guess = guess.clamp(low + 1, high - 1);
        let tokens = probe(least + guess * step)?;
        let added = tokens.saturating_sub(least_tokens) as f64 / guess as f64;
        per_step = Some(added.max(f64::MIN_POSITIVE));
        if tokens <= limit {
            (low, low_tokens) = (guess, tokens);
        } else {
            high = guess;
        }
    }
    Ok(Some(least + low * step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(sizes: Sizes, limit: usize, tokens: impl Fn(usize) -> usize) -> (Option<usize>, u32) {
        let mut probes = 0;
        let size = fit(sizes, limit, |size| {
            probes += 1;
            assert!(size >= sizes.least && (size - sizes.least) % sizes.step == 0);
            Ok(tokens(size))
        });
        (size.unwrap(), probes)
    }

    proptest! {
        #[test]
        fn what_fits_is_as_large_as_it_can_be(
            least in 1usize..600,
            step in 1usize..300,
            fixed in 0usize..500,
            rate in 0.05f64..200.0,
            limit in 1usize..200_000,
        ) {
            let tokens = |size: usize| fixed + (size as f64 * rate) as usize;
            let sizes = Sizes { least, step, shrink: step };
            let (size, probes) = found(sizes, limit, tokens);
            match size {
                None => prop_assert!(tokens(least) > limit),
                Some(size) => {
                    prop_assert!(tokens(size) <= limit);
                    let cap = least + limit * step;
                    prop_assert!(tokens(size + step) + 1 >= limit.min(tokens(cap)), "{size}");
                }
            }
            prop_assert!(probes <= 12, "{probes}");
        }

        #[test]
        fn there_is_an_end_whatever_the_tokens_are(seed: u64, limit in 0usize..1_000_000) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut probes = 0;
            let sizes = Sizes { least: 5, step: 1, shrink: 5 };
            fit(sizes, limit, |_| {
                probes += 1;
                Ok(random.usize(..2_000_000))
            })
            .unwrap();
            prop_assert!(probes < 100, "{probes}");
        }
    }

    #[test]
    fn tokens_that_never_grow_end_too() {
        let sizes = Sizes { least: 10, step: 1, shrink: 10 };
        assert_eq!(found(sizes, 100, |_| 7).0, Some(10 + 100));
        assert_eq!(found(sizes, 100, |_| 101), (None, 1));
        assert_eq!(found(sizes, 0, |_| 0).0, Some(11));
    }
}
