//! Removes every trace of Ringfence from the kernel, and shows that nothing is left.

use crate::{
    kernel::{Error, Isolated, Pins},
    state,
};
use ringfence_netiso::Keep;
use std::{fs, io, path::Path};

/// What becomes of pods and containers that are isolated when everything else is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum IsolatedPods {
    /// They get their network back.
    #[default]
    Release,
    /// They stay cut off until they end, the node restarts, or somebody removes the rest.
    Keep,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Removed {
    /// What is gone, one line each.
    pub lines: Vec<String>,
    /// How many stay isolated.
    pub kept: usize,
}

impl Removed {
    /// What is left, in a sentence.
    pub fn summary(&self) -> String {
        let removed = self.lines.len();
        match self.kept {
            0 => format!("nothing of Ringfence is left in the kernel ({removed} removed)"),
            1 => format!("one that is isolated stays so; nothing else is left in the kernel ({removed} removed)"),
            kept => format!("{kept} that are isolated stay so; nothing else is left in the kernel ({removed} removed)"),
        }
    }
}

/// Removes pins, links and filters, unless an enforcer is at work over them. An error lists what is left.
pub async fn uninstall(bpffs: &Path, state: &Path, isolated: IsolatedPods) -> anyhow::Result<Removed> {
    let pins = Pins::new(bpffs);
    // A running enforcer would go on without its programs, and not know it.
    let _claim = if pins.root().is_dir() { Some(pins.claim()?) } else { None };
    state::remove(state)?;
    let found = match isolated {
        IsolatedPods::Keep => Isolated::find(&pins)?,
        IsolatedPods::Release => Isolated::default(),
    };
    if !found.slots.is_empty() {
        let keep = Keep { cgroups: true, interfaces: found.interfaces.clone() };
        let mut lines = found.retain(&pins)?;
        lines.extend(ringfence_netiso::uninstall(&pins.net(), &keep).await?);
        return Ok(Removed { lines, kept: found.slots.len() });
    }
    let mut lines = ringfence_netiso::uninstall(&pins.net(), &Keep::default()).await?;
    lines.extend(pinned(&pins));
    remove(pins.root())?;
    let mut left = ringfence_netiso::leftovers(&pins.net()).await?;
    left.extend(pinned(&pins));
    anyhow::ensure!(left.is_empty(), "still there:\n{}", left.join("\n"));
    Ok(Removed { lines, kept: 0 })
}

fn pinned(pins: &Pins) -> Vec<String> {
    pins.list().iter().map(|path| format!("pin {}", path.display())).collect()
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Path { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
