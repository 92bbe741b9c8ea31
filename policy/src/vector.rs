//! Sets of lines: what the kernel side does with [`Vector`]s, for user space.

use ringfence_abi::{LINES, NONE, Vector};

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
    let vector = *vector;
    (0..LINES).filter(move |&number| contains(&vector, number))
}

/// The set of the given numbers.
pub(crate) fn collect(numbers: impl IntoIterator<Item = usize>) -> Vector {
    let mut vector = NONE;
    for number in numbers {
        insert(&mut vector, number);
    }
    vector
}
