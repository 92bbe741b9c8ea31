//! Reads BTF, the kernel's own description of its types: where in a struct a member lies.
//!
//! Rust emits no relocations for kernel structs (CO-RE), so the enforcer looks up every offset that its eBPF
//! programs need before it loads them:
//!
//! ```no_run
//! let kernel = ringfence_btf::Btf::from_sys_fs()?;
//! let dentry: u32 = kernel.offset("file", "f_path.dentry")?; // bytes
//! # Ok::<(), ringfence_btf::Error>(())
//! ```
//!
//! The one promise: an answer is right or it is an error. A struct that exists twice with different layouts is
//! [`Error::Ambiguous`] (different drivers do use the same name), and no input makes this crate panic.
//!
//! One file per step: `decode` turns bytes into `types`, `lookup` answers questions about structs, `signature` about
//! functions and tracepoints, `source` finds the bytes. `skeleton` leaves out what a reader of ids does not need.

mod decode;
mod error;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hostile;
mod lookup;
mod signature;
mod skeleton;
mod source;
mod types;

pub use error::Error;
pub use lookup::{Member, MemberKind};
pub use signature::Argument;
pub use skeleton::skeleton;
pub use source::bytes;

/// The types of one kernel, kernel module or eBPF object.
#[derive(Clone, Debug)]
pub struct Btf {
    types: types::Types,
    /// Hash of its name and id of every type that has one, in order.
    by_name: Vec<(u64, types::Id)>,
}
