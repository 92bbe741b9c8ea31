//! Removes every trace of Ringfence from the kernel, and shows that nothing is left.

use crate::kernel::{Error, Pins};
use std::{fs, io, path::Path};

/// Removes pins, links and filters, unless an enforcer is at work over them. Returns what was removed, one line each; an error lists what is left.
pub async fn uninstall(bpffs: &Path, state: &Path) -> anyhow::Result<Vec<String>> {
    let pins = Pins::new(bpffs);
    // A running enforcer would go on without its programs, and not know it.
    let _claim = if pins.root().is_dir() { Some(pins.claim()?) } else { None };
    let mut removed = ringfence_netiso::uninstall(&pins.net()).await?;
    removed.extend(pins.list().iter().map(|path| format!("pin {}", path.display())));
    remove(pins.root())?;
    remove(&state.join("generation.json"))?;
    let mut left = ringfence_netiso::leftovers(&pins.net()).await?;
    left.extend(pins.list().iter().map(|path| format!("pin {}", path.display())));
    anyhow::ensure!(left.is_empty(), "still there:\n{}", left.join("\n"));
    Ok(removed)
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Path { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
