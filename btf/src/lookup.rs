//! Where members lie and how large structs are.

use std::borrow::Cow;

use crate::{
    Btf, Error, decode,
    types::{Field, Id, Shape, Type},
};

/// Members that are looked at to find one, before the BTF is called damaged. The largest struct here has some 400.
const LARGEST_SEARCH: usize = 100_000;

/// A member of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name; empty for an anonymous struct or union.
    pub name: String,
    /// Bytes from the beginning of the outermost struct.
    pub offset: u32,
    /// Bytes; 0 for a flexible array.
    pub size: u64,
    /// What it is.
    pub kind: MemberKind,
}

/// What a member is, behind typedefs and qualifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// An integer, a boolean or a character.
    Int,
    /// An enumeration.
    Enum,
    /// A floating-point number.
    Float,
    /// A pointer.
    Pointer,
    /// An array.
    Array,
    /// A struct.
    Struct,
    /// A union.
    Union,
}

/// A member whose offset may still be that of a bit field.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    bit: u32,
    ty: Id,
    bitfield: bool,
}

impl Btf {
    /// Offset in bytes of a member, seen from the beginning of the struct.
    ///
    /// `path` names members from the outside in, with dots (`f_path.dentry`). Anonymous structs and unions are looked
    /// through. `structure` is the name of a struct or union, or of a typedef of one, without the word `struct`.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32, Error> {
        self.agree(structure, path, |id| self.place(structure, id, path)).and_then(|place| {
            if place.bitfield {
                let (structure, member) = (structure.to_owned(), path.to_owned());
                return Err(Error::Bitfield { structure, member, bit: place.bit });
            }
            Ok(place.bit / 8)
        })
    }

    /// A member with its offset, size and kind. The rules are those of [`Self::offset`].
    pub fn member(&self, structure: &str, path: &str) -> Result<Member, Error> {
        let offset = self.offset(structure, path)?;
        let (size, kind) = self.agree(structure, path, |id| self.measure(self.place(structure, id, path)?.ty))?;
        let name = path.rsplit('.').next().unwrap_or(path).to_owned();
        Ok(Member { name, offset, size, kind })
    }

    /// All direct members of a struct in the order of their declaration, anonymous ones included.
    pub fn members(&self, structure: &str) -> Result<Vec<Member>, Error> {
        self.agree(structure, "its members", |id| {
            self.fields(id)?.iter().map(|field| self.direct_member(structure, field)).collect()
        })
    }

    /// Size of a struct or union in bytes.
    pub fn size(&self, structure: &str) -> Result<u32, Error> {
        self.agree(structure, "its size", |id| match self.types.resolve(id)?.shape {
            Shape::Struct { size, .. } | Shape::Union { size, .. } => Ok(size),
            _ => Err(Error::MissingStruct(structure.to_owned())),
        })
    }

    /// Names of all structs and unions, in order; one that several have comes as often. Anonymous ones have none.
    pub fn struct_names(&self) -> Vec<Cow<'_, str>> {
        let types = self.by_name.iter().map(|(_, id)| &self.types.all[*id as usize]);
        let structs = types.filter(|ty| matches!(ty.shape, Shape::Struct { .. } | Shape::Union { .. }));
        let mut names: Vec<_> = structs.map(|ty| self.types.text(ty.name)).collect();
        names.sort_unstable();
        names
    }

    /// Whether at least one struct or union of this name is defined here.
    pub fn has_struct(&self, structure: &str) -> bool {
        self.candidates(structure).is_ok()
    }

    /// Whether the struct has the member, wherever it lies. `false` as well where there is no such struct.
    pub fn has_member(&self, structure: &str, path: &str) -> bool {
        self.candidates(structure).is_ok_and(|ids| ids.iter().any(|id| self.place(structure, *id, path).is_ok()))
    }

    /// The types with this name, ordered by number.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Id, &'a Type)> {
        let hash = decode::hash(name.as_bytes());
        let first = self.by_name.partition_point(|(of, _)| *of < hash);
        let alike = self.by_name[first..].iter().take_while(move |(of, _)| *of == hash);
        let types = alike.map(|(_, id)| (*id, &self.types.all[*id as usize]));
        types.filter(|(_, ty)| self.types.name(ty.name) == name.as_bytes())
    }

    /// The structs and unions with this name; where there is none, the typedefs of such.
    fn candidates(&self, name: &str) -> Result<Vec<Id>, Error> {
        let (mut tags, mut typedefs, mut declared) = (Vec::new(), Vec::new(), false);
        for (id, ty) in self.named(name) {
            match ty.shape {
                Shape::Struct { .. } | Shape::Union { .. } => tags.push(id),
                Shape::Typedef(inner) => {
                    if matches!(self.types.resolve(inner)?.shape, Shape::Struct { .. } | Shape::Union { .. }) {
                        typedefs.push(id);
                    }
                }
                Shape::Forward => declared = true,
                _ => {}
            }
        }
        match (tags.is_empty(), typedefs.is_empty()) {
            (false, _) => Ok(tags),
            (true, false) => Ok(typedefs),
            (true, true) if declared => Err(Error::OnlyDeclared(name.to_owned())),
            (true, true) => Err(Error::MissingStruct(name.to_owned())),
        }
    }

    /// Asks every struct of that name; an answer counts only if it is everyone's.
    fn agree<T: PartialEq>(
        &self,
        structure: &str,
        question: &str,
        ask: impl Fn(Id) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let ids = self.candidates(structure)?;
        let mut answers = ids.iter().map(|id| ask(*id));
        let first = answers.next().ok_or_else(|| Error::MissingStruct(structure.to_owned()))?;
        let same = answers.all(|answer| match (&first, &answer) {
            (Ok(first), Ok(answer)) => first == answer,
            (Err(first), Err(answer)) => first.to_string() == answer.to_string(),
            _ => false,
        });
        if same {
            return first;
        }
        Err(Error::Ambiguous {
            structure: structure.to_owned(),
            count: ids.len(),
            question: question.to_owned(),
            answers: ids.iter().map(|id| self.describe(structure, *id, question)).collect::<Vec<_>>().join("; "),
        })
    }

    /// One candidate's answer, for the message of an ambiguity.
    fn describe(&self, structure: &str, id: Id, path: &str) -> String {
        let size = self.types.size(id).ok().flatten().unwrap_or_default();
        match self.place(structure, id, path) {
            Ok(place) => format!("type {id} of {size} bytes has it at bit {}", place.bit),
            Err(_) => format!("type {id} has {size} bytes"),
        }
    }

    fn fields(&self, id: Id) -> Result<&[Field], Error> {
        Ok(match &self.types.resolve(id)?.shape {
            Shape::Struct { members, .. } | Shape::Union { members, .. } => &self.types.fields[members.clone()],
            _ => &[],
        })
    }

    fn place(&self, structure: &str, id: Id, path: &str) -> Result<Place, Error> {
        let mut place = Place { bit: 0, ty: id, bitfield: false };
        let mut walked = 0;
        for component in path.split('.') {
            if !matches!(self.types.resolve(place.ty)?.shape, Shape::Struct { .. } | Shape::Union { .. }) {
                return Err(Error::NotAStruct {
                    structure: structure.to_owned(),
                    member: path[..walked].trim_end_matches('.').to_owned(),
                    kind: self.types.resolve(place.ty)?.shape.noun(),
                });
            }
            walked = (walked + component.len() + 1).min(path.len());
            let inner = self.search(place.ty, component)?.ok_or_else(|| Error::MissingMember {
                structure: structure.to_owned(),
                member: path[..walked].trim_end_matches('.').to_owned(),
            })?;
            place = Place { bit: checked_bit(place.bit, inner.bit, id)?, ..inner };
        }
        Ok(place)
    }

    /// A named member, also inside anonymous structs and unions (breadth first: C has no two of the same name).
    fn search(&self, outer: Id, name: &str) -> Result<Option<Place>, Error> {
        let (mut pending, mut looked_at) = (vec![(outer, 0_u32)], 0);
        while let Some((id, base)) = pending.pop() {
            for field in self.fields(id)? {
                looked_at += 1;
                if looked_at > LARGEST_SEARCH {
                    return Err(Error::Damaged { what: "endless anonymous members", id: outer });
                }
                let bit = checked_bit(base, field.bit, outer)?;
                let field_name = self.types.name(field.name);
                if field_name.is_empty() {
                    pending.push((field.ty, bit));
                } else if field_name == name.as_bytes() {
                    return Ok(Some(Place { bit, ty: field.ty, bitfield: self.is_bitfield(field)? }));
                }
            }
        }
        Ok(None)
    }

    fn is_bitfield(&self, field: &Field) -> Result<bool, Error> {
        let narrow = match self.types.resolve(field.ty)?.shape {
            Shape::Int { size, bits, first } => first != 0 || u32::from(bits) != size.saturating_mul(8),
            _ => false,
        };
        Ok(narrow || field.width != 0 || !field.bit.is_multiple_of(8))
    }

    fn direct_member(&self, structure: &str, field: &Field) -> Result<Member, Error> {
        let name = self.types.text(field.name).into_owned();
        if self.is_bitfield(field)? {
            return Err(Error::Bitfield { structure: structure.to_owned(), member: name, bit: field.bit });
        }
        let (size, kind) = self.measure(field.ty)?;
        Ok(Member { name, offset: field.bit / 8, size, kind })
    }

    fn measure(&self, ty: Id) -> Result<(u64, MemberKind), Error> {
        let kind = match self.types.resolve(ty)?.shape {
            Shape::Int { .. } => MemberKind::Int,
            Shape::Enum { .. } => MemberKind::Enum,
            Shape::Float { .. } => MemberKind::Float,
            Shape::Pointer(_) => MemberKind::Pointer,
            Shape::Array { .. } => MemberKind::Array,
            Shape::Struct { .. } => MemberKind::Struct,
            Shape::Union { .. } => MemberKind::Union,
            _ => return Err(Error::Damaged { what: "a member that is no value", id: ty }),
        };
        Ok((self.types.size(ty)?.unwrap_or_default(), kind))
    }
}

