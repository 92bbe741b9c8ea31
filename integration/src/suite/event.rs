//! What a violation says besides its rule: who did it, as whose child, to what.

use anyhow::{Result, ensure};
use ringfence_control::Escaped;
use ringfence_policy::Mitigation;

use super::Part;
use super::context::{Context, of};
use crate::cases::Needs;

pub const PART: Part = Part::Table(&[("event/process-and-parents", process_and_parents)]);

fn process_and_parents(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    // Both shells stay: their arguments are read a moment later.
    let inner = "cat /etc/shadow; actor sleep 600000; true";
    let outer = format!("sh -c '{inner}'; true");
    let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Log, ["sh", "-c", &outer]);
    let container = context.run(&spec)?;
    let matches = of(&container, "RF-501");
    let event = context.journal.wait_for("the violation", |event| matches(event))?;
    let words = |words: &[Escaped]| words.iter().map(|word| word.as_str().to_owned()).collect::<Vec<_>>();

    ensure!(event.operation == "open", "operation {}", event.operation);
    ensure!(event.object_file_path.as_ref().is_some_and(|path| path == "/etc/shadow"), "{:?}", event.object_file_path);
    let process = &event.process;
    ensure!(&process.name == "cat", "name {}", process.name);
    ensure!(words(&process.cmd) == ["cat", "/etc/shadow"], "arguments {:?}", process.cmd);
    ensure!(process.exe.as_ref().is_some_and(|exe| exe == "/bin/busybox"), "executable {:?}", process.exe);
    ensure!(process.user.uid == 0 && process.user.gid == 0, "user {:?}", process.user);
    ensure!(
        process.user.name.as_ref().is_some_and(|name| name == "root"),
        "the user's name is {:?}",
        process.user.name
    );

    let parents: Vec<_> = event.parents.iter().map(|parent| words(&parent.cmd)).collect();
    let shells = [["sh", "-c", inner], ["sh", "-c", &outer]];
    ensure!(parents == shells, "parents {parents:?}");
    ensure!(
        event.parents.iter().all(|parent| parent.exe.is_some()),
        "parents without executables: {:?}",
        event.parents
    );
    Ok(())
}
