//! Bytes to types. The format: `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h` of Linux.

use std::array;
use std::hash::{DefaultHasher, Hasher as _};

use crate::{
    Btf, Error,
    types::{Field, Id, Shape, Type, Types},
};

pub const MAGIC: u16 = 0xeb9f;
pub const VERSION: u8 = 1;

/// Bytes of a header without the extensions that a longer one may have.
pub const HEADER: usize = 24;

impl Btf {
    /// Reads BTF that stands on its own: a kernel's, or an eBPF object's.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::extend(Types::default(), bytes)
    }

    /// Reads a module's BTF, which goes on counting types and names where its kernel's ends.
    pub fn parse_split(kernel: Self, bytes: &[u8]) -> Result<Self, Error> {
        Self::extend(kernel.types, bytes)
    }

    fn extend(mut types: Types, bytes: &[u8]) -> Result<Self, Error> {
        let sections = Sections::find(bytes)?;
        types.strings.extend_from_slice(sections.strings);
        if types.strings.last() != Some(&0) {
            return Err(Error::Damaged { what: "a string table without an end instead", id: 0 });
        }
        if types.all.is_empty() {
            types.all.push(Type { name: 0, shape: Shape::Void });
        }
        let mut reader = Reader { bytes: sections.types, at: 0 };
        while !reader.is_empty() {
            let ty = read_type(&mut reader, &mut types)?;
            types.all.push(ty);
        }
        let by_name = index_names(&types);
        Ok(Self { types, by_name })
    }
}

/// The two parts behind the header.
pub struct Sections<'a> {
    pub types: &'a [u8],
    pub strings: &'a [u8],
}

impl<'a> Sections<'a> {
    pub fn find(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut header = Reader { bytes, at: 0 };
        let magic = u16::from_le_bytes(header.take("the magic number")?);
        if magic != MAGIC {
            return Err(if magic.swap_bytes() == MAGIC { Error::BigEndian } else { Error::NotBtf { found: magic } });
        }
        let [version, _flags] = header.take("the version")?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let length = header.word("the header")? as usize;
        let [type_start, type_length, string_start, string_length] = [
            header.word("the header")?,
            header.word("the header")?,
            header.word("the header")?,
            header.word("the header")?,
        ];
        if length < HEADER || bytes.len() < length {
            let need = length.max(HEADER) as u64;
            return Err(Error::Truncated { what: "the header", need, have: bytes.len() as u64 });
        }
        let body = &bytes[length..];
        let part = |what, start: u32, length: u32| {
            let end = u64::from(start) + u64::from(length);
            let range = start as usize..usize::try_from(end).unwrap_or(usize::MAX);
            body.get(range).ok_or(Error::Truncated { what, need: end, have: body.len() as u64 })
        };
        Ok(Self {
            types: part("the types", type_start, type_length)?,
            strings: part("the strings", string_start, string_length)?,
        })
    }
}

fn read_type(reader: &mut Reader<'_>, types: &mut Types) -> Result<Type, Error> {
    let id = u32::try_from(types.all.len()).map_err(|_| Error::Damaged { what: "too high a number", id: u32::MAX })?;
    let [name, info, size_or_type] = reader.words("a type")?;
    check_name(types, name, id)?;
    // Up to Linux 7.0 a kind has 5 bits and a count 16; the bits between and above were zero. Later ones use them.
    let (kind, count, flag) = ((info >> 24) & 0x7f, info & 0x00ff_ffff, info >> 31 == 1);
    let shape = match kind {
        1 => {
            let encoding = reader.word("an integer")?;
            let [bits, _, first, _] = encoding.to_le_bytes();
            Shape::Int { size: size_or_type, bits, first }
        }
        2 => Shape::Pointer(size_or_type),
        3 => {
            let [element, _index, count] = reader.words("an array")?;
            Shape::Array { element, count }
        }
        4 => Shape::Struct { size: size_or_type, members: read_members(reader, types, id, count, flag)? },
        5 => Shape::Union { size: size_or_type, members: read_members(reader, types, id, count, flag)? },
        6 => {
            reader.skip("an enumeration", count, 8)?;
            Shape::Enum { size: size_or_type }
        }
        7 => Shape::Forward,
        8 => Shape::Typedef(size_or_type),
        9..=11 | 18 => Shape::Modifier(size_or_type),
        12 => Shape::Function { prototype: size_or_type },
        13 => {
            let first = types.fields.len();
            for _ in 0..count {
                let [name, ty] = reader.words("a parameter")?;
                check_name(types, name, id)?;
                types.fields.push(Field { name, ty, bit: 0, width: 0 });
            }
            Shape::Prototype { parameters: first..types.fields.len() }
        }
        14 | 17 => {
            reader.skip("a variable or tag", 1, 4)?;
            Shape::Other
        }
        15 => {
            reader.skip("a data section", count, 12)?;
            Shape::Other
        }
        16 => Shape::Float { size: size_or_type },
        19 => {
            reader.skip("an enumeration", count, 12)?;
            Shape::Enum { size: size_or_type }
        }
        _ => return Err(Error::UnknownKind { kind, id }),
    };
    Ok(Type { name, shape })
}

