//! BTF without what types are made of.

use crate::{
    Error,
    decode::{HEADER, MAGIC, Reader, Sections, VERSION},
};

const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const FUNCTION: u32 = 12;

/// The same BTF for who looks up numbers of functions and typedefs: these keep name and number, every other type is a
/// forward declaration without a name, so that a reader has no members to keep and no other names to compare.
pub fn skeleton(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let sections = Sections::find(bytes)?;
    let mut types: Vec<u8> = Vec::with_capacity(sections.types.len() / 2);
    let mut reader = Reader { bytes: sections.types, at: 0 };
    for id in 1.. {
        if reader.is_empty() {
            break;
        }
        let words @ [_, info, _] = reader.words("a type")?;
        let (kind, count) = ((info >> 24) & 0x7f, info & 0x00ff_ffff);
        let (each, times) = match kind {
            2 | 7..=12 | 16 | 18 => (0, 0),
            1 | 14 | 17 => (4, 1),
            3 => (12, 1),
            6 | 13 => (8, count),
            4 | 5 | 15 | 19 => (12, count),
            _ => return Err(Error::UnknownKind { kind, id }),
        };
        reader.skip("a type", times, each)?;
        let kept = if matches!(kind, TYPEDEF | FUNCTION) { words } else { [0, FORWARD << 24, 0] };
        types.extend_from_slice(kept.map(u32::to_le_bytes).as_flattened());
    }
    let word = |length: usize| u32::try_from(length).map_err(|_| Error::Damaged { what: "too long a part", id: 0 });
    let (types_length, strings_length) = (word(types.len())?, word(sections.strings.len())?);
    let mut whole: Vec<u8> = Vec::with_capacity(HEADER + types.len() + sections.strings.len());
    whole.extend(MAGIC.to_le_bytes());
    whole.extend([VERSION, 0]);
    let header = [word(HEADER)?, 0, types_length, types_length, strings_length];
    whole.extend_from_slice(header.map(u32::to_le_bytes).as_flattened());
    whole.extend(types);
    whole.extend(sections.strings);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        Btf,
        fixture::{Fixture, kernel_like},
        types::Shape,
    };

    fn named(btf: &Btf) -> Vec<(u32, Vec<u8>)> {
        let kept = |shape: &Shape| matches!(shape, Shape::Function { .. } | Shape::Typedef(_));
        let types = (0..).zip(&btf.types.all).filter(|(_, ty)| kept(&ty.shape));
        types.map(|(id, ty)| (id, btf.types.name(ty.name).to_vec())).collect()
    }

    #[test]
    fn functions_and_typedefs_keep_their_numbers() {
        let mut all = vec![kernel_like()];
        // This machine's own, if it shows them.
        all.extend(fs::read("/sys/kernel/btf/vmlinux"));
        for whole in all {
            let bare = skeleton(&whole).expect("sound");
            assert!(bare.len() < whole.len());
            let (whole, bare) = (Btf::parse(&whole).expect("sound"), Btf::parse(&bare).expect("sound, too"));
            assert_eq!(whole.types.all.len(), bare.types.all.len());
            assert_eq!(named(&whole), named(&bare));
        }
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused() {
        let whole = kernel_like();
        for length in 0..whole.len() {
            assert!(matches!(skeleton(&whole[..length]), Err(Error::Truncated { .. })), "cut to {length} bytes");
        }
        let mut fixture = Fixture::default();
        fixture.ty("", 20, 0, false, 8, &[]);
        assert!(matches!(skeleton(&fixture.bytes()), Err(Error::UnknownKind { kind: 20, id: 1 })));
    }
}
