//! Wrong inputs: one clear error that names the thing, and exit code 2.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ringfence_policy::Mitigation;

use super::Part;
use super::context::Context;
use super::report::Report;
use crate::cases::Needs;
use crate::enforcer::{Enforcer, Start, finish};
use crate::wait;

pub const PART: Part = Part::Made { names, run };

/// Exit code of a usage or configuration error.
const WRONG: i32 = 2;

const TESTS: Part = Part::Table(&[
    ("usage/unknown-option", unknown_option),
    ("usage/no-rulesets-option", no_rulesets),
    ("usage/verify-no-such-program", verify_nothing),
    ("usage/missing-folder", missing_folder),
    ("usage/unreadable-rulesets", unreadable),
    ("usage/broken-ruleset", broken_ruleset),
    ("usage/no-containerd", no_containerd),
    ("usage/not-a-socket", not_a_socket),
    ("usage/no-root", no_root),
    ("usage/each-capability", each_capability),
    ("usage/no-types", no_types),
    ("usage/types-from-a-file", types_from_file),
    ("usage/not-in-force", not_in_force),
    ("usage/second-enforcer", second),
    ("usage/second-over-the-same-pins", second_over_pins),
    ("usage/uninstall-beside-an-enforcer", uninstall_beside),
    ("usage/socket-too-long", socket_too_long),
    ("usage/ringfence-without-enforcer", without_enforcer),
    ("usage/ringfence-unknown-rule", unknown_rule),
    ("usage/ringfence-lint", lint),
]);

/// What a folder of rulesets may hold instead of rulesets, and what the error names.
const FOLDERS: [(&str, Lay, &[&str]); 9] = [
    ("empty-folder", |_| Ok(()), &["no ruleset", "*.yaml"]),
    ("empty-file", |file| Ok(fs::write(file, "")?), &["no ruleset"]),
    ("folder-as-file", |file| Ok(fs::create_dir(file)?), &["rules.yaml", "folder"]),
    ("dangling-link", |file| Ok(symlink("nothing", file)?), &["rules.yaml", "symbolic link"]),
    ("binary", |file| Ok(fs::write(file, [0x7f, b'E', b'L', b'F', 0xff, 0xfe, 0])?), &["rules.yaml", "UTF-8"]),
    ("zeros", |file| Ok(fs::write(file, [0; 4096])?), &["rules.yaml:1:1:", "not YAML"]),
    (
        "10-mib",
        |file| Ok(fs::write(file, format!("a: [{}]\n", "x, ".repeat(3_500_000)))?),
        &["rules.yaml:1:", "divide"],
    ),
    ("17-mib", |file| Ok(fs::File::create(file)?.set_len(17 << 20)?), &["rules.yaml", "longer than 16777216 bytes"]),
    ("same-name-twice", same_name, &["rules.yaml:3:", "other.yaml:3:", "'twice'"]),
];

/// Writes something at the path of a file of rulesets.
type Lay = fn(&Path) -> Result<()>;

/// Options that cannot be followed, and what the error names besides them.
const OPTIONS: [(&str, &[&str], &[&str]); 21] = [
    ("tier", &["--tier", "kernel"], &["kernel", "lsm", "fentry", "kprobe", "tracepoint"]),
    ("btf-missing", &["--btf", "/no/such/vmlinux"], &["/no/such/vmlinux", "No such file"]),
    (
        "btf-of-something-else",
        &["--btf", "/etc/passwd"],
        &["/etc/passwd", "/sys/kernel/btf/vmlinux", "leave --btf away"],
    ),
    ("datapath", &["--datapath", "veth"], &["veth", "cgroup", "tcx", "clsact"]),
    ("cgroup-relative", &["--cgroup", "app"], &["begin with '/'"]),
    ("cgroup-root", &["--cgroup", "/"], &["below the root"]),
    ("cgroup-above", &["--cgroup", "/app/../other"], &["'..'"]),
    ("cgroup-label", &["--cgroup", "/app:tier"], &["'tier'", "KEY=VALUE"]),
    ("cgroup-label-twice", &["--cgroup", "/app:a=1,a=2"], &["label a", "'1'", "'2'"]),
    ("cgroup-root-missing", &["--cgroup-root", "/no/such/cgroup"], &["/no/such/cgroup", "No such file", "cgroup v2"]),
    ("cgroup-root-elsewhere", &["--cgroup-root", "/tmp"], &["/tmp", "cgroup v2"]),
    ("exception-name", &["--exception", "collector"], &["collector", "10.0.0.0/8"]),
    ("exception-bits", &["--exception", "10.0.0.0/33"], &["10.0.0.0/33", "address range"]),
    ("exception-port", &["--exception", "192.0.2.7:80"], &["192.0.2.7:80", "address range"]),
    ("socket-below-a-file", &["--socket", "/etc/passwd/x.sock"], &["/etc/passwd/x.sock", "folder can't be made"]),
    ("socket-is-a-folder", &["--socket", "/etc"], &["/etc", "not a socket"]),
    ("bpffs-is-a-file", &["--bpffs", "/etc/passwd"], &["/etc/passwd", "not a folder", "/sys/fs/bpf"]),
    ("bpffs-hides-files", &["--bpffs", "/etc"], &["/etc", "not empty", "/sys/fs/bpf"]),
    ("bpffs-in-proc", &["--bpffs", "/proc/bpf"], &["/proc/bpf", "can't be made", "/sys/fs/bpf"]),
    ("state-is-a-file", &["--state", "/etc/passwd"], &["/etc/passwd"]),
    ("log-file-is-a-folder", &["--log-file", "/etc"], &["/etc", "Is a directory"]),
];

