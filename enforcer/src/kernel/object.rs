//! The eBPF object as the running kernel is to get it.

use ringfence_abi::RDONLY_CAST;
use ringfence_btf::Btf;
use std::borrow::Cow;

/// As it was built, aligned for the ELF parser.
static BUILT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.bpf.o"));

/// Opcode of a call (`BPF_JMP | BPF_CALL`).
const CALL: u8 = 0x85;
/// What a call's source register says when the number is that of a kernel function (`BPF_PSEUDO_KFUNC_CALL`).
const KERNEL_FUNCTION: u8 = 2 << 4;

/// The bytes of the object, for one kernel.
pub struct Object(Cow<'static, [u8]>);

impl Object {
    /// As it was built: every read of kernel memory calls a helper. Works everywhere.
    pub fn built() -> Self {
        Self(Cow::Borrowed(BUILT))
    }

    /// With direct reads, if the kernel has what they take. Whether it lets the programs is for a trial load to say.
    pub fn with_direct_reads(kernel: &Btf) -> Option<Self> {
        let function = kernel.function_number("bpf_rdonly_cast")?;
        Some(Self(Cow::Owned(calling(BUILT, function))))
    }

    /// The ELF file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The object with every call of [`RDONLY_CAST`] turned into one of the kernel function.
fn calling(object: &[u8], function: u32) -> Vec<u8> {
    let instruction = |source: u8, number: u32| {
        let [a, b, c, d] = number.to_le_bytes();
        [CALL, source, 0, 0, a, b, c, d]
    };
    let (from, to) = (instruction(0, RDONLY_CAST), instruction(KERNEL_FUNCTION, function));
    let mut object = object.to_vec();
    let mut at = 0;
    while let Some(found) = object[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        object[at..at + to.len()].copy_from_slice(&to);
        at += to.len();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_placeholder_is_replaced() {
        let object = [&[0xb7, 0, 0, 0, 1, 0, 0, 0][..], &[CALL, 0, 0, 0, 0x01, 0x00, 0x46, 0x52]].concat();
        let patched = calling(&[&object[..], &object, &[CALL]].concat(), 0x0001_0203);
        let expected = [&object[..8], &[CALL, KERNEL_FUNCTION, 0, 0, 3, 2, 1, 0]].concat();
        assert_eq!(patched, [&expected[..], &expected, &[CALL]].concat());
    }

    #[test]
    fn the_built_object_has_placeholders() {
        assert_ne!(calling(BUILT, 1), BUILT);
        assert_eq!(calling(BUILT, 1).len(), BUILT.len());
    }
}
