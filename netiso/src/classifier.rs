//! Programs at an interface, by tcx where the kernel has it (6.6), else by clsact.

use crate::{Error, clsact, program};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use nix::{errno::Errno, net::if_::if_nametoindex};
use rtnetlink::Handle;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often it is looked whether a program has gone, and the pause between.
const LOOKS: usize = 500;
const PAUSE: Duration = Duration::from_millis(1);

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A link of its own, first in the chain; runs before every clsact filter. From 6.6 on.
    Tcx,
    /// A filter of the clsact queueing discipline, first within priority 1.
    Clsact,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// Where a program lies among others at an interface. One that lies before it may let packets pass for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Missing,
    First,
    Behind,
}

impl Place {
    pub fn of(position: Option<usize>) -> Self {
        match position {
            None => Self::Missing,
            Some(0) => Self::First,
            Some(_) => Self::Behind,
        }
    }
}

/// An interface, by number; the name is what aya attaches by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface<'a> {
    pub index: u32,
    pub name: &'a str,
}

impl Interface<'_> {
    /// Attaching goes by name and names can be given anew: whether the name still means this interface.
    fn is_still(&self) -> bool {
        if_nametoindex(self.name) == Ok(self.index)
    }
}

/// A program and the direction it is made for, seen from the interface.
#[derive(Debug)]
pub(crate) struct Classifier {
    pub name: &'static str,
    pub direction: TcAttachType,
    program: SchedClassifier,
}

impl Classifier {
    /// Loads the program of that name.
    pub fn load(ebpf: &mut aya::Ebpf, name: &'static str, direction: TcAttachType) -> Result<Self, Error> {
        let program = program::load(ebpf, name, SchedClassifier::load, |loaded| {
            SchedClassifier::from_program_info(loaded.info()?, name.into())
        })?;
        Ok(Self { name, direction, program })
    }

    fn word(&self) -> &'static str {
        if self.direction == TcAttachType::Egress { "egress" } else { "ingress" }
    }

    fn pin(&self, pins: &Path, index: u32) -> PathBuf {
        pins.join(format!("tcx-{index}-{}", self.word()))
    }

    /// Attaches to an interface, by `only` if given, else by the best that the kernel has.
    pub async fn attach(
        &mut self,
        netlink: &Handle,
        pins: &Path,
        interface: Interface<'_>,
        only: Option<Hook>,
    ) -> Result<Hook, Error> {
        if only != Some(Hook::Clsact) {
            match self.attach_tcx(pins, interface) {
                Ok(()) => return Ok(Hook::Tcx),
                Err(Error::Attach { source, .. }) if only.is_none() && is_unsupported(&source) => {}
                Err(error) => return Err(error),
            }
        }
        clsact::attach(netlink, &mut self.program, self.name, self.direction, interface).await?;
        Ok(Hook::Clsact)
    }

    fn attach_tcx(&mut self, pins: &Path, interface: Interface<'_>) -> Result<(), Error> {
        let pin = self.pin(pins, interface.index);
        if self.adopt(&pin)? {
            return Ok(());
        }
        let (program, direction) = (self.name, self.direction);
        let failed = |source| Error::Attach { program, to: interface.name.to_owned(), source };
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = self.program.attach_with_options(interface.name, direction, first).map_err(failed)?;
        let link = self.program.take_link(id).map_err(failed)?;
        if !interface.is_still() {
            return Err(failed(io::Error::other("the interface was renamed meanwhile").into()));
        }
        let link: FdLink = link.try_into().map_err(|error: LinkError| failed(io::Error::other(error).into()))?;
        link.pin(&pin).map_err(|error| Error::Pin { path: pin.clone(), source: io::Error::other(error) })?;
        Ok(())
    }

    /// Puts this program into the link pinned at `pin`, in one step. False: there is none, or only that of an
    /// interface that is gone (then the pin is removed).
    pub fn adopt(&mut self, pin: &Path) -> Result<bool, Error> {
        let failed = |source| Error::Pin { path: pin.to_owned(), source };
        let link = match PinnedLink::from_pin(pin) {
            Ok(link) => link,
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(error) => return Err(failed(io::Error::other(error))),
        };
        let link: SchedClassifierLink =
            FdLink::from(link).try_into().map_err(|error: LinkError| failed(io::Error::other(error)))?;
        match self.program.attach_to_link(link) {
            Ok(id) => {
                // The pin holds the link from here on.
                drop(self.program.take_link(id));
                Ok(true)
            }
            Err(error) if errno(&error) == Some(Errno::ENOLINK) => {
                fs::remove_file(pin).map_err(failed)?;
                Ok(false)
            }
            Err(error) => Err(failed(io::Error::other(error))),
        }
    }

    /// Where the program lies at the interface.
    pub async fn place(&self, netlink: &Handle, interface: Interface<'_>, hook: Hook) -> Result<Place, Error> {
        match hook {
            Hook::Tcx => {
                let failed = |source| Error::Attach { program: self.name, to: interface.name.to_owned(), source };
                let ours = self.program.info().map_err(failed)?.id();
                let (_, programs) = SchedClassifier::query_tcx(interface.name, self.direction).map_err(failed)?;
                Ok(Place::of(programs.iter().position(|program| program.id() == ours)))
            }
            Hook::Clsact => clsact::place(netlink, interface.index, self.direction, self.name).await,
        }
    }

    /// Detaches, and waits until it is so: the kernel takes a link off a moment after its pin (a work queue), and until
    /// then refuses the same program a second time.
    pub async fn detach_at_once(
        &mut self,
        netlink: &Handle,
        pins: &Path,
        interface: Interface<'_>,
        hook: Hook,
    ) -> Result<(), Error> {
        self.detach(netlink, pins, interface).await?;
        for _ in 0..LOOKS {
            if self.place(netlink, interface, hook).await? == Place::Missing {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Detaches from an interface, which may be gone already.
    pub async fn detach(&mut self, netlink: &Handle, pins: &Path, interface: Interface<'_>) -> Result<(), Error> {
        let pin = self.pin(pins, interface.index);
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Pin { path: pin, source: error });
            }
            _ => {}
        }
        if interface.is_still() {
            clsact::detach(netlink, self.name, self.direction, interface).await?;
        }
        Ok(())
    }
}

/// The interface and the direction that a pin's name speaks of.
pub(crate) fn parse_pin(name: &str) -> Option<(u32, TcAttachType)> {
    let (index, word) = name.strip_prefix("tcx-")?.split_once('-')?;
    let direction = match word {
        "ingress" => TcAttachType::Ingress,
        "egress" => TcAttachType::Egress,
        _ => return None,
    };
    Some((index.parse().ok()?, direction))
}

/// What kernels before 6.6 answer to a tcx link.
fn is_unsupported(error: &ProgramError) -> bool {
    matches!(errno(error), Some(Errno::EINVAL | Errno::EOPNOTSUPP))
}

fn errno(error: &ProgramError) -> Option<Errno> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_say_what_they_hold() {
        assert_eq!(parse_pin("tcx-7-ingress"), Some((7, TcAttachType::Ingress)));
        assert_eq!(parse_pin("tcx-7-egress"), Some((7, TcAttachType::Egress)));
        for other in ["tcx-7", "tcx--ingress", "tcx-x-ingress", "cgroup-ingress", "tcx-7-ingress.new"] {
            assert_eq!(parse_pin(other), None, "{other}");
        }
    }
}
