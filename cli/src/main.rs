//! `ringfence`: arguments and wiring.

mod args;
mod cluster;
mod completion;
mod convert;
mod events;
mod explain;
mod failure;
mod isolate;
mod lint;
mod man;
mod output;
mod release;
mod rules;
mod status;
mod uninstall;

use std::{env, ffi::OsStr, path::Path, process::ExitCode};

use args::{Args, Command, Offline, PluginArgs, PluginCommand};
use clap::Parser;
use failure::{Failure, Outcome};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = if is_plugin(env::args_os().next().as_deref()) {
        let PluginArgs { connection, command } = PluginArgs::parse();
        match command {
            PluginCommand::Cluster(command) => command.run(&connection).await,
            PluginCommand::Offline(command) => offline(command),
        }
    } else {
        let Args { socket, command } = Args::parse();
        match command {
            Command::Offline(command) => offline(command),
            Command::Explain(explain) => explain.run(&socket).await,
            Command::Status(status) => status.run(&socket).await,
            Command::Events(events) => events.run(&socket).await,
            Command::Isolate(isolate) => isolate.run(&socket).await,
            Command::Release(release) => release.run(&socket).await,
            Command::Cluster(cluster) => cluster.run().await,
            Command::Uninstall(uninstall) => uninstall.run(),
            Command::Completion(completion) => completion.run(),
            Command::Man(man) => man.run(),
        }
    };
    result.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

fn offline(command: Offline) -> Outcome {
    match command {
        Offline::Rules(rules) => rules.run(),
        Offline::Lint(lint) => lint.run(),
        Offline::Convert(convert) => convert.run(),
    }
}

/// kubectl runs a program by this name for `kubectl ringfence`.
fn is_plugin(program: Option<&OsStr>) -> bool {
    program.and_then(|program| Path::new(program).file_stem()).is_some_and(|name| name == "kubectl-ringfence")
}
