//! Which class was named.

/// 1 ÷ the number of classes that the prediction names, where the reference is among them, else 0.
///
/// A class is named where it is a substring. Then LongBench goes through the named ones and strikes
/// those that are only a part of the reference, in a loop that steps over the class after each that it
/// strikes; so which are left depends on the order of `classes`.
pub fn classification(prediction: &str, reference: &str, classes: &[String]) -> f64 {
    let named: Vec<&str> =
        classes.iter().map(String::as_str).filter(|class| prediction.contains(class)).collect();
    if !named.contains(&reference) {
        return 0.0;
    }
    let mut struck = 0;
    let mut rest = named.iter();
    while let Some(&class) = rest.next() {
        if class != reference && reference.contains(class) {
            struck += 1;
            rest.next();
        }
    }
    1.0 / (named.len() - struck) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prediction: &str, reference: &str, classes: &[&str]) -> f64 {
        let classes: Vec<String> = classes.iter().map(|&c| c.to_owned()).collect();
        classification(prediction, reference, &classes)
    }

    #[test]
    fn classes_by_hand() {
        assert_eq!(of("a city, I think", "city", &["city", "person"]), 1.0);
        assert_eq!(of("city or person", "city", &["city", "person"]), 0.5);
        assert_eq!(of("person", "city", &["city", "person"]), 0.0);
        assert_eq!(of("City", "city", &["city"]), 0.0);
        assert_eq!(of("city", "city", &[]), 0.0);
        // Given twice, it counts twice.
        assert_eq!(of("city", "city", &["city", "city"]), 0.5);
        assert_eq!(of("city", "city", &["", "city"]), 1.0);
    }

    #[test]
    fn the_class_after_a_struck_one_is_stepped_over() {
        // `art` is struck, `art history` stepped over.
        assert_eq!(
            of(
                "art history museum",
                "art history museum",
                &["art", "art history", "art history museum"]
            ),
            0.5
        );
        // `art` is struck, the whole is stepped over, `art history` is struck.
        assert_eq!(
            of(
                "art history museum",
                "art history museum",
                &["art", "art history museum", "art history"]
            ),
            1.0
        );
    }
}