fn read_members(
    reader: &mut Reader<'_>,
    types: &mut Types,
    id: u32,
    count: u32,
    flag: bool,
) -> Result<std::ops::Range<usize>, Error> {
    let first = types.fields.len();
    for _ in 0..count {
        let [name, ty, offset] = reader.words("a member")?;
        check_name(types, name, id)?;
        let [.., width] = offset.to_le_bytes();
        let (bit, width) = if flag { (offset & 0x00ff_ffff, width) } else { (offset, 0) };
        types.fields.push(Field { name, ty, bit, width });
    }
    Ok(first..types.fields.len())
}

fn check_name(types: &Types, name: u32, id: u32) -> Result<(), Error> {
    if (name as usize) < types.strings.len() {
        Ok(())
    } else {
        Err(Error::Damaged { what: "a name behind the last string", id })
    }
}

/// By hash, not by text: a kernel has some 100,000 names, and ordering those took longer than all else (35 of 49 ms).
fn index_names(types: &Types) -> Vec<(u64, Id)> {
    let named = (0..).zip(&types.all).filter(|(_, ty)| ty.name != 0);
    let mut index: Vec<_> = named.map(|(id, ty)| (hash(types.name(ty.name)), id)).collect();
    index.sort_unstable();
    index
}

/// What names are found by.
pub fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish()
}

/// Reads forward and never behind the end.
pub struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl Reader<'_> {
    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let taken = *taken.ok_or_else(|| self.truncated(what, N))?;
        self.at += N;
        Ok(taken)
    }

    fn truncated(&self, what: &'static str, more: usize) -> Error {
        Error::Truncated { what, need: (self.at + more) as u64, have: self.bytes.len() as u64 }
    }

    fn word(&mut self, what: &'static str) -> Result<u32, Error> {
        self.take(what).map(u32::from_le_bytes)
    }

    pub fn words<const N: usize>(&mut self, what: &'static str) -> Result<[u32; N], Error> {
        let end = self.at + 4 * N;
        let (words, _) = self.bytes.get(self.at..end).ok_or_else(|| self.truncated(what, 4 * N))?.as_chunks();
        self.at = end;
        Ok(array::from_fn(|n| u32::from_le_bytes(words[n])))
    }

    pub fn skip(&mut self, what: &'static str, count: u32, each: usize) -> Result<(), Error> {
        let end = (self.at as u64).saturating_add(u64::from(count) * each as u64);
        match usize::try_from(end) {
            Ok(end) if end <= self.bytes.len() => self.at = end,
            _ => return Err(Error::Truncated { what, need: end, have: self.bytes.len() as u64 }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, kernel_like};

    #[test]
    fn what_is_not_btf_is_refused() {
        assert!(matches!(Btf::parse(b""), Err(Error::Truncated { .. })));
        assert!(matches!(Btf::parse(b"\x7fELF"), Err(Error::NotBtf { found: 0x457f })));
        assert!(matches!(Btf::parse(&[0xeb, 0x9f, 1, 0]), Err(Error::BigEndian)));
        assert!(matches!(Btf::parse(&[0x9f, 0xeb, 2, 0]), Err(Error::Version(2))));
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = kernel_like();
        assert!(Btf::parse(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(matches!(Btf::parse(&whole[..length]), Err(Error::Truncated { .. })), "cut to {length} bytes");
        }
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let mut fixture = Fixture::default();
        fixture.ty("", 19, 0, false, 8, &[]);
        fixture.ty("", 20, 0, false, 8, &[]);
        let error = Btf::parse(&fixture.bytes()).expect_err("kind 20 does not exist");
        assert!(matches!(error, Error::UnknownKind { kind: 20, id: 2 }), "{error}");
    }

    #[test]
    fn a_name_from_nowhere_is_damage() {
        let mut fixture = Fixture::default();
        fixture.ty_named_at(4096, 7);
        assert!(matches!(Btf::parse(&fixture.bytes()), Err(Error::Damaged { id: 1, .. })));
    }

    #[test]
    fn a_module_goes_on_where_the_kernel_ends() {
        let kernel = Btf::parse(&kernel_like()).expect("the fixture is sound");
        let (strings, next) = (kernel.types.strings.len(), kernel.types.all.len());
        let file = kernel.named("file").next().expect("in the kernel").0;
        let mut fixture = Fixture::module(u32::try_from(strings).expect("small"));
        let (inode, number) = (fixture.name("vfs_inode"), fixture.name("number"));
        fixture.ty("ovl_inode", 4, 2, false, 56, &[inode, file, 0, number, 1, 384]);
        let module = Btf::parse_split(kernel, &fixture.bytes()).expect("sound on top of that kernel");
        assert_eq!(module.types.all.len(), next + 1);
        assert_eq!(module.offset("ovl_inode", "vfs_inode.f_path.dentry").expect("into the kernel's types"), 24);
        assert_eq!(module.offset("ovl_inode", "number").expect("the module's own name"), 48);
        assert_eq!(module.offset("file", "f_path").expect("the kernel's are there too"), 16);
    }

    #[test]
    fn a_module_without_its_kernel_is_damaged() {
        let mut fixture = Fixture::module(4096);
        fixture.ty("ovl_inode", 7, 0, false, 0, &[]);
        assert!(matches!(Btf::parse(&fixture.bytes()), Err(Error::Damaged { .. })));
    }
}
