//! The eBPF object as the running kernel is to get it.

use ringfence_abi::{RDONLY_CAST, Tier};
use ringfence_btf::Btf;
use std::borrow::Cow;

/// As it was built, aligned for the ELF parser: every read of kernel memory calls a helper.
static HELPER_READS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.bpf.o"));
/// The same with loads from kernel memory.
static DIRECT_READS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence-direct-reads.bpf.o"));

/// Opcode of a call (`BPF_JMP | BPF_CALL`).
const CALL: u8 = 0x85;
/// What a call's source register says when the number is that of a kernel function (`BPF_PSEUDO_KFUNC_CALL`).
const KERNEL_FUNCTION: u8 = 2 << 4;

/// What the programs are loaded as: they are built once, and the first part of a section's name says the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Tier of the programs on security hooks; `Tracepoint`: there are none.
    pub hooks: Tier,
    /// How system calls are seen.
    pub calls: Calls,
}

/// How system calls are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// By their tracepoints.
    Tracepoints,
    /// By trampolines on their functions, where attachments to tracepoints end with the enforcer (before 5.15).
    Functions,
    /// By the tracepoints of all calls, which go on to a call's programs by its number, where there is no trampoline
    /// either (arm64 before 6.0).
    Every,
}

impl Form {
    /// Names of sections and what takes their place, byte for byte: both are in the object's strings and in its BTF.
    fn renamed(self) -> Vec<(&'static [u8], &'static [u8])> {
        let mut renamed: Vec<(&[u8], &[u8])> = Vec::new();
        match self.hooks {
            Tier::Lsm | Tier::Tracepoint => {}
            Tier::Fentry => renamed.push((b"lsm/---", b"fexit/-")),
            Tier::Kprobe => renamed.push((b"lsm/---", b"kprobe/")),
        }
        match self.calls {
            Calls::Tracepoints => {}
            Calls::Functions => renamed.extend([
                (&b"tracepoint/enter/"[..], &b"fentry/////enter/"[..]),
                (&b"tracepoint/exit/"[..], &b"fexit//////exit/"[..]),
            ]),
            Calls::Every => renamed.extend([
                (&b"tracepoint/enter/"[..], &b"tp_btf/////enter/"[..]),
                (&b"tracepoint/exit/"[..], &b"tp_btf/////exit/"[..]),
            ]),
        }
        renamed
    }
}

/// The bytes of the object, for one kernel.
#[derive(Clone)]
pub struct Object(Cow<'static, [u8]>);

impl Object {
    /// With a helper call for every read of kernel memory. Works everywhere.
    pub fn with_helper_reads() -> Self {
        Self(Cow::Borrowed(HELPER_READS))
    }

    /// With direct reads, if the kernel has what they take. Whether it lets the programs is for a trial load to say.
    pub fn with_direct_reads(kernel: &Btf) -> Option<Self> {
        let function = kernel.function_number("bpf_rdonly_cast")?;
        Some(Self(Cow::Owned(calling(DIRECT_READS, function))))
    }

    /// The same with its programs in this form.
    pub fn in_form(mut self, form: Form) -> Self {
        for (from, to) in form.renamed() {
            replace(self.0.to_mut(), from, to);
        }
        self
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
    let mut object = object.to_vec();
    replace(&mut object, &instruction(0, RDONLY_CAST), &instruction(KERNEL_FUNCTION, function));
    object
}

/// Puts `to` in the place of every `from`. They are of one length.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
        at += to.len();
    }
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
    fn forms_change_names_and_no_length() {
        let calls = [Calls::Functions, Calls::Every];
        for (hooks, calls) in [Tier::Fentry, Tier::Kprobe].into_iter().zip(calls) {
            let form = Form { hooks, calls };
            for (from, to) in form.renamed() {
                assert_eq!(from.len(), to.len());
            }
            for built in [HELPER_READS, DIRECT_READS] {
                let object = Object(built.into()).in_form(form);
                assert_eq!(object.bytes().len(), built.len());
                assert_ne!(object.bytes(), built);
            }
        }
        let as_built = Form { hooks: Tier::Lsm, calls: Calls::Tracepoints };
        assert_eq!(Object::with_helper_reads().in_form(as_built).bytes(), HELPER_READS);
    }

    #[test]
    fn the_object_with_direct_reads_alone_has_placeholders() {
        assert_eq!(calling(HELPER_READS, 1), HELPER_READS);
        assert_ne!(calling(DIRECT_READS, 1), DIRECT_READS);
        assert_eq!(calling(DIRECT_READS, 1).len(), DIRECT_READS.len());
    }
}
