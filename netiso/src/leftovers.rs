//! What of ours is on the system: to remove it, and to prove that nothing is left.

use crate::{
    Error,
    classifier::{Interface, parse_pin},
    clsact,
    link::{self, connect},
};
use aya::programs::{
    TcAttachType,
    links::{FdLink, PinnedLink},
    loaded_links, loaded_programs,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::Duration,
};

/// Programs by name. The kernel keeps the first 15 bytes.
const PROGRAMS: [&str; 4] = ["cgroup_egress", "cgroup_ingress", "veth_egress", "veth_ingress"];

/// Everything of ours that is attached or pinned, one line each. Empty: nothing is left.
pub async fn leftovers(pins: &Path) -> Result<Vec<String>, Error> {
    let mut found: Vec<String> = pinned(pins)?.iter().map(|pin| format!("pin {}", pin.display())).collect();
    let netlink = connect()?;
    for link in link::links(&netlink).await? {
        for (direction, word) in DIRECTIONS {
            for message in clsact::filters(&netlink, link.index, direction).await? {
                if let Some(program) = our_program(&message) {
                    found.push(format!("clsact filter {program} at {} {word}", link.name));
                }
            }
        }
    }
    // Links that are held by a process and not pinned.
    let programs: BTreeMap<u32, String> = loaded_programs()
        .filter_map(Result::ok)
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .filter(|(_, name)| PROGRAMS.contains(&name.as_str()))
        .collect();
    for link in loaded_links().filter_map(Result::ok) {
        if let Some(program) = programs.get(&link.program_id()) {
            found.push(format!("link {} of program {program}", link.id()));
        }
    }
    Ok(found)
}

/// What stays when the rest goes: whatever lies on the way of slots that are to stay isolated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The programs at cgroups.
    pub cgroups: bool,
    /// Those at these interfaces.
    pub interfaces: BTreeSet<u32>,
}

impl Keep {
    fn pin(&self, pin: &Path) -> bool {
        let name = pin.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        parse_pin(name).map_or(self.cgroups, |(index, _)| self.interfaces.contains(&index))
    }
}

/// Detaches everything of ours but `keep`, and removes its pins. Returns what it removed, one line each. Maps are not
/// attached and not this crate's to remove.
pub async fn uninstall(pins: &Path, keep: &Keep) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    let netlink = connect()?;
    for link in link::links(&netlink).await?.into_iter().filter(|link| !keep.interfaces.contains(&link.index)) {
        let interface = Interface { index: link.index, name: &link.name };
        for (direction, word) in DIRECTIONS {
            for program in PROGRAMS {
                if clsact::find(&netlink, link.index, direction, program).await?.is_some() {
                    clsact::detach(&netlink, program, direction, interface).await?;
                    removed.push(format!("clsact filter {program} at {} {word}", link.name));
                }
            }
        }
    }
    let mut detaching = BTreeSet::new();
    for pin in pinned(pins)?.into_iter().filter(|pin| !keep.pin(pin)) {
        // What can't be opened as a link is no link; it is removed all the same.
        let link = PinnedLink::from_pin(&pin).ok().and_then(|link| FdLink::from(link).info().ok());
        detaching.extend(link.map(|link| link.id()));
        fs::remove_file(&pin).map_err(|source| Error::Pin { path: pin.clone(), source })?;
        removed.push(format!("pin {}", pin.display()));
    }
    wait_until_gone(&detaching).await;
    Ok(removed)
}

/// The kernel lets a link go some time after its last pin went (an RCU grace period). Whoever looks for leftovers next
/// should not find it; if it stays, because a process holds it, that is for [`leftovers`] to say.
async fn wait_until_gone(links: &BTreeSet<u32>) {
    const STEP: Duration = Duration::from_millis(20);
    const STEPS: usize = 250;
    for _ in 0..STEPS {
        if !loaded_links().filter_map(Result::ok).any(|link| links.contains(&link.id())) {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

const DIRECTIONS: [(TcAttachType, &str); 2] = [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")];

fn our_program(message: &netlink_packet_route::tc::TcMessage) -> Option<&'static str> {
    if !clsact::is_our_handle(message) {
        return None;
    }
    let name = clsact::program_name(message)?;
    PROGRAMS.into_iter().find(|program| *program == name)
}

/// Our pins, sorted. No directory, no pins.
fn pinned(pins: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let failed = |source| Error::Pin { path: pins.to_owned(), source };
    let entries = match fs::read_dir(pins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.retain(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("tcx-") || name.starts_with("cgroup-"))
    });
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_on_the_way_of_what_stays_isolated_are_kept() {
        let keep = Keep { cgroups: true, interfaces: BTreeSet::from([7]) };
        let kept =
            |keep: &Keep| ["cgroup-egress", "tcx-7-ingress", "tcx-8-ingress"].map(|pin| keep.pin(Path::new(pin)));
        assert_eq!(kept(&keep), [true, true, false]);
        assert_eq!(kept(&Keep::default()), [false; 3]);
    }
}
