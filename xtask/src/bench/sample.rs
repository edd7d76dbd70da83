//! Measurements that are repeated side by side, and what stands for all of them.

use crate::process::Result;

/// Something that can be measured again and again.
pub type Subject<'a, T> = &'a dyn Fn() -> Result<T>;

/// Measures all subjects once in each round, one after the other, so that what disturbs the machine meets all
/// of them. Returns the measurements by subject.
pub fn interleave<T, const N: usize>(rounds: usize, subjects: [Subject<'_, T>; N]) -> Result<[Vec<T>; N]> {
    let mut measured = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (subject, results) in subjects.iter().zip(&mut measured) {
            results.push(subject()?);
        }
    }
    Ok(measured)
}

/// The middle one; of an even number the mean of the middle two.
///
/// # Errors
///
/// When there is nothing to choose from.
pub fn median(values: impl IntoIterator<Item = f64>) -> Result<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (0, Some(lower), Some(upper)) => Ok(f64::midpoint(*lower, *upper)),
        (1, _, Some(value)) => Ok(*value),
        _ => Err("nothing was measured".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        for (values, expected) in
            [(&[3.0][..], 3.0), (&[9.0, 1.0], 5.0), (&[5.0, 900.0, 1.0], 5.0), (&[4.0, 2.0, 8.0, 0.0], 3.0)]
        {
            assert_eq!(median(values.iter().copied()), Ok(expected), "{values:?}");
        }
        assert!(median([]).is_err());
    }

    #[test]
    fn every_round_meets_every_subject() {
        let order = RefCell::new(String::new());
        let note = |name: char, value: f64| {
            order.borrow_mut().push(name);
            Ok(value)
        };
        let [a, b] = interleave(2, [&|| note('a', 1.0), &|| note('b', 2.0)]).unwrap();
        assert_eq!((order.into_inner().as_str(), a, b), ("abab", vec![1.0, 1.0], vec![2.0, 2.0]));
    }

    #[test]
    fn a_failure_ends_the_rounds() {
        assert_eq!(interleave::<(), 1>(3, [&|| Err("no".to_owned())]), Err("no".to_owned()));
    }
}
