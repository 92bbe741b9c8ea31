//! `enforcer`: arguments and wiring.

use clap::Parser;
use ringfence_enforcer::{
    args::{Arguments, Command},
    kernel, standalone, uninstall,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("RINGFENCE_LOG").unwrap_or_else(|_| "info".into()))
        .with_target(false)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("enforcer: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.command.is_none() {
        kernel::mount_bpffs(&arguments.run.bpffs)?;
    }
    // Before there is a second thread: they would not share the mounts.
    kernel::private_mounts()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.command {
        None => runtime.block_on(standalone::run(arguments.run)),
        Some(Command::Uninstall { bpffs, state }) => {
            let removed = runtime.block_on(uninstall::uninstall(&bpffs, &state))?;
            for line in &removed {
                println!("removed {line}");
            }
            println!("nothing of Ringfence is left in the kernel ({} removed)", removed.len());
            Ok(())
        }
        Some(Command::Verify { filter }) => {
            let hierarchy = kernel::preflight()?;
            let mut refused = 0;
            kernel::verify(hierarchy.controller(), &filter, |verified| match verified.outcome {
                Ok((walked, bytes)) => {
                    println!("{:<22} {walked:>8} instructions walked {bytes:>7} bytes", verified.program);
                }
                Err(reason) => {
                    refused += 1;
                    println!("{:<22} refused: {reason}", verified.program);
                }
            })?;
            println!("{refused} refused");
            Ok(())
        }
    }
}
