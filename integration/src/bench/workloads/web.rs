//! A web server's requests. The client is not governed: what it pays is not the server's.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Workers, Workload};
use crate::bench::worker::Worker;

/// Requests of one sample.
const REQUESTS: u32 = 2_000;
/// A guard against waiting for ever for the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that was started, by the file that names its process. Dropped, it is ended.
pub(super) struct Server {
    what: &'static str,
    pid_file: PathBuf,
    port: u16,
}

/// Starts nginx, or busybox's server where there is none, in the worker's cgroup.
pub(super) fn start(directory: &Path, inside: &mut Worker) -> Result<Server> {
    let pages = directory.join("pages");
    fs::create_dir_all(&pages)?;
    fs::write(pages.join("index.html"), "x".repeat(4096))?;
    let port = free_port()?;
    let pid_file = directory.join("web.pid");
    let what = if is_installed("nginx") {
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, nginx(directory, &pid_file, &pages, port))?;
        inside.command(&["nginx", "-c", &configuration.to_string_lossy(), "-e", "/dev/null"])?;
        "nginx"
    } else {
        let (pages, pid_file) = (pages.to_string_lossy(), pid_file.to_string_lossy());
        // Its output would hold the worker's pipe open.
        let script = "busybox httpd -f -p 127.0.0.1:$0 -h $1 >/dev/null 2>&1 & echo $! >$2";
        inside.command(&["/bin/busybox", "sh", "-c", script, &port.to_string(), &pages, &pid_file])?;
        "busybox httpd, a process per request"
    };
    let server = Server { what, pid_file, port };
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(Instant::now() < until, "{what} does not listen on port {port}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// Whether a program is found by its name.
pub(super) fn is_installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// As it is set up in earnest: a master and two workers, an access log.
fn nginx(directory: &Path, pid_file: &Path, pages: &Path, port: u16) -> String {
    format!(
        "user root;\nworker_processes 2;\npid {pid};\nevents {{}}\nhttp {{\n  access_log {log};\n  server {{\n    \
         listen 127.0.0.1:{port};\n    root {pages};\n  }}\n}}\n",
        pid = pid_file.display(),
        log = directory.join("access.log").display(),
        pages = pages.display(),
    )
}

impl Workload for Server {
    fn title(&self) -> String {
        format!("web server requests ({})", self.what)
    }

    fn sample(&self, workers: &mut Workers) -> Result<f64> {
        Ok(workers.outside.requests(self.port, REQUESTS)? * f64::from(REQUESTS))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = || {
            let pid: i32 = fs::read_to_string(&self.pid_file)?.trim().parse().context("a process id")?;
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            let until = Instant::now() + PATIENCE;
            // Whoever inherits it may not have asked yet how it ended.
            while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                ensure!(Instant::now() < until, "it does not end");
                thread::sleep(Duration::from_millis(10));
            }
            anyhow::Ok(())
        };
        if let Err(error) = ended() {
            eprintln!("{}: {error:#}", self.what);
        }
    }
}
