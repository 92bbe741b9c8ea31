//! Every program before the verifier of every kernel, and what that took, beside what it took before.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ringfence_image::Architecture;
use serde::{Deserialize, Serialize};

use super::{Cgroups, Kernel, initramfs::Contents, machine::Machine, matrix::locked};
use crate::{places, process, products::TARGET, tally::Tally};

/// What decides about the programs and how they are loaded.
const SOURCES: [&str; 6] = ["abi", "btf", "enforcer-ebpf", "enforcer/build.rs", "enforcer/src/kernel", "Cargo.lock"];

/// Longest time for a kernel. Ten times what it takes on two cores.
const TIMEOUT: Duration = Duration::from_mins(15);

/// Memory of a VM, in MiB.
const MEMORY: u32 = 768;

/// What the verifiers said: by the kernel's name.
#[derive(Default, Serialize, Deserialize)]
struct Numbers(BTreeMap<String, OfKernel>);

#[derive(Clone, Default, Serialize, Deserialize)]
struct OfKernel {
    /// As `uname -r` has it: the same name may be another kernel tomorrow.
    release: String,
    programs: BTreeMap<String, Answer>,
}

impl OfKernel {
    /// Programs and the verifier's log of each.
    fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        self.programs.iter().filter_map(|(program, answer)| match answer {
            Answer::Refused(log) => Some((program.as_str(), log.as_str())),
            _ => None,
        })
    }
}

