//! How a struct is laid out: the same on both targets, and without padding.
//!
//! A struct that kernel and user space share is defined by `shared!`, which refuses padding, and named in
//! `all_shared!`. `tests/layout.rs` finds what is not named; `enforcer/tests/layout.rs` holds the host's layout against
//! that of the built object, by its BTF.

/// What any bytes are a valid value of.
pub trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A struct that kernel and user space share.
pub trait Shared: Plain {
    /// Its fields, in the order of their declaration.
    const FIELDS: &'static [Field];
}

/// A field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Bytes from the beginning of the struct.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A struct, as this target lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name, with crate and module.
    pub path: &'static str,
    /// Bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Its fields.
    pub fields: &'static [Field],
}

impl Layout {
    /// The layout of a struct.
    pub fn of<T: Shared>() -> Self {
        Self { path: core::any::type_name::<T>(), size: size_of::<T>(), align: align_of::<T>(), fields: T::FIELDS }
    }
}

/// A struct behind one byte: where it begins is its alignment, also in type information, which does not tell that.
#[repr(C)]
pub struct Aligned<T> {
    /// The byte.
    pub before: u8,
    /// The struct.
    pub value: T,
}

/// Defines a struct that is shared: `repr(C)`, plain, without padding.
macro_rules! shared {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)* }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }

        const _: () = assert!(
            size_of::<$name>() == 0 $(+ size_of::<$ty>())*,
            concat!(stringify!($name), " has padding: fill it with a field, or order the fields by size"),
        );

        impl $crate::layout::Plain for $name where $($ty: $crate::layout::Plain,)* {}

        impl $crate::layout::Shared for $name {
            const FIELDS: &'static [$crate::layout::Field] = &[$($crate::layout::Field {
                name: stringify!($field),
                offset: core::mem::offset_of!($name, $field),
                size: size_of::<$ty>(),
            },)*];
        }
    };
}
pub(crate) use shared;

/// Names every shared struct, once.
macro_rules! all_shared {
    ($($name:ident,)*) => {
        /// Every shared struct.
        #[cfg(not(target_arch = "bpf"))]
        pub fn all() -> impl Iterator<Item = Layout> {
            [$(Layout::of::<crate::$name>(),)*].into_iter()
        }

        /// Has the compiler write down every shared struct in the object's BTF: for maps it notes their names alone.
        /// Nobody calls it, and what is not called is not loaded.
        #[cfg(target_arch = "bpf")]
        #[unsafe(no_mangle)]
        extern "C" fn rf_layout(_: &($(Aligned<crate::$name>,)*)) {}

        $(
            // SAFETY: `shared!` sees to it that any bytes are a valid value, and that there are no others: no padding.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for crate::$name {}
        )*
    };
}

all_shared! {
    Ancestor,
    CgroupName,
    DestinationKey,
    Entry,
    Event,
    EventHeader,
    ExceptionKey,
    ExceptionPorts,
    FacetDefault,
    FlowKey,
    Isolation,
    KeyHead,
    NameKey,
    Node,
    NumberKey,
    Offsets,
    PathKey,
    PathPrefixKey,
    PortRange,
    RulesetVectors,
    Slot,
}
