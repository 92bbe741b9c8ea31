//! One VM: booted, its console read line by line, ended in any case.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ringfence_image::Architecture;

use super::{
    initramfs::{BEGIN, Contents, END, Purpose},
    kernels::{Kernel, Unpacked},
};
use crate::{interrupt, process};

/// Lines of the console that an error shows.
const TAIL: usize = 40;

/// When a VM counts as hung.
#[derive(Clone, Copy)]
pub struct Patience {
    /// It is not done after so long.
    pub whole: Duration,
    /// It has said nothing for so long.
    pub silence: Duration,
}

impl From<Duration> for Patience {
    fn from(whole: Duration) -> Self {
        Self { whole, silence: whole }
    }
}

/// A VM that can be booted.
pub struct Machine<'a> {
    kernel: Unpacked,
    contents: &'a Contents<'a>,
    memory: u32,
}

impl<'a> Machine<'a> {
    /// Gets the kernel; `memory` is in MiB.
    pub fn new(kernel: Kernel, architecture: Architecture, contents: &'a Contents<'a>, memory: u32) -> Result<Self> {
        Ok(Self { kernel: Unpacked::fetch(kernel, architecture)?, contents, memory })
    }

    /// Runs a shell command, hands over each line of the console, and returns the command's exit code.
    ///
    /// A VM that crashes, falls silent or is not done in time is an error with the end of its console. One that does not come
    /// as far as the command is booted once more: where its kernel changes its own code, the emulator may run half of the
    /// change (`Oops: int3`).
    pub fn run(&self, command: &str, patience: impl Into<Patience>, mut each: impl FnMut(&str)) -> Result<i32> {
        let (patience, mut begun) = (patience.into(), false);
        let outcome = self.boot(command, patience, &mut begun, &mut each);
        match outcome {
            Err(error) if !begun && interrupt::check().is_ok() => {
                println!("==> booted once more: {error:#}");
                self.boot(command, patience, &mut begun, &mut each)
            }
            outcome => outcome,
        }
    }

    fn boot(&self, command: &str, patience: Patience, begun: &mut bool, each: &mut impl FnMut(&str)) -> Result<i32> {
        let folder = tempfile::Builder::new().prefix("ringfence-vm-").tempdir()?;
        let image = folder.path().join("initramfs");
        self.contents.pack(&self.kernel, Purpose::Command(command), &image)?;
        let mut qemu = process::behind(&self.qemu(&image)?);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Running(qemu.spawn().context("cannot start qemu")?);
        let guard = interrupt::child(child.0.id());
        let console = read_lines(child.0.stdout.take().context("standard output is piped")?);
        let (deadline, mut tail) = (Instant::now() + patience.whole, VecDeque::new());
        let outcome = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match console.recv_timeout(left.min(patience.silence)) {
                Ok(line) if line == BEGIN => *begun = true,
                Ok(line) => {
                    if let Some(exit) = line.strip_prefix(END) {
                        break exit.trim().parse().with_context(|| format!("{line:?} has no exit code"));
                    }
                    each(&line);
                    tail.push_back(line);
                    if tail.len() > TAIL {
                        tail.pop_front();
                    }
                }
                Err(RecvTimeoutError::Timeout) if left > patience.silence => {
                    break Err(with_tail(&format!("the VM said nothing for {} s", patience.silence.as_secs()), &tail));
                }
                Err(RecvTimeoutError::Timeout) => {
                    break Err(with_tail(&format!("the VM was not done in {} s", patience.whole.as_secs()), &tail));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(with_tail("the VM ended before the command did", &tail));
                }
            }
        };
        drop(guard);
        drop(child);
        interrupt::check()?;
        outcome
    }

    /// A shell on the console, until it ends.
    pub fn shell(&self) -> Result<ExitCode> {
        let folder = tempfile::Builder::new().prefix("ringfence-vm-").tempdir()?;
        let image = folder.path().join("initramfs");
        self.contents.pack(&self.kernel, Purpose::Shell, &image)?;
        process::succeed(&mut self.qemu(&image)?)?;
        Ok(ExitCode::SUCCESS)
    }

    fn qemu(&self, initramfs: &std::path::Path) -> Result<Command> {
        // A busy host emulates a PC's timer too late for the kernel's check of it, which then panics
        // (arch/x86/kernel/apic/io_apic.c, check_timer).
        let (program, machine, console) = match self.kernel.architecture() {
            // Without a fast `rep movsb`: it is done byte by byte, and kernels that see the flag copy and clear everything by
            // it. A fourth less time.
            Architecture::Amd64 => ("qemu-system-x86_64", &["-cpu", "max,-erms"][..], "console=ttyS0 no_timer_check"),
            // Without what signs pointers and tags memory: kernels sign at every call, and it is dear to emulate.
            Architecture::Arm64 => {
                ("qemu-system-aarch64", &["-M", "virt", "-cpu", "neoverse-n1"][..], "console=ttyAMA0")
            }
        };
        let mut qemu = Command::new(program);
        // Emulated: stock kernels do not boot under the nested KVM of some test machines, and CI often has none.
        // With one processor, for as many VMs as there are processors run side by side.
        qemu.args(machine).args(["-accel", "tcg", "-smp", "1"]);
        qemu.args([
            "-m",
            &self.memory.to_string(),
            "-no-reboot",
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
        ]);
        qemu.arg("-kernel").arg(self.kernel.image()?).arg("-initrd").arg(initramfs);
        // 5.10 has BPF in the list of security modules only if it is named.
        qemu.args(["-append", &format!("{console} quiet panic=-1 lsm=lockdown,capability,landlock,bpf")]);
        Ok(qemu)
    }
}

fn with_tail(what: &str, tail: &VecDeque<String>) -> anyhow::Error {
    let tail: String = tail.iter().flat_map(|line| ["\n    | ", line]).collect();
    anyhow::anyhow!("{what}; the end of its console:{tail}")
}

/// Reads lines in a thread of its own, so that the reader can stop waiting for one.
fn read_lines(console: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut reader, mut bytes) = (BufReader::new(console), Vec::new());
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(line).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    receiver
}

/// A process that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
