//! A line that is written piece by piece.

use std::io;

/// Longer pieces are copied by a call.
const MOST_EIGHTS: usize = 16;

/// Appends to bytes without a call of `memcpy` for each piece.
///
/// JSON comes in pieces of some ten bytes. musl's `memcpy` copies up to seven bytes one by one to an aligned address, then
/// by `rep movsq`: a third of the enforcer's time in a flood of violations.
pub struct Line<'a>(pub &'a mut Vec<u8>);

impl io::Write for Line<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.write_all(piece)?;
        Ok(piece.len())
    }

    #[inline]
    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        let (eights, rest) = piece.as_chunks::<8>();
        if eights.len() > MOST_EIGHTS {
            self.0.extend_from_slice(piece);
            return Ok(());
        }
        self.0.reserve(piece.len());
        for eight in eights {
            self.0.extend_from_slice(eight);
        }
        let (fours, rest) = rest.as_chunks::<4>();
        for four in fours {
            self.0.extend_from_slice(four);
        }
        for byte in rest {
            self.0.push(*byte);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_appended_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let mut bytes = vec![];
            for piece in &pieces {
                Line(&mut bytes).write_all(piece).unwrap();
            }
            prop_assert_eq!(bytes, pieces.concat());
        }
    }
}
