//! BTF made for tests, in memory.

/// Writes BTF type by type; the first has number 1.
#[derive(Default)]
pub struct Fixture {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Length of the strings of the kernel below, for a module.
    below: u32,
}

impl Fixture {
    /// A module on top of a kernel whose string table has this length.
    pub fn module(below: u32) -> Self {
        Self { below, ..Self::default() }
    }

    /// Offset of a (new) name.
    pub fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.below + u32::try_from(self.strings.len()).expect("small");
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// A type: name, kind, count, the flag "has bit fields", size or type, and what follows.
    pub fn ty(&mut self, name: &str, kind: u32, count: u32, flag: bool, size_or_type: u32, tail: &[u32]) {
        let name = self.name(name);
        let info = kind << 24 | count | u32::from(flag) << 31;
        for word in [name, info, size_or_type].iter().chain(tail) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// A type without content whose name is at a given offset.
    pub fn ty_named_at(&mut self, name: u32, kind: u32) {
        for word in [name, kind << 24, 0] {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Everything behind a header.
    pub fn bytes(&self) -> Vec<u8> {
        let strings = if self.strings.is_empty() { &[0][..] } else { &self.strings };
        let (types, strings_length) = (self.types.len(), strings.len());
        let length = |length: usize| u32::try_from(length).expect("small").to_le_bytes();
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [length(24), length(0), length(types), length(types), length(strings_length)] {
            bytes.extend_from_slice(&word);
        }
        bytes.extend_from_slice(&self.types);
        bytes.extend_from_slice(strings);
        bytes
    }
}

/// A small kernel: every kind once, nested and anonymous members, bit fields, two structs of one name.
pub fn kernel_like() -> Vec<u8> {
    let mut f = Fixture::default();
    f.ty("unsigned int", 1, 0, false, 4, &[32]); // 1
    f.ty("", 2, 0, false, 0, &[]); // 2: void *
    f.ty("", 10, 0, false, 2, &[]); // 3: void *const
    let (mnt, dentry) = (f.name("mnt"), f.name("dentry"));
    f.ty("path", 4, 2, false, 16, &[mnt, 2, 0, dentry, 3, 64]); // 4
    f.ty("path_t", 8, 0, false, 4, &[]); // 5
    f.ty("", 9, 0, false, 5, &[]); // 6: volatile path_t
    f.ty("", 3, 0, false, 0, &[1, 1, 3]); // 7: unsigned int[3]
    let (low, high) = (f.name("f_high"), f.name("f_low"));
    f.ty("", 4, 2, false, 8, &[low, 1, 0, high, 1, 32]); // 8: anonymous
    let lock = f.name("f_lock");
    f.ty("", 5, 2, false, 8, &[lock, 1, 0, 0, 8, 0]); // 9: anonymous union
    let (mode, path, name) = (f.name("f_mode"), f.name("f_path"), f.name("f_name"));
    f.ty("file", 4, 4, false, 48, &[mode, 1, 0, 0, 9, 64, path, 6, 128, name, 7, 256]); // 10
    f.ty("ovl_inode", 7, 0, false, 0, &[]); // 11: declared only
    f.ty("old_flag", 1, 0, false, 4, &[3]); // 12: an integer of 3 bits
    let (by_int, by_struct, whole) = (f.name("flag_by_int"), f.name("flag_by_struct"), f.name("whole"));
    f.ty("bits", 4, 3, true, 8, &[by_int, 12, 0, by_struct, 1, 3 << 24 | 3, whole, 1, 32]); // 13
    let (same, moved, one) = (f.name("same"), f.name("moved"), f.name("only_in_one"));
    f.ty("adapter", 4, 2, false, 8, &[same, 1, 0, moved, 1, 32]); // 14
    f.ty("adapter", 4, 3, false, 12, &[same, 1, 0, moved, 1, 64, one, 1, 32]); // 15
    f.ty("", 2, 0, false, 10, &[]); // 16: struct file *
    f.ty("", 13, 3, false, 0, &[0, 2, 0, 16, 0, 1]); // 17: (void *, struct file *, unsigned int)
    f.ty("", 2, 0, false, 17, &[]); // 18
    f.ty("btf_trace_file_seen", 8, 0, false, 18, &[]); // 19
    f.ty("security_file_open", 12, 1, false, 17, &[]); // 20
    let value = f.name("VALUE");
    f.ty("colour", 6, 1, false, 4, &[value, 7]); // 21
    f.ty("wide_colour", 19, 1, false, 8, &[value, 7, 0]); // 22
    f.ty("", 11, 0, false, 2, &[]); // 23: restrict
    f.ty("variable", 14, 0, false, 1, &[1]); // 24
    f.ty(".data", 15, 1, false, 4, &[24, 0, 4]); // 25
    f.ty("double", 16, 0, false, 8, &[]); // 26
    f.ty("tag", 17, 0, false, 10, &[u32::MAX]); // 27
    f.ty("user", 18, 0, false, 2, &[]); // 28
    f.bytes()
}
