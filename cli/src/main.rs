//! `ringfence`: arguments and wiring.

mod args;
mod completion;
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

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;
use failure::Failure;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Args { socket, command } = Args::parse();
    let result = match command {
        Command::Rules(rules) => rules.run(),
        Command::Lint(lint) => lint.run(),
        Command::Explain(explain) => explain.run(&socket).await,
        Command::Status(status) => status.run(&socket).await,
        Command::Events(events) => events.run(&socket).await,
        Command::Isolate(isolate) => isolate.run(&socket).await,
        Command::Release(release) => release.run(&socket).await,
        Command::Uninstall(uninstall) => uninstall.run(),
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    };
    result.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
