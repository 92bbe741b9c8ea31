//! Real packets through the real programs: pods in network namespaces made here, on each datapath alone.
//!
//! Needs root, cgroup v2, `ip` and the built eBPF object, whose path `RINGFENCE_EBPF_OBJECT` names
//! (`cargo xtask test` sets it where it runs the tests that need root). Says what is missing and is skipped otherwise.
//!
//! Nothing asserts on time. That something does not arrive is shown by what is sent after the release and arrives
//! with nothing before it; where that is impossible (TCP sends again) by a bounded wait, which can only miss a
//! failure, never invent one.

mod actor;
mod bridge;
mod frame;
mod namespaces;
mod neighbours;
mod scenarios;
mod stage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("actor") {
        actor::run();
        return ExitCode::SUCCESS;
    }
    let object = match stage::requirements() {
        Ok(object) => object,
        Err(missing) => {
            println!("skipped datapath: {missing}");
            println!("0 passed, 0 failed, 1 skipped");
            return ExitCode::SUCCESS;
        }
    };
    let bpffs = stage::enter_own_namespaces();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let passed = runtime.block_on(scenarios::run(&object, bpffs.path(), first.as_deref().unwrap_or_default()));
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
