//! Hidden attention (the LongMamba paper's figures 1 and 5): what the scan of a channel takes from
//! each earlier token, written as attention.
//!
//! `attention[t, s] = C_t · (Π_{k=s+1..t} Ā_k) · B̄_s` with `Ā_k = exp(Δ_k·A)` and `B̄_s = Δ_s·B_s`, for
//! s ≤ t. Products of decays are exponentials of differences of one running sum of Δ, so no product of
//! many factors is ever made, and a token that is far back costs no more than a near one.

use super::channel_scan::ChannelScan;
use crate::{Error, Result};
use rayon::prelude::*;

/// Smaller shares of the largest attention count as none.
pub const FLOOR: f64 = 1e-3;

/// The attention of a channel over a text, of any length, in at most so many rows and columns as were asked
/// for.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionMap {
    /// Tokens of the text.
    pub tokens: usize,
    /// t of each row, ascending; the last is the text's last token.
    pub queries: Vec<usize>,
    /// The first s of each column; it has all until the next one's first.
    pub keys: Vec<usize>,
    /// `log10[row][column]` of the largest |attention| in the column, as a share of [`largest`](Self::largest),
    /// not below log10 [`FLOOR`]. A row ends with the column that has its query.
    pub log10: Vec<Vec<f64>>,
    /// The largest |attention| of all rows.
    pub largest: f64,
    /// The receptive field of each row: t − s for the farthest token s whose share is above [`FLOOR`], however
    /// little there is between; `None` where there is none.
    pub reach: Vec<Option<usize>>,
}

/// Where cell `index` of `cells` begins.
fn first(index: usize, tokens: usize, cells: usize) -> usize {
    (index as u128 * tokens as u128 / cells.max(1) as u128) as usize
}

impl AttentionMap {
    /// The map of a scan with B and C. Every row looks at every token before it, so the time grows with
    /// `cells` · tokens · `d_state`; the memory with cells².
    ///
    /// # Errors
    /// [`Error::Argument`] where `cells` is 0, there are no tokens, or B and C are not of the tokens.
    pub fn new(scan: &ChannelScan, cells: usize) -> Result<Self> {
        let tokens = scan.delta.len();
        let complete = [&scan.b, &scan.c].iter().all(|v| v.len() == tokens * scan.d_state);
        if cells == 0 || tokens == 0 || scan.rates.is_empty() || !complete {
            return Err(Error::argument(format!(
                "no attention map of {tokens} tokens with {} states in {cells} cells; it needs at least one \
                 token and cell, and B and C of all tokens",
                scan.d_state
            )));
        }
        let cells = cells.min(tokens);
        let keys: Vec<usize> = (0..cells).map(|cell| first(cell, tokens, cells)).collect();
        let queries: Vec<usize> =
            (0..cells).map(|cell| first(cell + 1, tokens, cells) - 1).collect();
        let scan = Summed::new(scan);
        let largest_of = |column: usize, query: usize| {
            let end = keys.get(column + 1).copied().unwrap_or(tokens).min(query + 1);
            (keys[column]..end).map(|key| scan.attention(query, key)).fold(0.0, f64::max)
        };
        let rows: Vec<Vec<f64>> = queries
            .par_iter()
            .enumerate()
            .map(|(row, &query)| (0..=row).map(|column| largest_of(column, query)).collect())
            .collect();
        let largest = rows.iter().flatten().copied().fold(0.0, f64::max);
        let least = largest * FLOOR;
        let reach = |(row, &query): (&Vec<f64>, &usize)| {
            let column = row.iter().position(|&a| a > least)?;
            let key = (keys[column]..=query).find(|&key| scan.attention(query, key) > least)?;
            Some(query - key)
        };
        let reach = rows.par_iter().zip(&queries).map(reach).collect();
        let share = |&a: &f64| if a > least { (a / largest).log10() } else { FLOOR.log10() };
        let log10 = rows.iter().map(|row| row.iter().map(share).collect()).collect();
        Ok(AttentionMap { tokens, queries, keys, log10, largest, reach })
    }
}

/// A scan, and the sum of Δ up to and with each token.
struct Summed<'a> {
    scan: &'a ChannelScan,
    sums: Vec<f64>,
}

impl<'a> Summed<'a> {
    fn new(scan: &'a ChannelScan) -> Self {
        let add = |sum: &mut f64, &delta: &f32| {
            *sum += f64::from(delta);
            Some(*sum)
        };
        Summed { scan, sums: scan.delta.iter().scan(0.0, add).collect() }
    }

