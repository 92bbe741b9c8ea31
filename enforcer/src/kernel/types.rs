//! The kernel's types, from where they are on this node.

use super::{Error, load::Loader};
use aya::{Btf, EbpfLoader, Endianness};
use ringfence_abi::Offsets;
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

/// Where the kernel shows its own (`CONFIG_DEBUG_INFO_BTF=y`, Linux 5.4).
const KERNELS: &str = "/sys/kernel/btf/vmlinux";

/// The file that the kernel's types are read from.
#[derive(Clone, Debug)]
pub struct TypesFile(PathBuf);

impl TypesFile {
    /// The kernel's own, or the one that stands in for it where that is hidden: bare BTF, or an ELF file with a section
    /// `.BTF`. Another kernel's would have programs read at wrong places, and is refused where that can be seen.
    pub fn new(given: Option<&Path>) -> Result<Self, Error> {
        let Some(given) = given else {
            let file = Self(KERNELS.into());
            return if file.0.exists() { Ok(file) } else { Err(Error::NoTypes) };
        };
        let file = Self(given.to_owned());
        let bytes = file.bytes()?;
        if fs::read(KERNELS).is_ok_and(|kernels| kernels != bytes) {
            return Err(Error::ForeignTypes(file.0));
        }
        Ok(file)
    }

    /// What it means that the kernel refuses programs which are loaded with these.
    pub fn blamed(&self, source: Error) -> Error {
        let path = self.0.clone();
        if path == Path::new(KERNELS) { source } else { Error::UnknownTypes { path, source: Box::new(source) } }
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        ringfence_btf::bytes(&self.0).map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: ringfence_btf::Error) -> Error {
        Error::Types { path: self.0.clone(), source }
    }

    /// What programs on kernel objects are loaded with.
    pub fn for_programs(&self) -> Result<Btf, Error> {
        self.programs(&self.bytes()?)
    }

    fn programs(&self, bytes: &[u8]) -> Result<Btf, Error> {
        // By name, functions and tracepoints (typedefs) alone are looked up.
        let bare = ringfence_btf::skeleton(bytes).map_err(|source| self.unreadable(source))?;
        Ok(Btf::parse(&bare, Endianness::default()).map_err(aya::EbpfError::BtfError)?)
    }

    /// Reads all that is needed of them at a start, side by side.
    pub fn read(&self) -> Result<Types<'static>, Error> {
        let bytes = self.bytes()?;
        thread::scope(|scope| {
            let ours = scope.spawn(|| ringfence_btf::Btf::parse(&bytes));
            let programs = scope.spawn(|| self.programs(&bytes));
            let loader = EbpfLoader::new();
            Ok(Types {
                ours: ours.join().expect("reading does not panic").map_err(|source| self.unreadable(source))?,
                programs: programs.join().expect("reading does not panic")?,
                loader,
            })
        })
    }
}

/// The kernel's types, read as three readers need them.
pub struct Types<'a> {
    /// For offsets.
    pub ours: ringfence_btf::Btf,
    /// For programs on kernel objects.
    programs: Btf,
    /// aya's loader, which reads them whether or not they are needed.
    loader: EbpfLoader<'a>,
}

impl<'a> Types<'a> {
    /// A loader with what the programs need to know of this kernel, and the types.
    pub fn into_loader(self, offsets: &'a Offsets) -> (Loader<'a>, ringfence_btf::Btf, Btf) {
        (Loader::over(self.loader, offsets), self.ours, self.programs)
    }
}
