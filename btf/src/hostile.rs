//! Damaged BTF may be refused or read, but it never panics and never runs away.

use proptest::{collection::vec, prelude::*};

use crate::{Btf, fixture::kernel_like};

/// Every kind of question, about everything that has a name.
fn ask_everything(btf: &Btf) {
    for (_, id) in &btf.by_name {
        let name = btf.types.text(btf.types.all[*id as usize].name).into_owned();
        let _ = btf.size(&name);
        for path in ["f_path.dentry", "f_low", "f_path.mnt.x", "flag_by_struct", "same", "", ".", "f_path."] {
            let _ = btf.offset(&name, path).map_err(|error| error.to_string());
            let _ = btf.member(&name, path);
        }
        let _ = btf.members(&name);
        let _ = btf.function_args(&name);
        let _ = btf.tracepoint_args(name.strip_prefix("btf_trace_").unwrap_or(&name));
    }
}

proptest! {
    #[test]
    fn changed_bytes(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = kernel_like();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
        }
    }

    /// References are where circles and wild jumps come from: small numbers hit existing types.
    #[test]
    fn changed_references(changes in vec((any::<prop::sample::Index>(), 0_u32..40), 1..8)) {
        let mut bytes = kernel_like();
        let words = (bytes.len() - 24) / 4;
        for (at, value) in changes {
            let at = 24 + at.index(words) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn noise(bytes in vec(any::<u8>(), 0..200)) {
        let mut headed = vec![0x9f, 0xeb, 1, 0];
        headed.extend_from_slice(&bytes);
        let _ = Btf::parse(&bytes);
        let _ = Btf::parse(&headed);
        let _ = Btf::from_elf(&bytes);
    }
}