/// A line of `enforcer verify --json`.
#[derive(Deserialize)]
struct Line {
    program: String,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Accepted(Statistics),
    NoHook(String),
    Refused(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    instructions: u32,
    total_states: u32,
    peak_states: u32,
    stack: u32,
}

/// Kernels of an architecture.
#[derive(Clone, Debug)]
pub struct Kernels {
    /// Which ones.
    pub kernels: Vec<Kernel>,
    /// Theirs, and the enforcer's.
    pub architecture: Architecture,
}

impl Kernels {
    /// What numbers of a kernel are kept under.
    fn name(&self, kernel: Kernel) -> String {
        match self.architecture {
            Architecture::Amd64 => kernel.to_string(),
            Architecture::Arm64 => format!("{kernel} {}", self.architecture),
        }
    }
}

/// Verifies an enforcer's programs on these kernels, and prints what came of it: two tables, a line for each kernel.
///
/// With `build`, numbers of the earlier commit that nobody kept are found out, which may take minutes; not on another
/// architecture.
pub fn run(kernels: &Kernels, enforcer: &Path, build: bool) -> Tally {
    println!("==> {} kernels verify every program", kernels.kernels.len());
    let (numbers, mut tally) = ask(kernels, enforcer);
    println!("{}", numbers.table());
    tally += numbers.judge();
    if let Err(error) = compare(&numbers, kernels, build) {
        println!("no comparison: {error:#}");
    }
    tally
}

/// Shows an enforcer's programs to these kernels, one a processor at a time, the first ones first: what the oldest refuses
/// is said before the newest has been asked. A kernel that did not answer is counted as a failure and has no numbers.
fn ask(asked: &Kernels, enforcer: &Path) -> (Numbers, Tally) {
    let at_a_time = thread::available_parallelism().map_or(1, NonZero::get);
    let waiting = Mutex::new(asked.kernels.iter().copied());
    let found = Mutex::new((Numbers::default(), Tally::default()));
    let ask_next = || {
        loop {
            let Some(kernel) = locked(&waiting).next() else { return };
            let (began, name) = (Instant::now(), asked.name(kernel));
            let answer = ask_one(kernel, asked.architecture, enforcer);
            let (numbers, tally) = &mut *locked(&found);
            match answer {
                Ok(answer) => {
                    let refused: Vec<&str> = answer.refused().map(|(program, _)| program).collect();
                    let what = if refused.is_empty() { "nothing".to_owned() } else { refused.join(", ") };
                    println!("{name} refuses {what}, after {} s", began.elapsed().as_secs());
                    numbers.0.insert(name, answer);
                }
                Err(error) => {
                    println!("FAILED verify/{name}: {error:#}");
                    *tally += Tally::FAILURE;
                }
            }
        }
    };
    thread::scope(|scope| (0..at_a_time).for_each(|_| drop(scope.spawn(ask_next))));
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn ask_one(kernel: Kernel, architecture: Architecture, enforcer: &Path) -> Result<OfKernel> {
    let contents = Contents {
        programs: vec![enforcer.to_owned()],
        of_this_machine: Vec::new(),
        modules: &["overlay"],
        cgroups: Cgroups::V2,
    };
    let machine = Machine::new(kernel, architecture, &contents, MEMORY)?;
    let (mut of_kernel, mut others) = (OfKernel::default(), String::new());
    let exit = machine.run("uname -r; exec /bin/enforcer verify --json", TIMEOUT, |line| {
        if let Ok(line) = serde_json::from_str::<Line>(line) {
            of_kernel.programs.insert(line.program, line.answer);
        } else if of_kernel.release.is_empty() && line.starts_with(|c: char| c.is_ascii_digit()) {
            line.clone_into(&mut of_kernel.release);
        } else {
            let _ = write!(others, "\n    | {line}");
        }
    })?;
    if of_kernel.programs.is_empty() {
        bail!("`enforcer verify --json` ended with exit code {exit} and told nothing:{others}");
    }
    if exit != 0 && of_kernel.refused().next().is_none() {
        bail!("`enforcer verify --json` ended with exit code {exit}:{others}");
    }
    Ok(of_kernel)
}

impl Numbers {
    /// Prints a line for each kernel, as suites do, with what was refused there, and counts them.
    fn judge(&self) -> Tally {
        let mut tally = Tally::default();
        for (kernel, of_kernel) in &self.0 {
            let OfKernel { release, programs } = of_kernel;
            let log = |(program, log): (&str, &str)| format!("\n{program}:\n    | {}", log.replace('\n', "\n    | "));
            let refused: Vec<_> = of_kernel.refused().map(log).collect();
            if refused.is_empty() {
                println!("ok verify/{kernel} ({release}: {} programs)", programs.len());
                tally += Tally { passed: 1, ..Tally::default() };
            } else {
                println!("FAILED verify/{kernel}: {release} refuses {} programs:{}", refused.len(), refused.concat());
                tally += Tally::FAILURE;
            }
        }
        tally
    }

    /// A line for each program, columns for each kernel.
    fn table(&self) -> String {
        let mut text = format!("{:<28}", "");
        for kernel in self.0.keys() {
            let _ = write!(text, "| {kernel:<28}");
        }
        let _ = write!(text, "\n{:<28}", "program");
        for _ in &self.0 {
            let _ = write!(text, "| {:>8} {:>6} {:>6} {:>5}", "instr.", "states", "peak", "stack");
        }
        text.push('\n');
        let mut names: Vec<&String> = self.0.values().flat_map(|of_kernel| of_kernel.programs.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let _ = write!(text, "{name:<28}");
            for of_kernel in self.0.values() {
                let _ = match of_kernel.programs.get(name) {
                    Some(Answer::Accepted(Statistics { instructions, total_states, peak_states, stack })) => {
                        write!(text, "| {instructions:>8} {total_states:>6} {peak_states:>6} {stack:>5}")
                    }
                    Some(Answer::NoHook(_)) => write!(text, "| {:<28}", "no such hook"),
                    Some(Answer::Refused(_)) => write!(text, "| {:<28}", "REFUSED"),
                    None => write!(text, "| {:<28}", "not told"),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// What differs from earlier numbers, a line each; kernels that have none there are named.
    fn changes(&self, earlier: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kernel, now) in &self.0 {
            let Some(before) = earlier.0.get(kernel) else {
                lines.push(format!("{kernel}: no earlier numbers"));
                continue;
            };
            if now.release != before.release {
                lines.push(format!("{kernel}: {} then, {} now", before.release, now.release));
            }
            for (program, answer) in &now.programs {
                match before.programs.get(program) {
                    None => lines.push(format!("{kernel:<12}{program:<28} new: {}", answer.brief())),
                    Some(old) if old != answer => {
                        lines.push(format!("{kernel:<12}{program:<28} {}", old.compared_to(answer)));
                    }
                    Some(_) => {}
                }
            }
            let gone = before.programs.keys().filter(|program| !now.programs.contains_key(*program));
            lines.extend(gone.map(|program| format!("{kernel:<12}{program:<28} gone")));
        }
        lines
    }

    /// The numbers of a commit, if they were kept.
    fn kept(file: &Path) -> Option<Self> {
        // Whatever is wrong with the file: it is as good as none, and is written anew.
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    fn keep(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec(self)?).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Answer {
    fn brief(&self) -> String {
        match self {
            Self::Accepted(numbers) => format!("{} instructions", numbers.instructions),
            Self::NoHook(_) => "no such hook".to_owned(),
            Self::Refused(_) => "refused".to_owned(),
        }
    }

    /// What became of it.
    fn compared_to(&self, now: &Self) -> String {
        let (Self::Accepted(old), Self::Accepted(new)) = (self, now) else {
            return format!("{}, was {}", now.brief(), self.brief());
        };
        let pairs = [
            ("instructions", old.instructions, new.instructions),
            ("states", old.total_states, new.total_states),
            ("peak", old.peak_states, new.peak_states),
            ("stack", old.stack, new.stack),
        ];
        let changed = pairs.into_iter().filter(|(_, old, new)| old != new).map(|(what, old, new)| {
            let percent = (f64::from(new) - f64::from(old)) * 100.0 / f64::from(old.max(1));
            format!("{what} {old} -> {new} ({percent:+.1} %)")
        });
        changed.collect::<Vec<_>>().join(", ")
    }
}

/// The commit that numbers are held against, and how it stands to the working tree.
struct Base {
    commit: String,
    relation: &'static str,
}

impl Base {
    /// HEAD where the programs' sources differ from it; else what was there before the last commit that touched them.
    fn find() -> Result<Option<Self>> {
        if !is_clean()? {
            return Ok(Some(Self { commit: git(&["rev-parse", "HEAD"])?, relation: "HEAD" }));
        }
        let sources = ["log", "-1", "--format=%P", "HEAD", "--"].into_iter().chain(SOURCES).collect::<Vec<_>>();
        let relation = "before the last commit that touched the programs";
        let parent = git(&sources)?.split_whitespace().next().map(str::to_owned);
        Ok(parent.map(|commit| Self { commit, relation }))
    }

    fn short(&self) -> &str {
        self.commit.get(..12).unwrap_or(&self.commit)
    }

    /// Its numbers: those that were kept when its programs were verified, or else an enforcer built from it is asked.
    fn numbers(&self, wanted: &Kernels, build: bool) -> Result<Numbers> {
        let file = kept_file(&self.commit)?;
        let mut numbers = Numbers::kept(&file).unwrap_or_default();
        let is_missing = |kernel: &Kernel| !numbers.0.contains_key(&wanted.name(*kernel));
        let missing =
            Kernels { kernels: wanted.kernels.iter().copied().filter(is_missing).collect(), ..wanted.clone() };
        if build && !missing.kernels.is_empty() {
            println!(
                "==> nothing is known of {}: building its enforcer, once; the first time for minutes",
                self.short()
            );
            let (told, _) = ask(&missing, &self.build()?);
            if told.0.is_empty() {
                bail!("the enforcer of {} told nothing", self.short());
            }
            numbers.0.extend(told.0);
            numbers.keep(&file)?;
        }
        Ok(numbers)
    }

    fn build(&self) -> Result<PathBuf> {
        // The same place every time, so that cargo finds what it built there before.
        let (tree, target) = (places::target().join("verify/tree"), places::target().join("verify/target"));
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        fs::create_dir_all(&tree)?;
        let mut archive = Command::new("git");
        archive.args(["archive", "--format=tar", &self.commit]).current_dir(places::workspace()).stdout(Stdio::piped());
        let mut archive = archive.spawn().context("cannot start git")?;
        let mut tar = Command::new("tar");
        // Without the commit's times: what is older than the last build would count as built.
        tar.args(["--extract", "--touch", "--directory"]).arg(&tree);
        tar.stdin(archive.stdout.take().context("standard output is piped")?);
        let unpacked = process::succeed(&mut tar);
        if !archive.wait()?.success() {
            bail!("git archive {} failed", self.commit);
        }
        unpacked?;
        let mut cargo = places::cargo();
        cargo.current_dir(&tree).env("CARGO_TARGET_DIR", &target);
        cargo.args(["build", "--release", "--target", TARGET, "--package", "ringfence-enforcer"]);
        println!("==> {}", process::line(&cargo));
        process::succeed(&mut cargo)?;
        Ok(target.join(TARGET).join("release/enforcer"))
    }
}

/// Keeps the numbers for those who come after this commit, and prints what changed since the one before.
fn compare(numbers: &Numbers, kernels: &Kernels, build: bool) -> Result<()> {
    if is_clean()? {
        let file = kept_file("HEAD")?;
        let mut kept = Numbers::kept(&file).unwrap_or_default();
        kept.0.extend(numbers.0.clone());
        kept.keep(&file)?;
    }
    let Some(base) = Base::find()? else {
        println!("no earlier commit has the programs: nothing to compare with");
        return Ok(());
    };
    let (short, relation) = (base.short(), base.relation);
    if !build && Numbers::kept(&kept_file(&base.commit)?).is_none() {
        println!("nothing is known of {short} ({relation}); cargo xtask vm --verify finds out");
        return Ok(());
    }
    let earlier = base.numbers(kernels, build)?;
    let changes = numbers.changes(&earlier);
    if changes.is_empty() {
        println!("since {short} ({relation}) nothing grew or shrank");
    } else {
        println!("since {short} ({relation}):");
        println!("{}", changes.join("\n"));
    }
    Ok(())
}

/// Where a commit's numbers are kept: by the programs' sources, so that commits of other things share them.
fn kept_file(commit: &str) -> Result<PathBuf> {
    // One after the other: a path that an early commit does not have is no part of its name.
    let trees: Vec<String> = SOURCES
        .iter()
        .filter_map(|path| git(&["rev-parse", "--verify", "--quiet", &format!("{commit}:{path}")]).ok())
        .collect();
    if trees.is_empty() {
        bail!("{commit} has none of the programs' sources");
    }
    let trees = trees.iter().map(|tree| tree.get(..10).unwrap_or(tree)).collect::<Vec<_>>().join("-");
    Ok(places::cache("verify")?.join(format!("{trees}.json")))
}

/// Whether the programs' sources are those of HEAD.
fn is_clean() -> Result<bool> {
    let words: Vec<_> = ["status", "--porcelain", "--"].into_iter().chain(SOURCES).collect();
    Ok(git(&words)?.is_empty())
}

fn git(words: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.args(words).current_dir(places::workspace());
    Ok(process::output(&mut git)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(lines: &[&str]) -> Numbers {
        let lines = lines.iter().map(|line| serde_json::from_str::<Line>(line).expect("a line of the enforcer"));
        let programs = lines.map(|line| (line.program, line.answer)).collect();
        Numbers([("6.1".to_owned(), OfKernel { release: "6.1.0".to_owned(), programs })].into())
    }

    const OPEN: &str =
        r#"{"program":"open","accepted":{"instructions":200,"totalStates":20,"peakStates":10,"stack":48}}"#;
    const RING: &str = r#"{"program":"ring","noHook":"no such tracepoint"}"#;

    #[test]
    fn what_changed_is_told_and_nothing_else() {
        let before = numbers(&[OPEN, RING]);
        assert_eq!(before.changes(&before), Vec::<String>::new());
        let after = numbers(&[&OPEN.replace("200", "250"), r#"{"program":"ring","refused":"R1\nprocessed"}"#]);
        let changes = after.changes(&before);
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert!(changes[0].ends_with("open                         instructions 200 -> 250 (+25.0 %)"), "{changes:?}");
        assert!(changes[1].ends_with("refused, was no such hook"), "{changes:?}");
        let changes = numbers(&[OPEN]).changes(&before);
        assert!(matches!(changes.as_slice(), [gone] if gone.ends_with("gone")), "{changes:?}");
    }

    #[test]
    fn a_refused_program_is_a_failure() {
        assert_eq!(numbers(&[OPEN, RING]).judge(), Tally { passed: 1, ..Tally::default() });
        assert_eq!(numbers(&[OPEN, r#"{"program":"x","refused":"R1"}"#]).judge(), Tally::FAILURE);
    }
}
