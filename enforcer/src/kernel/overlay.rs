//! The trial of overlayfs: a file of a lower and one of an upper layer must look different to the programs.

use super::stage::{self, PLACE};
use aya::{
    Ebpf,
    maps::Array,
    programs::{Program, ProgramError, TracePoint},
};
use nix::{
    fcntl::{AT_FDCWD, OFlag, openat},
    mount::{MsFlags, mount},
    sys::stat::Mode,
    unistd::gettid,
};
use ringfence_abi::flag;
use std::{fs, io, path::Path};

/// The program that looks.
pub const TRIAL: &str = "trial_open";

/// Runs the trial on a throw-away instance of the object, in which [`TRIAL`] is loaded. False: drift can't be seen on
/// this node.
pub fn told_apart(mut trial: Ebpf) -> bool {
    let answers = std::thread::scope(|scope| {
        let thread = scope.spawn(|| answers(&mut trial).map_err(|error| error.to_string()));
        thread.join().unwrap_or_else(|_| Err("the trial panicked".to_owned()))
    });
    match answers {
        Ok(flags) => {
            let [lower, fresh, touched] = flags.map(|f| f & (flag::UPPER | flag::FROM_IMAGE | flag::DRIFTED));
            let expected = [flag::FROM_IMAGE, flag::UPPER | flag::DRIFTED, flag::UPPER | flag::FROM_IMAGE];
            let right = [lower, fresh, touched] == expected;
            if !right {
                tracing::warn!(?lower, ?fresh, ?touched, "overlayfs's layers can't be told apart: drift is blind");
            }
            right
        }
        Err(error) => {
            tracing::warn!(%error, "overlayfs could not be tried: drift is blind");
            false
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Errno(#[from] nix::Error),
    #[error(transparent)]
    Program(Box<ProgramError>),
    #[error(transparent)]
    Map(#[from] aya::maps::MapError),
}

fn attach(program: &mut Program) -> Result<(), ProgramError> {
    let program: &mut TracePoint = program.try_into()?;
    program.attach("syscalls", "sys_exit_openat").map(drop)
}

/// Flags of a file of the lower layer, of a new one, and of one of the lower layer whose mode was changed.
fn answers(trial: &mut Ebpf) -> Result<[u32; 3], TrialError> {
    stage::enter("tmpfs")?;
    for dir in ["lower", "upper", "work", "merged"] {
        fs::create_dir(Path::new(PLACE).join(dir))?;
    }
    for file in ["image", "touched"] {
        fs::write(Path::new("/dev/lower").join(file), "")?;
    }
    let layers = "lowerdir=/dev/lower,upperdir=/dev/upper,workdir=/dev/work";
    mount(Some("overlay"), "/dev/merged", Some("overlay"), MsFlags::empty(), Some(layers))?;
    fs::write("/dev/merged/fresh", "")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions("/dev/merged/touched", mode)?;

    let program = trial.program_mut(TRIAL).expect("a program of the object");
    attach(program).map_err(|error| TrialError::Program(Box::new(error)))?;
    let mut results = Array::<_, u32>::try_from(trial.map_mut("TRIAL").expect("a map of the object"))?;
    let thread = u32::try_from(gettid().as_raw()).map_err(io::Error::other)?;
    results.set(0, thread, 0)?;
    let mut flags = [0; 3];
    for (flags, file) in flags.iter_mut().zip(["image", "fresh", "touched"]) {
        // Not by File::open: musl's does not call openat(2), at whose exit the trial looks.
        openat(AT_FDCWD, &Path::new("/dev/merged").join(file), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        *flags = results.get(&1, 0)?;
    }
    Ok(flags)
}
