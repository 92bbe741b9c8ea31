//! Types in memory: what `decode` fills and the look-ups read.

use std::{borrow::Cow, ffi::CStr, ops::Range};

use crate::Error;

/// Number of a type. 0 is void.
pub type Id = u32;

/// Links that are followed from one type to the next before the BTF is called damaged.
///
/// The deepest chain of modifiers in Debian's and this kernel's BTF is 6.
const LONGEST_CHAIN: usize = 64;

/// Every type, field and name of one BTF.
#[derive(Clone, Debug, Default)]
pub struct Types {
    pub all: Vec<Type>,
    /// Members of all structs and unions, and parameters of all functions.
    pub fields: Vec<Field>,
    /// Names, each ended by a zero. `decode` has checked that every name in use begins and ends here.
    pub strings: Vec<u8>,
}

/// One type.
#[derive(Clone, Debug)]
pub struct Type {
    pub name: u32,
    pub shape: Shape,
}

/// What a type is made of. Sizes are bytes, ranges index [`Types::fields`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Void,
    Int {
        size: u32,
        /// Bits in use, less than `8 * size` for a bit field of old compilers.
        bits: u8,
        /// First bit in use.
        first: u8,
    },
    Pointer(Id),
    Array {
        element: Id,
        count: u32,
    },
    Struct {
        size: u32,
        members: Range<usize>,
    },
    Union {
        size: u32,
        members: Range<usize>,
    },
    Enum {
        size: u32,
    },
    /// A struct or union of which only the name is known.
    Forward,
    Typedef(Id),
    /// `const`, `volatile`, `restrict` or a type tag.
    Modifier(Id),
    Function {
        prototype: Id,
    },
    Prototype {
        parameters: Range<usize>,
    },
    Float {
        size: u32,
    },
    /// A variable, a data section or a declaration tag: not a type of values.
    Other,
}

/// A member of a struct or union, or a parameter of a function (then without offset).
#[derive(Clone, Debug)]
pub struct Field {
    pub name: u32,
    pub ty: Id,
    /// Bits from the beginning of the struct.
    pub bit: u32,
    /// Width in bits of a bit field as the struct states it; 0 if it does not.
    pub width: u8,
}

impl Types {
    /// The name at an offset of the string table; empty for anonymous types.
    pub fn name(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        CStr::from_bytes_until_nul(rest).map_or(rest, CStr::to_bytes)
    }

    /// The same for messages and signatures.
    pub fn text(&self, offset: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.name(offset))
    }

    pub fn get(&self, id: Id) -> Result<&Type, Error> {
        self.all.get(id as usize).ok_or(Error::Damaged { what: "a reference behind the last type instead", id })
    }

    /// The type behind typedefs, `const` and the like.
    pub fn resolve(&self, id: Id) -> Result<&Type, Error> {
        let mut next = id;
        for _ in 0..LONGEST_CHAIN {
            let ty = self.get(next)?;
            match ty.shape {
                Shape::Typedef(inner) | Shape::Modifier(inner) => next = inner,
                _ => return Ok(ty),
            }
        }
        Err(Error::Damaged { what: "an endless chain of typedefs", id })
    }

    /// Size in bytes of a value; `None` for what has none (void, functions, forward declarations).
    pub fn size(&self, id: Id) -> Result<Option<u64>, Error> {
        let (mut next, mut times) = (id, 1_u64);
        for _ in 0..LONGEST_CHAIN {
            let size = match self.resolve(next)?.shape {
                Shape::Array { element, count } => {
                    next = element;
                    times = times.saturating_mul(u64::from(count));
                    continue;
                }
                Shape::Int { size, .. }
                | Shape::Struct { size, .. }
                | Shape::Union { size, .. }
                | Shape::Enum { size }
                | Shape::Float { size } => u64::from(size),
                // BTF does not say; every kernel with eBPF programs of ours is 64-bit.
                Shape::Pointer(_) => 8,
                _ => return Ok(None),
            };
            return Ok(Some(times.saturating_mul(size)));
        }
        Err(Error::Damaged { what: "an endless chain of arrays", id })
    }
}
