//! What the enforcer stands on gives way: ring buffers that nobody reads, a bpf file system that is unmounted.

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};
use ringfence_actor::now;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, cut_at, of};
use super::crash::{beacon, silent_since};
use crate::cases::Needs;

pub const PART: Part =
    Part::Table(&[("overload/ring-buffer-full", full), ("overload/bpf-file-system-unmounted", unmounted)]);

/// Violations, which have some hundred bytes each and share 4 MiB.
const VIOLATIONS: usize = 40_000;

/// Records that log violations, and that were lost.
fn lost(context: &mut Context) -> Result<u64> {
    Ok(context.enforcer()?.status()?.classes.iter().map(|class| class.lost_log + class.lost_mitigating).sum())
}

fn full(context: &mut Context) -> Result<()> {
    let isolated = beacon(context, Mitigation::Isolate)?;
    let terminated = beacon(context, Mitigation::Terminate)?;
    let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Log, ["actor", "sleep", "600000"]);
    let noisy = context.run(&spec)?;
    context.enforcer()?.container(noisy.id())?;
    let before = lost(context)?;

    let paused = context.enforcer()?.pause()?;
    let from = now();
    let flood = format!("i=0; while [ $i -lt {VIOLATIONS} ]; do : </etc/shadow; i=$((i+1)); done");
    let flooded = noisy.exec(["sh", "-c", &flood])?;
    ensure!(flooded.status == 0, "{flooded:?}");
    let to = now();
    isolated.exec(["cat", "/etc/shadow"])?;
    silent_since(context, &isolated, now()).context("isolated while nobody reads")?;
    let killed = terminated.exec(["cat", "/etc/shadow"])?;
    ensure!(killed.status == 137, "the violating process went on: {killed:?}");
    silent_since(context, &terminated, now()).context("to be terminated while nobody reads")?;
    drop(paused);

    for (container, what) in [(&isolated, "isolated"), (&terminated, "terminated")] {
        context.journal.wait_for(what, of(container, "RF-501")).context("a record that mitigates was lost")?;
    }
    ensure!(terminated.wait()? == 137, "the rest of the container lives on");
    noisy.exec(["cat", "/etc/shadow"])?;
    let own = of(&noisy, "RF-501");
    context.journal.wait_for("a violation after the flood", |event| own(event) && event.kernel_time_ns > to)?;
    let told = context.journal.all(|event| own(event) && (from..=to).contains(&event.kernel_time_ns)).len();
    let lost = usize::try_from(lost(context)? - before)?;
    ensure!(lost > 0, "the ring buffer held all of it");
    ensure!(told + lost == VIOLATIONS, "{told} of {VIOLATIONS} violations are told, and {lost} counted as lost");
    let said: u64 =
        context.journal.all(|event| event.kernel_time_ns >= from).iter().map(|event| event.lost_before).sum();
    ensure!(usize::try_from(said)? == lost, "{said} are told to be lost, and {lost} were");
    Ok(())
}

/// All programs are pinned there: while an enforcer runs it holds the file system, mounted or not. The next one mounts
/// another, and starts anew.
fn unmounted(context: &mut Context) -> Result<()> {
    let before = beacon(context, Mitigation::Isolate)?;
    let after = beacon(context, Mitigation::Isolate)?;
    before.exec(["cat", "/etc/shadow"])?;
    let first = context.journal.wait_for("the violation", of(&before, "RF-501"))?;
    // Without the flag it is refused (EBUSY), unless the enforcer has mounts of its own: it holds a file in there.
    umount2(&context.start.bpffs, MntFlags::MNT_DETACH).context("take the mount away")?;
    silent_since(context, &before, cut_at(&first)).context("isolated before")?;
    after.exec(["cat", "/etc/shadow"])?;
    silent_since(context, &after, now()).context("violated afterwards")?;
    context.journal.wait_for("a violation without the mount", of(&after, "RF-501"))?;

    context.stop_enforcer()?;
    let enforcer = context.enforcer().context("the next enforcer")?;
    enforcer.container(before.id())?;
    let again = now();
    before.exec(["cat", "/etc/shadow"])?;
    let own = of(&before, "RF-501");
    let second =
        context.journal.wait_for("a violation by the next", |event| own(event) && event.kernel_time_ns > again)?;
    silent_since(context, &before, cut_at(&second)).context("isolated by the next enforcer")
}
