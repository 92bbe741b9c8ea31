//! Where BTF comes from: the running kernel, its modules, files.

use std::{fs, path::Path};

use object::{Object, ObjectSection};

use crate::{Btf, Error};

/// Where the kernel shows its own and its modules' BTF (Linux 5.4, modules 5.11).
const SYS_FS: &str = "/sys/kernel/btf";

impl Btf {
    /// The running kernel's types.
    pub fn from_sys_fs() -> Result<Self, Error> {
        Self::parse(&read(&Path::new(SYS_FS).join("vmlinux"))?)
    }

    /// The types of a loaded module (`overlay`) together with the running kernel's.
    ///
    /// Fails with [`Error::Io`] where the module is not loaded or is built into the kernel: then its types are in
    /// [`Self::from_sys_fs`].
    pub fn module(name: &str) -> Result<Self, Error> {
        let bytes = read(&Path::new(SYS_FS).join(name))?;
        Self::parse_split(Self::from_sys_fs()?, &bytes)
    }

    /// The types in a file: bare BTF, or an ELF file with a section `.BTF`.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::parse(&bytes(path)?)
    }

    /// The types in the section `.BTF` of an ELF file, such as a built eBPF object.
    pub fn from_elf(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse(section(bytes)?)
    }
}

/// The BTF in a file, for other readers: all of it, or the section `.BTF` of an ELF file.
pub fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = read(path)?;
    if bytes.starts_with(&object::elf::ELFMAG) { Ok(section(&bytes)?.to_vec()) } else { Ok(bytes) }
}

fn section(elf: &[u8]) -> Result<&[u8], Error> {
    let file = object::File::parse(elf)?;
    Ok(file.section_by_name(".BTF").ok_or(Error::NoSection)?.data()?)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, write};

    use super::*;
    use crate::fixture::kernel_like;

    fn elf(section: &[u8], content: &[u8]) -> Vec<u8> {
        let mut file = write::Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let id = file.add_section(Vec::new(), section.to_vec(), SectionKind::Other);
        file.append_section_data(id, content, 1);
        file.write().expect("a small ELF file")
    }

    #[test]
    fn the_btf_section_of_an_elf_file_is_found() {
        let btf = Btf::from_elf(&elf(b".BTF", &kernel_like())).expect("readable");
        assert_eq!(btf.offset("file", "f_path.dentry").expect("there"), 24);
    }

    #[test]
    fn elf_files_without_btf_and_other_files_are_told_apart() {
        assert!(matches!(Btf::from_elf(&elf(b".data", b"x")), Err(Error::NoSection)));
        assert!(matches!(Btf::from_elf(b"#!/bin/sh"), Err(Error::Elf(_))));
        assert!(matches!(Btf::from_elf(b"\x7fELF"), Err(Error::Elf(_))));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Btf::module("no_such_module").expect_err("not there");
        assert!(error.to_string().starts_with("cannot read /sys/kernel/btf/no_such_module: "), "{error}");
    }
}
