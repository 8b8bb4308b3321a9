//! Two decimals, and the mean, as Python and as numpy have them.

/// `round(x, 2)`: the decimal number nearest to the exact value of x, the even one of two.
pub fn python_round(x: f64) -> f64 {
    // Formatting rounds so, and what it writes is a number.
    format!("{x:.2}").parse().unwrap_or(x)
}

/// `numpy.round(x, 2)`: 100 x to the nearest integer, and back. 2.675 is below 2.675, yet gives 2.68.
pub(super) fn numpy_round(x: f64) -> f64 {
    (x * 100.0).round_ties_even() / 100.0
}

/// `numpy.sum`: halves of long arrays are summed for themselves, and eight sums at a time are run in short
/// ones.
pub(super) fn numpy_sum(values: &[f64]) -> f64 {
    match values.len() {
        0..8 => values.iter().sum(),
        8..=128 => {
            let (eights, rest) = values.as_chunks::<8>();
            let mut sums = [0.0; 8];
            for eight in eights {
                sums.iter_mut().zip(eight).for_each(|(sum, v)| *sum += v);
            }
            let [a, b, c, d, e, f, g, h] = sums;
            let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
            rest.iter().fold(sum, |sum, v| sum + v)
        }
        len => {
            let half = len / 2 / 8 * 8;
            let (low, high) = values.split_at(half);
            numpy_sum(low) + numpy_sum(high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ways_to_round() {
        // 2.675 is 2.67499999999999982236431605997495353221893310546875.
        for (x, python, numpy) in [
            (2.675, 2.67, 2.68),
            // Exact ties.
            (0.125, 0.12, 0.12),
            (0.375, 0.38, 0.38),
            (100.0, 100.0, 100.0),
            (1.005, 1.0, 1.0),
            (0.0, 0.0, 0.0),
            (33.333333333333336, 33.33, 33.33),
        ] {
            assert_eq!((python_round(x), numpy_round(x)), (python, numpy), "{x}");
        }
    }

    #[test]
    fn sums_in_numpys_order() {
        let values = |n: usize| (0..n).map(|i| 1.0 / (i + 1) as f64).collect::<Vec<_>>();
        // numpy.sum(1 / numpy.arange(1, n + 1)), numpy 2.4.
        for (n, sum) in SUMS {
            assert_eq!(numpy_sum(&values(n)), sum, "{n}");
        }
        assert!(values(300).iter().sum::<f64>() != numpy_sum(&values(300)), "the order matters");
    }

    const SUMS: [(usize, f64); 7] = [
        (0, 0.0),
        (7, 2.5928571428571425),
        (8, 2.7178571428571425),
        (100, 5.187377517639621),
        (129, 5.440899030573669),
        (300, 6.282663880299504),
        (1001, 7.486469861549347),
    ];
}
