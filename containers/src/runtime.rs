//! Either source behind one face.

use tokio::sync::mpsc;

use crate::{ContainerEvent, ContainerKey, Containerd, Cri, Error};

/// A container runtime of this host.
#[derive(Clone, Debug)]
pub enum Runtime {
    /// containerd by its own API.
    Containerd(Containerd),
    /// Any runtime by the Container Runtime Interface.
    Cri(Cri),
}

impl Runtime {
    /// Begins to tell what exists and what happens, until the receiver is dropped. Must be called within tokio.
    pub fn watch(&self) -> mpsc::Receiver<ContainerEvent> {
        match self {
            Self::Containerd(containerd) => containerd.watch(),
            Self::Cri(cri) => cri.watch(),
        }
    }

    /// Kills every process of the container and waits until it has ended. One that is gone is no error.
    pub async fn stop(&self, key: &ContainerKey) -> Result<(), Error> {
        match self {
            Self::Containerd(containerd) => containerd.stop(key).await,
            Self::Cri(cri) => cri.stop(key).await,
        }
    }
}