fn names() -> Vec<String> {
    let folders = FOLDERS.iter().map(|(name, ..)| format!("usage/rulesets-{name}"));
    let options = OPTIONS.iter().map(|(name, ..)| format!("usage/option-{name}"));
    TESTS.names().into_iter().chain(folders).chain(options).collect()
}

fn run(context: &mut Context, report: &mut Report) {
    TESTS.run(context, report);
    for (name, lay, said) in FOLDERS {
        report.check(&format!("usage/rulesets-{name}"), || folder(context, name, lay, said));
    }
    for (name, options, said) in OPTIONS {
        report.check(&format!("usage/option-{name}"), || {
            alone(context)?;
            let said: Vec<_> = options[..1].iter().chain(said).copied().collect();
            refused(&mut with_options(context, options), &said)
        });
    }
}

/// The command is refused with code 2, briefly, and its error holds all of `names`.
pub fn refused(command: &mut Command, names: &[&str]) -> Result<()> {
    let output = finish(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(WRONG), "it ended with {} and said: {said}", output.status);
    for name in names {
        ensure!(said.contains(name), "the error does not name {name}: {said}");
    }
    let errors = said.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(errors <= 5, "{errors} lines of error: {said}");
    ensure!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "it panicked: {said}");
    ensure!(
        output.stdout.is_empty(),
        "an error belongs on the error output: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// No enforcer runs: the ones of these tests are alone.
pub fn alone(context: &mut Context) -> Result<()> {
    context.stop_enforcer()
}

fn with_rulesets(context: &Context, rulesets: &Path) -> Command {
    Start { rulesets: rulesets.into(), ..context.start.clone() }.command(&context.node)
}

fn unknown_option(context: &mut Context) -> Result<()> {
    refused(context.start.command(&context.node).arg("--rulests"), &["--rulests"])
}

fn no_rulesets(context: &mut Context) -> Result<()> {
    refused(context.start.program(&context.node).arg("--standalone"), &["--rulesets"])
}

/// What the kernel lacks is no error of this.
fn verify_nothing(context: &mut Context) -> Result<()> {
    let mut command = context.start.program(&context.node);
    refused(command.args(["verify", "no-such-program"]).env("RINGFENCE_LOG", "error"), &["no-such-program", "FILTER"])
}

fn missing_folder(context: &mut Context) -> Result<()> {
    alone(context)?;
    let folder = context.node.directory().join("no-such-folder");
    refused(&mut with_rulesets(context, &folder), &["no-such-folder"])
}

/// A socket is neither a file of rulesets nor a folder of them.
fn unreadable(context: &mut Context) -> Result<()> {
    alone(context)?;
    refused(&mut with_rulesets(context, context.node.socket()), &["containerd.sock"])
}

fn broken_ruleset(context: &mut Context) -> Result<()> {
    alone(context)?;
    let folder = context.node.directory().join("broken");
    fs::create_dir_all(&folder)?;
    let text = "apiVersion: ringfence.dev/v1alpha1\nkind: RuntimeRuleset\nmetadata: {name: broken}\nspec:\n  rules:\n  - {rule: RF-109, mitigation: log}\n";
    fs::write(folder.join("broken.yaml"), text)?;
    refused(&mut with_rulesets(context, &folder), &["broken.yaml:6:", "RF-109", "RF-10"])
}

fn no_containerd(context: &mut Context) -> Result<()> {
    alone(context)?;
    let mut command = context.start.program(&context.node);
    context.start.standalone(&mut command);
    refused(command.args(["--containerd", "/run/no-such.sock"]), &["/run/no-such.sock"])
}

fn not_a_socket(context: &mut Context) -> Result<()> {
    alone(context)?;
    let file = context.node.directory().join("file.sock");
    fs::write(&file, "")?;
    let mut command = context.start.program(&context.node);
    context.start.standalone(&mut command);
    refused(command.arg("--containerd").arg(&file), &["file.sock"])
}

fn no_root(context: &mut Context) -> Result<()> {
    alone(context)?;
    // Root in name alone: whoever is not root may not even enter the node's network namespace.
    refused(&mut without(context, "all"), &["CAP_SYS_ADMIN", "root"])
}

/// The enforcer, in this network namespace, without a capability.
fn without(context: &Context, capability: &str) -> Command {
    through(context, "setpriv", &[&format!("--bounding-set=-{capability}"), &format!("--inh-caps=-{capability}"), "--"])
}

/// The enforcer, in this network namespace, started by another program.
pub fn through(context: &Context, program: &str, arguments: &[&str]) -> Command {
    let start = context.start.command(&context.node);
    let enforcer = start.get_args().skip_while(|argument| *argument != "--").skip(1);
    let mut command = Command::new(program);
    command.args(arguments).args(enforcer);
    command
}

fn each_capability(context: &mut Context) -> Result<()> {
    alone(context)?;
    for capability in ["sys_admin", "net_admin", "bpf", "perfmon"] {
        refused(&mut without(context, capability), &[&format!("CAP_{}", capability.to_uppercase())])?;
    }
    Ok(())
}

/// A kernel without its types (`CONFIG_DEBUG_INFO_BTF=n`) lacks the folder.
fn no_types(context: &mut Context) -> Result<()> {
    alone(context)?;
    refused(&mut without_types(context), &["BTF", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF", "--btf"])
}

/// The enforcer, where the kernel's types are hidden from it.
fn without_types(context: &Context) -> Command {
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    through(context, "unshare", &["--mount", "sh", "-c", script, "sh"])
}

/// The kernel's types stand in a file alone; then that holds something else.
fn types_from_file(context: &mut Context) -> Result<()> {
    context.restart_with(&[])?;
    // Nothing that was loaded before is to be taken over.
    context.stop_enforcer()?;
    context.start.uninstall(&context.node)?;
    let file = context.node.directory().join("types");
    fs::copy("/sys/kernel/btf/vmlinux", &file)?;
    let mut command = without_types(context);
    command.arg("--btf").arg(&file);
    let enforcer = Enforcer::launch(command, &context.start.control, &context.journal)?;
    let spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Isolate, ["actor", "sleep", "600000"]);
    let container = context.node.run(&spec)?;
    container.exec(["cat", "/etc/shadow"])?;
    wait::until("it is isolated", || Ok(enforcer.container(container.id())?.isolated.is_some()))?;
    enforcer.stop()?;
    fs::write(&file, "no types")?;
    let mut command = without_types(context);
    command.arg("--btf").arg(&file);
    refused(&mut command, &["--btf", "can't be read", &file.display().to_string()])
}

/// What can't put its rulesets in force does not live on as if it governed anything.
fn not_in_force(context: &mut Context) -> Result<()> {
    alone(context)?;
    let folder = context.node.directory().join("state-in-the-way");
    // The name of a file that is written before they come into force.
    fs::create_dir_all(folder.join("generation.json"))?;
    let state = folder.display().to_string();
    let output = finish(&mut with_options(context, &["--state", &state]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(WRONG), "it ended with {} and said: {said}", output.status);
    // Before it, it has said which tier this kernel has.
    let error = said.lines().last().unwrap_or_default();
    for word in ["can't be put in force", &state, "Is a directory"] {
        ensure!(error.contains(word), "the error does not name {word}: {error}");
    }
    Ok(())
}

fn second(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    refused(&mut context.start.command(&context.node), &["already"])?;
    context.enforcer()?.status()?;
    Ok(())
}

fn second_over_pins(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    let other = Start {
        control: context.start.control.with_extension("other"),
        state: context.start.state.with_extension("other"),
        ..context.start.clone()
    };
    let pins = context.start.bpffs.display().to_string();
    refused(&mut other.command(&context.node), &["already at work", &pins])?;
    context.enforcer()?.status()?;
    Ok(())
}

fn uninstall_beside(context: &mut Context) -> Result<()> {
    context.enforcer()?;
    let output = context.start.uninstall(&context.node)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(WRONG), "it ended with {} and said: {said}", output.status);
    ensure!(said.contains("stop it first"), "{said}");
    context.enforcer()?.status()?;
    Ok(())
}

fn socket_too_long(context: &mut Context) -> Result<()> {
    alone(context)?;
    let socket = format!("/run/{}.sock", "x".repeat(120));
    refused(&mut with_options(context, &["--socket", &socket]), &["--socket", &socket, "107 bytes"])
}

/// The usual options, but for those that are given; a cgroup takes the place of the container runtime.
fn with_options(context: &Context, options: &[&str]) -> Command {
    let usual = context.start.command(&context.node);
    let mut command = Command::new(usual.get_program());
    let mut arguments = usual.get_args().map(ToOwned::to_owned).peekable();
    while let Some(argument) = arguments.next() {
        let replaced = argument == options[0]
            || options[0] == "--cgroup" && (argument == "--containerd" || argument == "--containerd-namespace");
        if replaced {
            arguments.next();
        } else {
            command.arg(argument);
        }
    }
    command.args(options);
    command
}

fn folder(context: &mut Context, name: &str, lay: Lay, said: &[&str]) -> Result<()> {
    alone(context)?;
    let folder = context.node.directory().join(name);
    fs::create_dir_all(&folder)?;
    lay(&folder.join("rules.yaml"))?;
    refused(&mut with_rulesets(context, &folder), said)
}

fn same_name(file: &Path) -> Result<()> {
    let text = "apiVersion: ringfence.dev/v1alpha1\nkind: RuntimeRuleset\nmetadata: {name: twice}\nspec:\n  rules:\n  - {rule: RF-901, mitigation: log}\n";
    fs::write(file, text)?;
    Ok(fs::write(file.with_file_name("other.yaml"), text)?)
}

/// `ringfence`, which lies beside the enforcer.
fn ringfence(context: &Context, arguments: &[&str]) -> Command {
    let mut command = Command::new(context.start.program.with_file_name("ringfence"));
    command.args(arguments);
    command
}

fn without_enforcer(context: &mut Context) -> Result<()> {
    alone(context)?;
    let socket = context.node.directory().join("nobody.sock");
    for arguments in [
        &["status"][..],
        &["events"],
        &["events", "--follow"],
        &["explain", "web"],
        &["isolate", "web"],
        &["release", "web"],
    ] {
        let output = finish(ringfence(context, arguments).arg("--socket").arg(&socket))?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Nothing is wrong with the command line: it did not work.
        ensure!(output.status.code() == Some(1), "{arguments:?} ended with {}: {said}", output.status);
        ensure!(said.contains("enforcer running") && said.contains("nobody.sock"), "{arguments:?} said: {said}");
        ensure!(said.lines().count() == 1 && output.stdout.is_empty(), "{arguments:?} said more: {said}");
    }
    Ok(())
}

fn unknown_rule(context: &mut Context) -> Result<()> {
    // No enforcer is asked for what it could not know.
    refused(&mut ringfence(context, &["rules", "show", "RF-9O1"]), &["RF-9O1", "did you mean 'RF-901'"])?;
    refused(&mut ringfence(context, &["events", "--rule", "bogus"]), &["bogus", "ringfence rules"])?;
    refused(&mut ringfence(context, &["events", "--severity", "bad"]), &["bad", "low, medium, high, critical"])
}

fn lint(context: &mut Context) -> Result<()> {
    let folder = context.node.directory().join("lint");
    fs::create_dir_all(&folder)?;
    let path = folder.to_str().context("a strange path")?;
    refused(&mut ringfence(context, &["lint", path]), &["lint", "no .yaml or .yml file"])?;
    fs::write(folder.join("empty.yaml"), "")?;
    refused(&mut ringfence(context, &["lint", path]), &["no ruleset"])?;
    refused(&mut ringfence(context, &["explain", "--rulesets", path]), &["no ruleset"])
}
