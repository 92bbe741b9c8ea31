//! Sets of lines: what the kernel side does with [`Vector`]s, for user space.

use std::iter;

use ringfence_abi::{NONE, Vector};

/// Adds line `number`.
pub(crate) fn insert(vector: &mut Vector, number: usize) {
    vector[number / 64] |= 1 << (number % 64);
}

/// Whether line `number` is in the set.
pub(crate) fn contains(vector: &Vector, number: usize) -> bool {
    vector[number / 64] & (1 << (number % 64)) != 0
}

/// Lines that are in both.
pub(crate) fn and(a: &Vector, b: &Vector) -> Vector {
    std::array::from_fn(|i| a[i] & b[i])
}

/// Lines that are in either.
pub(crate) fn or(a: &Vector, b: &Vector) -> Vector {
    std::array::from_fn(|i| a[i] | b[i])
}

/// Lines of `a` that are not in `b`.
pub(crate) fn without(a: &Vector, b: &Vector) -> Vector {
    std::array::from_fn(|i| a[i] & !b[i])
}

/// The numbers in the set, ascending.
pub(crate) fn numbers(vector: &Vector) -> impl Iterator<Item = usize> {
    (0..).step_by(64).zip(*vector).flat_map(|(first, word)| {
        // Without the lowest bit, and without the next, until none is left.
        let left = iter::successors(Some(word), |bits| bits.checked_sub(1).map(|below| bits & below));
        left.take_while(|bits| *bits != 0).map(move |bits| first + bits.trailing_zeros() as usize)
    })
}

/// The set of the given numbers.
pub(crate) fn collect(numbers: impl IntoIterator<Item = usize>) -> Vector {
    let mut vector = NONE;
    for number in numbers {
        insert(&mut vector, number);
    }
    vector
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_abi::LINES;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_those_of_the_set(vector: Vector) {
            let expected: Vec<usize> = (0..LINES).filter(|number| contains(&vector, *number)).collect();
            prop_assert_eq!(numbers(&vector).collect::<Vec<_>>(), expected);
        }
    }
}