    /// |attention[query, key]|, for key ≤ query.
    fn attention(&self, query: usize, key: usize) -> f64 {
        let ChannelScan { delta, b, c, d_state, .. } = self.scan;
        if delta[key] == 0.0 {
            return 0.0;
        }
        let passed = self.sums[query] - self.sums[key];
        let b = &b[key * d_state..][..*d_state];
        let c = &c[query * d_state..][..*d_state];
        let products = b.iter().zip(c).map(|(b, c)| f64::from(*b) * f64::from(*c));
        let sum: f64 = match self.scan.rates[..] {
            // A head's decay is the same for all its states.
            [rate] => (f64::from(rate) * passed).exp() * products.sum::<f64>(),
            _ => products.enumerate().map(|(n, bc)| bc * (self.scan.rate(n) * passed).exp()).sum(),
        };
        (sum * f64::from(delta[key])).abs()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A random scan, some of whose tokens are dropped.
    pub fn random(seed: u64, tokens: usize, d_state: usize, per_state: bool) -> ChannelScan {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut values = |len: usize, low: f32, high: f32| -> Vec<f32> {
            (0..len).map(|_| low + (high - low) * rng.f32()).collect()
        };
        let delta = values(tokens, -0.3, 1.0).iter().map(|d| d.max(0.0)).collect();
        ChannelScan {
            delta,
            b: values(tokens * d_state, -1.0, 1.0),
            c: values(tokens * d_state, -1.0, 1.0),
            d_state,
            rates: values(if per_state { d_state } else { 1 }, -3.0, 0.0),
        }
    }

    /// The definition, factor by factor.
    fn brute_force(scan: &ChannelScan, t: usize, s: usize) -> f64 {
        let delta = |k: usize| f64::from(scan.delta[k]);
        let mut sum = 0.0;
        for n in 0..scan.d_state {
            let a = f64::from(scan.rates[if scan.rates.len() == 1 { 0 } else { n }]);
            let decay: f64 = (s + 1..=t).map(|k| (delta(k) * a).exp()).product();
            let [c, b] =
                [&scan.c[t * scan.d_state + n], &scan.b[s * scan.d_state + n]].map(|v| *v as f64);
            sum += c * decay * delta(s) * b;
        }
        sum.abs()
    }

    proptest! {
        #[test]
        fn maps_are_the_definition(
            seed in any::<u64>(),
            tokens in 1usize..50,
            d_state in 1usize..6,
            per_state in any::<bool>(),
            cells in 1usize..60,
        ) {
            let scan = random(seed, tokens, d_state, per_state);
            let map = AttentionMap::new(&scan, cells).unwrap();
            let cells = cells.min(tokens);
            prop_assert_eq!((map.queries.len(), map.keys.len(), map.log10.len()), (cells, cells, cells));
            prop_assert_eq!((map.keys[0], *map.queries.last().unwrap()), (0, tokens - 1));
            let full = |t: usize| -> Vec<f64> { (0..=t).map(|s| brute_force(&scan, t, s)).collect() };
            let rows: Vec<Vec<f64>> = map.queries.iter().map(|&t| full(t)).collect();
            let largest = rows.iter().flatten().copied().fold(0.0, f64::max);
            prop_assert!((map.largest - largest).abs() <= 1e-12 * largest);
            for (row, (values, reach)) in rows.iter().zip(&map.reach).enumerate() {
                let query = map.queries[row];
                prop_assert_eq!(map.log10[row].len(), row + 1);
                for (column, &log10) in map.log10[row].iter().enumerate() {
                    let end = map.keys.get(column + 1).copied().unwrap_or(tokens).min(query + 1);
                    let most = values[map.keys[column]..end].iter().copied().fold(0.0, f64::max);
                    let expected = (most / largest).max(FLOOR).log10();
                    prop_assert!(largest == 0.0 && log10 == -3.0 || (log10 - expected).abs() < 1e-9);
                }
                // What is at the floor within rounding may count or not.
                let farthest = |floor: f64| values.iter().position(|a| *a > floor * largest).map(|s| query - s);
                let around = [FLOOR * (1.0 + 1e-9), FLOOR * (1.0 - 1e-9)].map(farthest);
                prop_assert!(around.contains(reach), "{reach:?} is not of {around:?}");
            }
        }
    }

    #[test]
    fn a_decay_of_many_decades_is_seen() {
        // exp(−1000) and exp(−2000) are 0 in f64, and so is every quotient of them; the last tokens' is not.
        let tokens = 2001;
        let scan = ChannelScan {
            delta: vec![1.0; tokens],
            b: vec![1.0; tokens],
            c: vec![1.0; tokens],
            d_state: 1,
            rates: vec![-1.0],
        };
        let map = AttentionMap::new(&scan, tokens).unwrap();
        // exp(−6) > 1e-3 > exp(−7), at every place of the text.
        assert_eq!(map.reach[5], Some(5));
        assert!(map.reach[6..].iter().all(|r| *r == Some(6)));
        let last = &map.log10[tokens - 1];
        assert!((last[tokens - 4] + 3.0 / std::f64::consts::LN_10).abs() < 1e-9);
        assert_eq!(last[0], -3.0);
    }

    #[test]
    fn nothing_is_attended_to_where_all_is_dropped() {
        let scan = ChannelScan { delta: vec![0.0; 7], ..random(1, 7, 3, true) };
        let map = AttentionMap::new(&scan, 4).unwrap();
        assert_eq!((map.largest, &map.reach), (0.0, &vec![None; 4]));
        assert!(map.log10.iter().flatten().all(|v| *v == -3.0));
    }

    #[test]
    fn maps_need_a_scan() {
        let scan = random(1, 7, 3, true);
        assert!(AttentionMap::new(&scan, 0).is_err());
        assert!(AttentionMap::new(&ChannelScan { b: Vec::new(), ..scan }, 4).is_err());
        assert!(AttentionMap::new(&random(1, 0, 3, true), 4).is_err());
    }
}
