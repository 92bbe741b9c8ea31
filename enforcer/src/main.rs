//! `enforcer`: arguments and wiring.

use clap::Parser;
use ringfence_enforcer::{
    args::{Arguments, Command},
    kernel::{self, Outcome, Statistics, TypesFile},
    mode,
    plan::{self, Plan},
    uninstall,
};
use std::{
    io::{IsTerminal, stderr},
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("RINGFENCE_LOG").unwrap_or_else(|_| "info".into()))
        .with_target(false)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("enforcer: {}", ringfence_control::sentence(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let plan = match &arguments.command {
        None => {
            // Whatever is wrong with the command line is said before anything is touched.
            let plan = Plan::new(arguments.run)?;
            kernel::mount_bpffs(&plan.args.bpffs)?;
            Some(plan)
        }
        Some(Command::Mount { bpffs }) => {
            plan::check_bpffs(bpffs)?;
            kernel::mount_bpffs(bpffs)?;
            return Ok(());
        }
        Some(_) => None,
    };
    // Before there is a second thread: it would not share them.
    kernel::node_cgroups()?;
    kernel::private_mounts()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match (arguments.command, plan) {
        (None, plan) => plan.map_or(Ok(()), |plan| runtime.block_on(mode::run(plan))),
        (Some(Command::Uninstall { bpffs, state, isolated }), _) => {
            let removed = runtime.block_on(uninstall::uninstall(&bpffs, &state, isolated))?;
            for line in &removed.lines {
                println!("removed {line}");
            }
            println!("{}", removed.summary());
            Ok(())
        }
        // Done above: it must not be alone with the mount.
        (Some(Command::Mount { .. }), _) => Ok(()),
        (Some(Command::Verify { json, btf, filter }), _) => verify(json, btf.as_deref(), &filter),
    }
}

fn verify(json: bool, btf: Option<&Path>, filter: &str) -> anyhow::Result<()> {
    let hierarchy = kernel::preflight()?;
    let types = TypesFile::new(btf)?;
    let (mut reported, mut refused) = (0_u32, 0_u32);
    kernel::verify(&types, hierarchy.controller(), filter, |verified| {
        reported += 1;
        refused += u32::from(matches!(verified.outcome, Outcome::Refused(_)));
        if json {
            println!("{}", serde_json::json!(verified));
            return;
        }
        let program = &verified.program;
        match verified.outcome {
            Outcome::Accepted(Statistics { instructions, total_states, peak_states, stack }) => println!(
                "{program:<22} {instructions:>8} instructions {total_states:>6} states, {peak_states:>6} at most \
                 {stack:>4} bytes of stack"
            ),
            Outcome::NoHook(reason) => println!("{program:<22} no hook: {reason}"),
            Outcome::Refused(reason) => println!("{program:<22} refused: {reason}"),
        }
    })?;
    anyhow::ensure!(
        reported > 0,
        "no program has \"{}\" in its name; without FILTER `enforcer verify` shows all",
        filter.escape_debug()
    );
    anyhow::ensure!(refused == 0, "{refused} programs are refused by this kernel's verifier");
    Ok(())
}
