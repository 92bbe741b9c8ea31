//! Real packets through the real programs: pods in network namespaces made here, on each datapath alone.
//!
//! Needs root, cgroup v2, `ip` and the built eBPF object, whose path `RINGFENCE_EBPF_OBJECT` names
//! (`cargo xtask test` sets it). Says what is missing and passes otherwise.
//!
//! Nothing asserts on time. That something does not arrive is shown by what is sent after the release and arrives
//! with nothing before it; where that is impossible (TCP sends again) by a bounded wait, which can only miss a
//! failure, never invent one.

mod actor;
mod bridge;
mod frame;
mod scenarios;
mod stage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("actor") {
        actor::run();
        return ExitCode::SUCCESS;
    }
    let object = match stage::requirements() {
        Ok(object) => object,
        Err(missing) => {
            println!("datapath: skipped: {missing}");
            return ExitCode::SUCCESS;
        }
    };
    let bpffs = stage::enter_own_namespaces();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let failed = runtime.block_on(scenarios::run(&object, bpffs.path()));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