impl Shape {
    /// What the type is, for messages.
    fn noun(&self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Int { .. } => "an integer",
            Self::Pointer(_) => "a pointer",
            Self::Array { .. } => "an array",
            Self::Struct { .. } => "a struct",
            Self::Union { .. } => "a union",
            Self::Enum { .. } => "an enumeration",
            Self::Forward => "only declared",
            Self::Typedef(_) | Self::Modifier(_) => "a typedef",
            Self::Function { .. } | Self::Prototype { .. } => "a function",
            Self::Float { .. } => "a floating-point number",
            Self::Other => "no value",
        }
    }
}

fn checked_bit(outer: u32, inner: u32, id: Id) -> Result<u32, Error> {
    outer.checked_add(inner).ok_or(Error::Damaged { what: "an offset beyond 4 Gbit", id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, kernel_like};

    fn btf() -> Btf {
        Btf::parse(&kernel_like()).expect("the fixture is sound")
    }

    #[test]
    fn paths_lead_through_structs_typedefs_and_anonymous_members() {
        let btf = btf();
        assert_eq!(btf.offset("file", "f_path").expect("direct"), 16);
        assert_eq!(btf.offset("file", "f_path.dentry").expect("nested, const typedef"), 24);
        assert_eq!(btf.offset("file", "f_lock").expect("in an anonymous union"), 8);
        assert_eq!(btf.offset("file", "f_low").expect("in an anonymous struct inside that union"), 12);
        assert_eq!(btf.offset("path_t", "mnt").expect("by a typedef's name"), 0);
        assert_eq!(btf.size("path").expect("size"), 16);
    }

    #[test]
    fn a_member_has_a_kind_and_a_size() {
        let btf = btf();
        let member = |path| btf.member("file", path).map(|member| (member.kind, member.size)).expect(path);
        assert_eq!(member("f_path"), (MemberKind::Struct, 16));
        assert_eq!(member("f_path.mnt"), (MemberKind::Pointer, 8));
        assert_eq!(member("f_mode"), (MemberKind::Int, 4));
        assert_eq!(member("f_name"), (MemberKind::Array, 12));
    }

    #[test]
    fn structs_are_listed_by_name() {
        let btf = btf();
        let names = btf.struct_names();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(names.iter().filter(|name| *name == "adapter").count(), 2, "both of them");
        for absent in ["path_t", "ovl_inode", ""] {
            assert!(!names.iter().any(|name| name == absent), "{absent:?} is no struct");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let btf = btf();
        let error = |structure: &str, path: &str| btf.offset(structure, path).expect_err(path);
        assert_eq!(error("fil", "f_path").to_string(), "no struct fil");
        assert_eq!(error("file", "f_path.dent").to_string(), "struct file has no member f_path.dent");
        assert_eq!(error("file", "f_paths.dentry").to_string(), "struct file has no member f_paths");
        assert!(error("file", "f_paths").is_missing());
        assert!(matches!(error("ovl_inode", "x"), Error::OnlyDeclared(_)));
        assert!(btf.has_struct("file") && !btf.has_struct("ovl_inode"));
        assert!(btf.has_member("file", "f_path.mnt") && !btf.has_member("file", "f_path.mount"));
    }

    #[test]
    fn a_pointer_ends_the_path() {
        let error = btf().offset("file", "f_path.mnt.mnt_root").expect_err("mnt is a pointer");
        assert_eq!(error.to_string(), "file.f_path.mnt is a pointer, no struct: the path cannot go on behind it");
    }

    #[test]
    fn bit_fields_have_no_offset() {
        for member in ["flag_by_struct", "flag_by_int"] {
            let error = btf().offset("bits", member).expect_err(member);
            assert!(matches!(error, Error::Bitfield { .. }), "{error}");
        }
        assert_eq!(btf().offset("bits", "whole").expect("beside bit fields"), 4);
    }

    #[test]
    fn structs_that_disagree_are_ambiguous_only_where_they_do() {
        let btf = btf();
        assert_eq!(btf.offset("adapter", "same").expect("same place in both"), 0);
        for member in ["moved", "only_in_one"] {
            assert!(matches!(btf.offset("adapter", member), Err(Error::Ambiguous { count: 2, .. })), "{member}");
        }
        assert!(matches!(btf.size("adapter"), Err(Error::Ambiguous { .. })));
        assert!(btf.offset("adapter", "in_none").expect_err("in none").is_missing());
    }

    #[test]
    fn circles_end() {
        let mut fixture = Fixture::default();
        fixture.ty("loop", 8, 0, false, 2, &[]); // 1: typedef of 2
        fixture.ty("loop2", 8, 0, false, 1, &[]); // 2: typedef of 1
        let anonymous = [[0, 3, 0], [0, 3, 0], [0, 3, 0]];
        fixture.ty("russian_doll", 4, 3, false, 8, &anonymous.concat()); // 3: contains itself three times
        let btf = Btf::parse(&fixture.bytes()).expect("circles are not seen when decoding");
        assert!(matches!(btf.offset("loop", "x"), Err(Error::Damaged { .. })));
        assert!(matches!(btf.offset("russian_doll", "x"), Err(Error::Damaged { .. })));
    }
}
