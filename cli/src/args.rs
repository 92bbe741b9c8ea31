//! The command line as a whole.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ringfence_control::DEFAULT_SOCKET;

use crate::{
    cluster::{self, Cluster, Connection},
    completion::Completion,
    convert::Convert,
    events::Events,
    explain::Explain,
    isolate::Isolate,
    lint::Lint,
    man::Man,
    release::Release,
    rules::Rules,
    status::Status,
    uninstall::Uninstall,
};

/// Runtime security for containers: look at rules and rulesets, and talk to this node's enforcer.
#[derive(Debug, Parser)]
#[command(
    name = "ringfence",
    version,
    after_help = "Exit status: 0 done; 1 failed; 2 wrong input, or the enforcer refused.\n\n\
                  Examples:\n  ringfence status\n  ringfence events --follow --severity high\n  ringfence rules show RF-901"
)]
pub struct Args {
    /// The enforcer's socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The same as a plug-in of kubectl: what is about a node is about the cluster there.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-ringfence",
    bin_name = "kubectl ringfence",
    version,
    about = "Runtime security for containers: look at rules and rulesets, and at what is in force in the cluster.",
    after_help = "Exit status: 0 done; 1 failed; 2 wrong input, or the API server refused.\n\n\
                  Examples:\n  kubectl ringfence status\n  kubectl ringfence isolated -A\n  \
                  kubectl ringfence release web-5c7 -n shop"
)]
pub struct PluginArgs {
    /// To which cluster, and as whom.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: PluginCommand,
}

/// What there is as a plug-in.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// What asks the API server.
    #[command(flatten)]
    Cluster(cluster::Command),
    /// What asks nobody.
    #[command(flatten)]
    Offline(Offline),
}

/// Commands that ask nobody. One module each.
#[derive(Debug, Subcommand)]
pub enum Offline {
    #[command(about = "List the managed rules, or show one")]
    Rules(Rules),
    #[command(about = "Check rulesets; every problem is printed as file:line:column: message")]
    Lint(Lint),
    #[command(about = "Convert overrides and rulesets of Trend Micro Container Security")]
    Convert(Convert),
}

/// One module each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What asks nobody.
    #[command(flatten)]
    Offline(Offline),
    #[command(about = "Say which rulesets govern a container, and why")]
    Explain(Explain),
    #[command(about = "Show how well this node is covered: tiers, rules, containers, datapaths, losses")]
    Status(Status),
    #[command(about = "Show violations")]
    Events(Events),
    #[command(about = "Cut a container off the network")]
    Isolate(Isolate),
    #[command(about = "Lift a container's isolation")]
    Release(Release),
    #[command(about = "Ask the cluster instead of this node; `kubectl ringfence` is the same")]
    Cluster(Cluster),
    #[command(about = "Remove everything that the enforcer left in the kernel and on this node")]
    Uninstall(Uninstall),
    #[command(about = "Print a completion script for a shell")]
    Completion(Completion),
    #[command(about = "Print the manual page, or write the pages of all commands")]
    Man(Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
        PluginArgs::command().debug_assert();
    }

    #[test]
    fn help_of_every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "`{}` has none", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
        check(&PluginArgs::command());
    }
}
