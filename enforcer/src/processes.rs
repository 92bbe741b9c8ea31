//! What `/proc` still tells of the processes that a record names by number: after the fact, as far as it can be had.
//!
//! A container can make such a look hang (its files may lie on a FUSE file system of its own). So a thread looks, and
//! who asks waits for a moment only: while the thread hangs, records stay without.

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};
use ringfence_abi::EventHeader;
use ringfence_control::{Escaped, Violation};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

/// How long a record waits; a look takes some 50 us.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long a candidate waits: nobody else decides about it.
const MORE_PATIENCE: Duration = Duration::from_millis(100);
/// How long an answer is taken for true: a process may execute another program.
const FRESH: Duration = Duration::from_secs(1);
/// Answers that are kept.
const KEPT: usize = 1_024;
/// Bytes of arguments, and of `/etc/passwd`, that are read.
const MOST_ARGUMENTS: u64 = 4_096;
const MOST_USERS: u64 = 256 << 10;
/// More bytes of arguments than a process is ever started with: three quarters of 8 MiB (`fs/exec.c`, since 4.13).
const ALL_ARGUMENTS: u64 = 6 << 20;

/// A process, not to be mistaken for a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    pid: u32,
    /// Start, `CLOCK_BOOTTIME` in ns.
    start: u64,
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Question {
    /// Executable and arguments.
    Process(Id),
    /// Arguments whole, as bytes.
    Arguments(Id),
    /// The name of a user, as the root file system of a process has it.
    User { of: Id, uid: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Process {
        exe: Option<Escaped>,
        cmd: Vec<Escaped>,
    },
    Arguments(Vec<u8>),
    /// Where there is such a user.
    User(Option<Escaped>),
    /// The process is there no more.
    Gone,
}

/// Who asks.
pub struct Processes {
    questions: Sender<Question>,
    answers: Receiver<Answer>,
    /// Whether an answer is missing that nobody waits for any more.
    late: bool,
    seen: HashMap<Id, (Instant, Answer)>,
    /// By slot and user id.
    users: HashMap<(u32, u32), (Instant, Option<Escaped>)>,
}

impl Processes {
    /// Starts the thread that looks; it ends with the asker.
    pub fn new() -> std::io::Result<Self> {
        let (questions, asked) = channel::<Question>();
        let (answered, answers) = channel();
        std::thread::Builder::new().name("processes".to_owned()).spawn(move || {
            for question in asked {
                if answered.send(look(question).unwrap_or(Answer::Gone)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { questions, answers, late: false, seen: HashMap::new(), users: HashMap::new() })
    }

    /// Fills in what the record does not have: arguments and executables of the parents, the name of the user.
    pub fn complete(&mut self, header: &EventHeader, violation: &mut Violation) {
        let own = Id { pid: header.pid, start: header.start };
        let ancestors = header.ancestors.iter().map(|ancestor| Id { pid: ancestor.pid, start: ancestor.start });
        let parents: Vec<Id> = ancestors.take(violation.parents.len()).collect();
        for (parent, id) in violation.parents.iter_mut().zip(&parents) {
            if let Some(Answer::Process { exe, cmd }) = self.process(*id) {
                (parent.exe, parent.cmd) = (exe, cmd);
            }
        }
        violation.process.user.name = self.user(header.slot, header.uid, [own].iter().chain(&parents));
    }

    /// All arguments of the process that a record is about. `None`: it is gone, or there is no answer in time.
    pub fn arguments(&mut self, header: &EventHeader) -> Option<Vec<u8>> {
        match self.ask_for(Question::Arguments(Id { pid: header.pid, start: header.start }), MORE_PATIENCE)? {
            Answer::Arguments(args) => Some(args),
            _ => None,
        }
    }

    fn process(&mut self, id: Id) -> Option<Answer> {
        if let Some((at, answer)) = self.seen.get(&id)
            && at.elapsed() < FRESH
        {
            return Some(answer.clone());
        }
        if self.seen.len() >= KEPT {
            self.seen.clear();
        }
        let answer = self.ask(Question::Process(id))?;
        self.seen.insert(id, (Instant::now(), answer.clone()));
        Some(answer)
    }

    /// Of the first of the processes that still has a root file system: who was killed has none.
    fn user<'a>(&mut self, slot: u32, uid: u32, of: impl Iterator<Item = &'a Id>) -> Option<Escaped> {
        if let Some((at, name)) = self.users.get(&(slot, uid))
            && at.elapsed() < FRESH
        {
            return name.clone();
        }
        if self.users.len() >= KEPT {
            self.users.clear();
        }
        for &of in of {
            if let Answer::User(name) = self.ask(Question::User { of, uid })? {
                self.users.insert((slot, uid), (Instant::now(), name.clone()));
                return name;
            }
        }
        None
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        self.ask_for(question, PATIENCE)
    }

    /// `None`: there is no answer in time.
    fn ask_for(&mut self, question: Question, patience: Duration) -> Option<Answer> {
        if self.late {
            self.answers.try_recv().ok()?;
            self.late = false;
        }
        self.questions.send(question).ok()?;
        match self.answers.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(?question, "/proc gives no answer: records have no arguments of parents until it does");
                self.late = true;
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}

fn look(question: Question) -> Option<Answer> {
    let (id, answer) = match question {
        Question::Process(id) => {
            let exe = fs::read_link(format!("/proc/{}/exe", id.pid)).ok();
            let exe = exe.map(|path| Escaped::from(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())));
            let cmd = read_at_most(File::open(format!("/proc/{}/cmdline", id.pid)).ok()?, MOST_ARGUMENTS)?;
            let cmd = cmd.strip_suffix(&[0]).unwrap_or(&cmd);
            let cmd = if cmd.is_empty() { vec![] } else { cmd.split(|byte| *byte == 0).map(Escaped::from).collect() };
            (id, Answer::Process { exe, cmd })
        }
        Question::Arguments(id) => {
            let args = read_at_most(File::open(format!("/proc/{}/cmdline", id.pid)).ok()?, ALL_ARGUMENTS)?;
            (id, Answer::Arguments(args))
        }
        Question::User { of, uid } => (of, user_name(of.pid, uid)?),
    };
    // After the look: if it is still the same process now, it was all the while.
    is_there(id.pid, id.start).then_some(answer)
}

/// Whether the process with this number is still the one that was started then (`CLOCK_BOOTTIME` in ns).
pub fn is_there(pid: u32, start: u64) -> bool {
    started(pid) == Some(ticks(start))
}

fn read_at_most(file: File, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// `CLOCK_BOOTTIME` in the unit of `/proc/PID/stat`: `USER_HZ` is 100 on all architectures that we run on.
const fn ticks(start: u64) -> u64 {
    start / 10_000_000
}

/// Field 22 of `/proc/PID/stat`. The command name before it may hold anything, also parentheses.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplitn(2, |byte| *byte == b')').next()?;
    std::str::from_utf8(after_name).ok()?.split_whitespace().nth(19)?.parse().ok()
}

/// By the `/etc/passwd` of the process's own root.
fn user_name(pid: u32, uid: u32) -> Option<Answer> {
    let root = open(Path::new(&format!("/proc/{pid}/root")), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let inside = inside(&fs::read_to_string(format!("/proc/{pid}/uid_map")).ok()?, uid)?;
    // Symbolic links in there are the container's, and lead nowhere else; nor does a pipe keep us.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let Ok(file) = openat2(&root, "etc/passwd", how).map(File::from) else {
        return Some(Answer::User(None));
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Some(Answer::User(None));
    }
    Some(Answer::User(named(&read_at_most(file, MOST_USERS)?, inside)))
}

/// A user id of the initial namespace, as a namespace with this map has it.
fn inside(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
        let offset = uid.checked_sub(outside).filter(|offset| *offset < count)?;
        inside.checked_add(offset)
    })
}

/// The first user with the id in a file of `passwd(5)`.
fn named(passwd: &[u8], uid: u32) -> Option<Escaped> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id: u32 = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        (id == uid).then(|| Escaped::from(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let pid = std::process::id();
        let start = started(pid).unwrap() * 10_000_000 + 1_234;
        let Some(Answer::Process { exe, cmd }) = look(Question::Process(Id { pid, start })) else {
            panic!("this process is there")
        };
        assert_eq!(exe.unwrap().as_str(), std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(cmd.len(), std::env::args().count());
        assert_eq!(look(Question::Process(Id { pid, start: start + 10_000_000 })), None);
    }

    #[test]
    fn users_are_counted_as_inside() {
        assert_eq!(inside("         0          0 4294967295\n", 1000), Some(1000));
        assert_eq!(inside("0 100000 65536\n65536 0 1\n", 100_033), Some(33));
        assert_eq!(inside("0 100000 65536\n", 33), None);
    }

    #[test]
    fn names_of_users_come_from_passwd() {
        let passwd = b"# comment\nroot:x:0:0:root:/root:/bin/sh\n:x:7:\nwww\x1b-data:x:33:33::/:\n";
        assert_eq!(named(passwd, 0).unwrap().as_str(), "root");
        assert_eq!(named(passwd, 7), None);
        assert!(!named(passwd, 33).unwrap().as_str().contains('\x1b'));
        assert_eq!(named(passwd, 34), None);
    }

    #[test]
    fn whoever_hangs_keeps_nobody() {
        let (questions, asked) = channel();
        let (answered, answers) = channel();
        let mut processes = Processes { questions, answers, late: false, seen: HashMap::new(), users: HashMap::new() };
        let id = Id { pid: 1, start: 1 };
        assert_eq!(processes.process(id), None, "nobody looks");
        assert_eq!(processes.process(id), None);
        assert_eq!(asked.try_iter().count(), 1, "as long as one answer is missing, nothing else is asked");
        answered.send(Answer::Gone).unwrap();
        let answer = Answer::Process { exe: None, cmd: vec![] };
        answered.send(answer.clone()).unwrap();
        assert_eq!(processes.process(id), Some(answer), "the late answer is not taken for this one's");
    }
}
