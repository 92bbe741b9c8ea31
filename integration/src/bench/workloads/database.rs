//! A database server's transactions: `PostgreSQL` and its own benchmark.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Found, Workers, Workload};
use crate::bench::worker::Worker;

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The server refuses to run as root: nobody.
const USER: u32 = 65_534;
/// Transactions of one sample, by each of two clients.
const TRANSACTIONS: &str = "1000";

/// A server that was started. Dropped, it is ended.
struct Database {
    programs: PathBuf,
    /// Its data, and its socket.
    directory: PathBuf,
}

/// Starts a server in the worker's cgroup.
pub(super) fn find(directory: &Path, inside: &mut Worker) -> Result<Found> {
    let Some(programs) = programs() else {
        return Ok(Found::Missing("database transactions", "PostgreSQL"));
    };
    let directory = directory.join("database");
    fs::create_dir(&directory)?;
    chown(&directory, Some(USER), Some(USER))?;
    let database = Database { programs, directory };
    let data = database.data();
    inside.command(&database.command("initdb", &["-D", &data, "--no-sync"]))?;
    let socket = database.directory.to_string_lossy();
    // Without waiting for the disk, the rest weighs more.
    let options = format!("-c listen_addresses= -c unix_socket_directories={socket} -c fsync=off");
    let log = format!("{socket}/log");
    inside.command(&database.command("pg_ctl", &["-D", &data, "-w", "-l", &log, "-o", &options, "start"]))?;
    inside.command(&database.command("pgbench", &["-h", &socket, "-q", "-i", "-s", "5", "postgres"]))?;
    Ok(Found::Here(Box::new(database)))
}

/// The folder with the newest version's programs.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(VERSIONS).ok()?.flatten().map(|entry| entry.path().join("bin")).collect();
    found.retain(|folder| folder.join("initdb").is_file() && folder.join("pgbench").is_file());
    found.sort();
    found.pop()
}

impl Database {
    fn data(&self) -> String {
        self.directory.join("data").to_string_lossy().into_owned()
    }

    /// One of its programs, as its user.
    fn command(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let user = USER.to_string();
        let mut command: Vec<_> =
            ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"].map(str::to_owned).into();
        command.push(self.programs.join(program).to_string_lossy().into_owned());
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        command
    }
}

impl Workload for Database {
    fn title(&self) -> String {
        "database transactions (PostgreSQL, pgbench)".to_owned()
    }

    fn sample(&self, workers: &mut Workers) -> Result<f64> {
        let socket = self.directory.to_string_lossy();
        let arguments = ["-h", &socket, "-n", "-c", "2", "-t", TRANSACTIONS, "postgres"];
        workers.inside.command(&self.command("pgbench", &arguments))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let command = self.command("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "stop"]);
        let ended = || {
            let output = Command::new(&command[0]).args(&command[1..]).output().context("pg_ctl")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            anyhow::Ok(())
        };
        if let Err(error) = ended() {
            eprintln!("the database server: {error:#}");
        }
    }
}
